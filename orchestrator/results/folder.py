"""Where a run's result lies, and what it consists of.

A finished run has `result/`. One that failed or was stopped gives what it has in `incomplete/`, which counts only for the very end
that `incomplete/.end` names: a run that went on since has none until it ends again.
"""

from pathlib import Path
from typing import Final

from orchestrator.federation.orders import RunFolder, RunProgress, RunState
from policies.result_files import PROVENANCE, RESULT_FILES

__all__ = [
    "PROVENANCE",
    "RESULT_FILES",
    "current_result",
    "incomplete_folder",
    "name_of_end",
    "result_folder",
    "wants_result",
    "write_end",
]

_END: Final = ".end"
_ENDED_EARLY: Final = (RunState.FAILED, RunState.STOPPED)


def result_folder(run_folder: Path) -> Path:
    """The folder of a finished run's result."""
    return run_folder / "result"


def incomplete_folder(run_folder: Path) -> Path:
    """The folder of what a run has that failed or was stopped."""
    return run_folder / "incomplete"


def current_result(run_folder: Path, progress: RunProgress) -> Path | None:
    """Return the folder of the result that the run has now, whole; None where it has none (yet)."""
    if progress.state is RunState.FINISHED:
        folder = result_folder(run_folder)
    elif progress.state in _ENDED_EARLY and _end_of(run_folder) == name_of_end(progress):
        folder = incomplete_folder(run_folder)
    else:
        return None
    return folder if (folder / PROVENANCE).is_file() else None


def wants_result(run_folder: Path) -> bool:
    """Whether a run is over and what it gives is not written yet.

    Raises:
        StateError: the run's state is damaged.
    """
    progress = RunFolder(run_folder).read_progress()
    if progress.state is RunState.FINISHED:
        return current_result(run_folder, progress) is None
    if progress.state not in _ENDED_EARLY or current_result(run_folder, progress) is not None:
        return False
    # Without a round there is nothing to give.
    return any((run_folder / name).is_file() for name in ("rounds.jsonl", "checkpoint.json"))


def write_end(run_folder: Path, progress: RunProgress) -> None:
    """Say of which end of its run the incomplete result is."""
    (incomplete_folder(run_folder) / _END).write_text(name_of_end(progress), encoding="utf-8")


def name_of_end(progress: RunProgress) -> str:
    """Tell one end of a run from another: it may go on, and end again."""
    parts = (progress.state, progress.code, progress.round, progress.flower_runs, progress.restarts)
    return ":".join(map(str, parts))


def _end_of(run_folder: Path) -> str | None:
    try:
        return (incomplete_folder(run_folder) / _END).read_text(encoding="utf-8")
    except OSError:
        return None
