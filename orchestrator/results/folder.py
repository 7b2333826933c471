"""Where a run's result lies, and what it consists of."""

from pathlib import Path

MODEL = "model.safetensors"
METRICS = "metrics.json"
PICTURE = "metrics.png"
PROVENANCE = "provenance.json"

RESULT_FILES = (MODEL, METRICS, PICTURE, PROVENANCE)
"""What a result may hold; the provenance statement is written last and says that it is complete."""


def result_folder(run_folder: Path) -> Path:
    """The folder of a run's result."""
    return run_folder / "result"
