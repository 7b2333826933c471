"""The network."""

import torch
from monai.networks.nets import DenseNet121
from torch import nn


def build_model() -> nn.Module:
    """Return an untrained DenseNet121 for one-channel images and one logit (Huang et al. 2017; MONAI's own).

    Its memory is laid out channels last, in which convolutions are a tenth to a fifth faster on CPUs and on tensor cores.
    """
    model: nn.Module = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
    return model.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]  # torch's stubs lack it
