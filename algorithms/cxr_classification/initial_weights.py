"""What the first round starts from: the untrained network under a fixed seed, the same for everyone who asks."""

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.cxr_classification.findings import named_findings
from algorithms.cxr_classification.model import build_model

SEED = 20201105


def initial_weights(seed: int = SEED) -> dict[str, NDArray[np.generic]]:
    """Return the untrained weights by name, integer buffers included; as many outputs as the image names findings."""
    torch.manual_seed(seed)
    model = build_model(len(named_findings()) or 1)
    return {name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
