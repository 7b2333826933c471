"""What the first round starts from: the untrained network under a fixed seed, the same for everyone who asks."""

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.cxr_classification.model import build_model

SEED = 20201105


def initial_weights() -> dict[str, NDArray[np.generic]]:
    """Return the untrained weights by name, integer buffers included."""
    torch.manual_seed(SEED)
    return {name: tensor.contiguous().numpy() for name, tensor in build_model().state_dict().items()}
