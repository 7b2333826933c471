"""How weights move between Flower's arrays and torch, and where a model runs."""

from collections import OrderedDict

import torch
from flwr.app import ArrayRecord
from torch import nn


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
