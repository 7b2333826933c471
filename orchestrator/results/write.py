"""Writes what a run that is over gives into its folder. Writing it again gives the same files.

The provenance statement is written last: where it is, the result is all there. Of a run that failed or was stopped it holds what the
run has: the model of the last checkpoint and the rounds so far, marked as incomplete in every document.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.federation.orders import RunFolder, RunState
from orchestrator.results.card import model_card
from orchestrator.results.card_page import card_page
from orchestrator.results.facts import Facts, read_facts
from orchestrator.results.folder import incomplete_folder, result_folder, write_end
from orchestrator.results.metrics import metrics_document, metrics_table
from orchestrator.results.picture import draw_metrics
from orchestrator.results.provenance import PAYLOAD_TYPE, provenance_statement
from policies.blobs import BlobFolder
from policies.documents import canonical_json, digest_of_file
from policies.errors import StateError, StorageError, TrustError
from policies.files import write_atomically
from policies.result_files import (
    CARD,
    CARD_PAGE,
    METRICS,
    MODEL,
    NETWORK,
    PICTURE,
    PROVENANCE,
    SIGNED,
    TABLE,
)
from policies.signing import load_signer, sign_envelope
from policies.wire.arrays import read_layout


def write_result(run_folder: Path, blobs: BlobFolder, notary: Path | None = None) -> Path:
    """Write the result of a run; return its folder.

    Args:
        run_folder: the run's folder; the run must be over.
        blobs: where the weights lie.
        notary: the orchestrator's own key, where it has one: countersigns the provenance.

    Raises:
        StateError: the run is not over, or its files are damaged.
        StorageError: the disk is full.
    """
    facts = read_facts(RunFolder(run_folder))
    if not facts.progress.state.is_over:
        raise StateError(f"the run is {facts.progress.state}, not finished")
    if facts.complete:
        shutil.rmtree(incomplete_folder(run_folder), ignore_errors=True)
        folder = result_folder(run_folder)
    else:
        folder = incomplete_folder(run_folder)
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    names = _write_files(facts, blobs, folder)
    if MODEL in names:
        facts = dataclasses.replace(facts, tensors=read_layout(folder / MODEL).tensors)
    _write_card(facts, folder)
    subjects = {name: digest_of_file(folder / name) for name in (*names, CARD, CARD_PAGE)}
    signer = load_signer(notary) if notary is not None and notary.is_file() else None
    statement = canonical_json(
        provenance_statement(facts, subjects, notary_key=signer.public_hex if signer else None)
    )
    if signer is not None:
        write_atomically(folder / SIGNED, sign_envelope(statement + b"\n", PAYLOAD_TYPE, signer))
    if facts.progress.state is not RunState.FINISHED:
        write_end(run_folder, facts.progress)
    write_atomically(folder / PROVENANCE, statement + b"\n")
    return folder


def _write_files(facts: Facts, blobs: BlobFolder, folder: Path) -> list[str]:
    accepted = facts.accepted
    names = [METRICS, TABLE, PICTURE]
    write_atomically(folder / METRICS, canonical_json(metrics_document(facts)) + b"\n")
    write_atomically(folder / TABLE, metrics_table(facts))
    title = f"{accepted.manifest.name} {accepted.manifest.version}, order {accepted.order_digest[7:19]}"
    if not facts.complete:
        title += f" (incomplete: {facts.progress.state})"
    _whole(folder / PICTURE, lambda path: draw_metrics(facts.rounds, title, path, accepted.manifest))
    if "train" in accepted.order.stages and (facts.complete or facts.weights is not None):
        _write_model(facts, blobs, folder / MODEL)
        names.append(MODEL)
        if accepted.manifest.network is not None:
            write_atomically(folder / NETWORK, canonical_json(accepted.manifest.network) + b"\n")
            names.append(NETWORK)
    return names


def _write_card(facts: Facts, folder: Path) -> None:
    card = model_card(facts)
    write_atomically(folder / CARD, canonical_json(card) + b"\n")
    write_atomically(folder / CARD_PAGE, card_page(card).encode())


def _write_model(facts: Facts, blobs: BlobFolder, to: Path) -> None:
    if facts.weights is None:
        raise StateError("a finished training run without weights")
    try:
        blobs.rehash(facts.weights)
    except TrustError as error:
        raise StateError("the final weights are damaged") from error
    _whole(to, lambda path: shutil.copyfile(blobs.path(str(facts.weights)), path))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            draft = Path(folder) / path.name
            write(draft)
            draft.replace(path)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be written ({error.strerror})") from error
