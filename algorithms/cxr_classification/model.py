"""The network, and how it moves between Flower's arrays and torch."""

from collections import OrderedDict

import torch
from flwr.app import ArrayRecord
from monai.networks.nets import DenseNet121
from torch import nn


def build_model() -> nn.Module:
    """Return an untrained DenseNet121 for one-channel images and one logit (Huang et al. 2017; MONAI's own).

    Its memory is laid out channels last, in which convolutions are a tenth to a fifth faster on CPUs and on tensor cores.
    """
    model: nn.Module = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
    return model.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]  # torch's stubs lack it


def device() -> torch.device:
    """Return the GPU where the station leased one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_weights(model: nn.Module, arrays: ArrayRecord) -> None:
    """Put inbound weights into the model; every tensor must be there and fit.

    Raises:
        RuntimeError: names or shapes differ.
    """
    state = OrderedDict((name, torch.from_numpy(array.numpy().copy())) for name, array in arrays.items())
    model.load_state_dict(state, strict=True)


def read_weights(model: nn.Module) -> ArrayRecord:
    """Return the model's weights and buffers as they leave the train."""
    return ArrayRecord(
        OrderedDict((name, tensor.cpu().contiguous()) for name, tensor in model.state_dict().items())
    )
