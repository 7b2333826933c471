"""The network whose weights are brought: the image's own `/opt/pht/train.json` names it, as the manifest does.

A name from a closed list and plain arguments, so that a train for another network is a copy with two lines changed, and no new code.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from torch import nn

from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.weights import load_weights
from algorithms.export.networks import build

SEED = 20261123


def named_network() -> Mapping[str, Any]:
    """Return what the image says of its network: `name` and `arguments`."""
    description = Path(os.environ.get("PHT_TRAIN", "/opt/pht/train.json"))
    found: Mapping[str, Any] = json.loads(description.read_text(encoding="utf-8"))["network"]
    return found


def loaded(arrays: ArrayRecord) -> nn.Module:
    """Return the network with the inbound weights.

    Raises:
        TrainError: WEIGHTS_DO_NOT_FIT, they are of another network.
    """
    network = _built()
    try:
        load_weights(network, arrays)
    except RuntimeError as error:
        raise TrainError(
            "WEIGHTS_DO_NOT_FIT",
            f"the weights that the order names are not of {named_network().get('name')} as this train builds it: bring the "
            "weights of that network, or name theirs in train.json and train.yaml",
        ) from error
    return network


def initial_weights() -> dict[str, NDArray[np.generic]]:
    """Return untrained weights, for trying the train: a model that is brought has its own."""
    torch.manual_seed(SEED)
    return {name: tensor.contiguous().numpy() for name, tensor in build(named_network()).state_dict().items()}


@lru_cache(maxsize=1)
def _built() -> nn.Module:
    return build(named_network())
