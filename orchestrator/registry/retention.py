"""What is kept of a finished run: the weights it began with and the ones it ended with, not those between.

Invariant: a blob goes only when no other order uses it and no party holds a grant on it.
"""

from sqlalchemy import select

from orchestrator.federation.orders import FolderQueue, RunFolder, RunState, weights_of
from orchestrator.storage import BlobGrant, Database
from policies.blobs import BlobFolder
from policies.documents import Digest


def forget_intermediate_weights(
    queue: FolderQueue, run: RunFolder, database: Database, blobs: BlobFolder
) -> int:
    """Remove the weights of a finished run's rounds but the last; return how many blobs went."""
    progress = run.read_progress()
    if progress.state is not RunState.FINISHED:
        return 0
    between = {_digest(entry.get("weights")) for entry in run.read_rounds()} - {None, progress.weights}
    used: set[Digest] = set()
    for folder in queue.folders():
        accepted = folder.read_order()
        if folder.path == run.path:
            used |= {accepted.order.initial_weights.digest} if accepted.order.initial_weights else set()
        else:
            used |= weights_of(folder, accepted)
    with database.reading() as session:
        granted = set(session.scalars(select(BlobGrant.digest).where(BlobGrant.digest.in_(between))).all())
    gone = [
        digest
        for digest in between
        if digest is not None and digest not in used | granted and blobs.has(digest)
    ]
    for digest in gone:
        blobs.remove(digest)
    return len(gone)


def _digest(weights: object) -> Digest | None:
    found = weights.get("digest") if isinstance(weights, dict) else None
    return found if isinstance(found, str) else None
