"""The network, and what the first round starts from."""

import torch
from monai.networks.nets import DenseNet

from .images import SPATIAL_DIMS

SEED = 1


def build_model() -> torch.nn.Module:
    """Return an untrained network with one logit, small, so that a first try is quick.

    `network` in train.yaml says the same.
    """
    return DenseNet(
        spatial_dims=SPATIAL_DIMS,
        in_channels=1,
        out_channels=1,
        init_features=16,
        growth_rate=8,
        block_config=(2, 2, 2),
    )


def initial_weights() -> torch.nn.Module:
    """Return what all hospitals start from; `pht-train init-weights` asks for it."""
    torch.manual_seed(SEED)
    return build_model()
