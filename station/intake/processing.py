"""Takes a batch from the spool: each file pseudonymised, already there, or in quarantine, by worker processes.

Order, so that a crash at any point is healed by doing it again (I8):
1. a worker makes the pseudonymised file durable in the handover folder and reads it again (nobody else reads it before
   an entry names it);
2. one transaction records the outcomes of a few files, their instances, studies and patients, in the files' order;
3. when every file has its outcome, the identified files leave the spool: removed, or moved to quarantine. Until then a
   later file of the batch can still say that an earlier one belongs to a disputed study.

Nothing of a file's content reaches a log line, an error or a report.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing

from sqlalchemy import select

from policies.errors import StorageError
from station.intake import recording, spool
from station.intake.books import Books
from station.intake.outcomes import FileOutcome, Progress
from station.intake.paths import IntakePaths
from station.intake.schema import FileRow
from station.intake.workers import Finished, TakeTask, WorkerPool
from station.intake.workers.messages import Unstored
from station.storage.files import storage_fault, sync_folder

_PER_TRANSACTION = 32
_LONGEST_WAIT_S = 0.25


def process(
    paths: IntakePaths,
    books: Books,
    pool: WorkerPool,
    batch: spool.StagedBatch,
    collection: str,
    progress: Progress,
) -> None:
    """Deal with every file that is left in a batch; a batch that was cut off goes on where it stopped.

    Raises:
        StorageError: the disk is full; what was recorded stays.
        UnavailableError: no worker can be started.
    """
    with books.database.read() as session:
        known = set(session.scalars(select(FileRow.name).where(FileRow.batch == batch.name)))
    names = [name for name in spool.files_of(paths.spool, batch.name) if name not in known]
    folder = paths.spool / batch.name
    tasks = [TakeTask(path=str(folder / name), collection=collection) for name in names]
    before, done = batch.card.files - len(names), 0
    with closing(pool.run(tasks)) as groups:
        for group in _gathered(groups):
            _record(books, batch.name, names[done : done + len(group)], group)
            for _ in group:
                done += 1
                progress(before + done, batch.card.files)
    leave_spool(paths, books, batch.name)


def _gathered(groups: Iterable[list[Finished]]) -> Iterator[list[Finished]]:
    """Gather results so that a transaction, which waits for the disk, is worth it; none waits long while others come."""
    gathered: list[Finished] = []
    since = time.monotonic()
    for group in groups:
        gathered += group
        if len(gathered) >= _PER_TRANSACTION or time.monotonic() - since >= _LONGEST_WAIT_S:
            yield gathered
            gathered, since = [], time.monotonic()
    if gathered:
        yield gathered


def _record(books: Books, batch: str, names: list[str], group: list[Finished]) -> None:
    answers = [finished.answer for finished in group]
    whole = next(
        (index for index, answer in enumerate(answers) if isinstance(answer, Unstored)), len(answers)
    )
    if whole:
        with books.decide() as session:
            for name, answer in zip(names, answers[:whole], strict=False):
                recording.record_outcome(session, books, batch, name, answer)
    if whole < len(answers):
        raise StorageError(
            "the handover folder does not take a file", hint="Free disk space; intake then goes on by itself."
        )


def leave_spool(paths: IntakePaths, books: Books, batch: str) -> None:
    """Clear the spool of a batch's files, each of which has its outcome; again is harmless.

    Raises:
        StorageError: a file cannot be removed or moved.
    """
    with books.database.read() as session:
        rows = {row.name: row for row in session.scalars(select(FileRow).where(FileRow.batch == batch))}
    folders = set()
    folder = paths.spool / batch
    try:
        for name in spool.files_of(paths.spool, batch):
            row = rows[name]
            if row.outcome != FileOutcome.QUARANTINED:
                (folder / name).unlink(missing_ok=True)
                continue
            target = paths.quarantine / str(row.reason)
            target.mkdir(mode=0o700, exist_ok=True)
            (folder / name).replace(target / f"{batch}-{name}")
            folders.add(target)
        # Where they arrive first: a file in both places is healed, one in neither is lost.
        for changed in (*sorted(folders), paths.quarantine, folder):
            sync_folder(changed)
    except OSError as error:
        raise storage_fault(error, "spool") from error
