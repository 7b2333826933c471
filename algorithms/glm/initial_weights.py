"""What a run of the regression starts from: zeros, in the shapes of the image's model."""

from algorithms.glm.client_app import model_file
from algorithms.glm.design import Vector
from algorithms.glm.specification import read_model
from algorithms.glm.state import initial_arrays


def initial_weights() -> dict[str, Vector]:
    """Return the tensors by name."""
    return initial_arrays(len(read_model(model_file()).columns))
