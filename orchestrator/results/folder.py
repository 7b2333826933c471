"""Where a run's result lies, and what it consists of."""

from pathlib import Path

from orchestrator.federation.orders import RunFolder, RunState

MODEL = "model.safetensors"
METRICS = "metrics.json"
PICTURE = "metrics.png"
PROVENANCE = "provenance.json"

RESULT_FILES = (MODEL, METRICS, PICTURE, PROVENANCE)
"""What a result may hold; the provenance statement is written last and says that it is complete."""


def result_folder(run_folder: Path) -> Path:
    """The folder of a run's result."""
    return run_folder / "result"


def wants_result(run_folder: Path) -> bool:
    """Whether a run finished and its result is not complete yet.

    Raises:
        StateError: the run's state is damaged.
    """
    if (result_folder(run_folder) / PROVENANCE).is_file():
        return False
    return RunFolder(run_folder).read_progress().state is RunState.FINISHED
