"""Writes the result of one finished run into its folder. Writing it again gives the same files.

The provenance statement is written last: where it is, the result is complete.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.federation.orders import AcceptedOrder, RunFolder, RunProgress, RunState
from orchestrator.results.folder import METRICS, MODEL, PICTURE, PROVENANCE, result_folder
from orchestrator.results.picture import draw_metrics
from orchestrator.results.provenance import provenance_statement
from orchestrator.results.shown import shown_rounds
from orchestrator.results.tables import described
from policies.bundle import BlobFolder
from policies.documents import canonical_json, digest_of_file
from policies.errors import StateError, StorageError, TrustError
from policies.files import write_atomically
from policies.wire.arrays import read_layout


def write_result(run_folder: Path, blobs: BlobFolder) -> Path:
    """Write the result of a run; return its folder.

    Args:
        run_folder: the run's folder; its state must be finished.
        blobs: where the weights lie.

    Raises:
        StateError: the run is not finished, or its files are damaged.
        StorageError: the disk is full.
    """
    run = RunFolder(run_folder)
    accepted, progress = run.read_order(), run.read_progress()
    rounds = shown_rounds(accepted, run.read_rounds())
    if progress.state is not RunState.FINISHED:
        raise StateError(f"the run is {progress.state}, not finished")
    folder = result_folder(run_folder)
    folder.mkdir(exist_ok=True)
    names = [METRICS, PICTURE]
    write_atomically(folder / METRICS, canonical_json(metrics_document(accepted, rounds)) + b"\n")
    title = f"{accepted.manifest.name} {accepted.manifest.version}, order {accepted.order_digest[7:19]}"
    _whole(folder / PICTURE, lambda path: draw_metrics(rounds, title, path, accepted.manifest))
    if "train" in accepted.order.stages:
        _write_model(progress, blobs, folder / MODEL)
        names.append(MODEL)
    subjects = {name: digest_of_file(folder / name) for name in names}
    weights = read_layout(folder / MODEL).tensors if MODEL in names else ()
    statement = provenance_statement(accepted, rounds, subjects, weights)
    write_atomically(folder / PROVENANCE, canonical_json(statement) + b"\n")
    return folder


def metrics_document(accepted: AcceptedOrder, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """All released numbers of a run, per round."""
    return {
        "schema_version": 1,
        "order_digest": accepted.order_digest,
        "train": {"name": accepted.manifest.name, "version": accepted.manifest.version},
        "stages": list(accepted.order.stages),
        "stations": list(accepted.order.stations),
        "tables": described(accepted.manifest),
        "rounds": rounds,
        "final": rounds[-1].get("means", {}) if rounds else {},
    }


def _write_model(progress: RunProgress, blobs: BlobFolder, to: Path) -> None:
    if progress.weights is None:
        raise StateError("a finished training run without weights")
    try:
        blobs.rehash(progress.weights)
    except TrustError as error:
        raise StateError("the final weights are damaged") from error
    _whole(to, lambda path: shutil.copyfile(blobs.path(str(progress.weights)), path))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            draft = Path(folder) / path.name
            write(draft)
            draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be written ({error.strerror})") from error
