"""The use case: pseudonymise a source into a folder.

    TARGET/<patient>/<study>/<series>/<instance>.dcm    outputs, by their new identifiers
    TARGET/.pseudonymised/card.json                     what the folder was begun with
    TARGET/.pseudonymised/journal.jsonl                 what is dealt with, see `journal`
    TARGET/.pseudonymised/unfinished/                   outputs on their way
    TARGET/report.json, report.txt                      counts and reasons

Order for one file: the output is whole among the unfinished, it is moved to its place, its line is written. A second file
with the same SOP Instance UID is a duplicate when its output is the same, and a conflict when it is not; the first in
the order of the source stands. A study whose files name two patients has no output.
"""

import hashlib
import hmac
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from filecmp import cmp
from pathlib import Path

from policies.documents import canonical_json, load_json
from policies.errors import DocumentError, StateError, UsageError
from station.intake.tool import audit_file, mapping, working
from station.intake.tool.audit_file import ToolEvent
from station.intake.tool.journal import DUPLICATE, WRITTEN, Journal, JournalEntry, open_journal
from station.intake.tool.pooling import Pool
from station.intake.tool.request import ToolCard, ToolFault, ToolReport, ToolRequest
from station.intake.tool.source_files import Source, SourceFile, open_source
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.options import RECIPE_VERSION
from station.pseudonymisation.table import load_table
from station.storage.files import storage_fault, write_atomically

Progress = Callable[[int, int], None]
_OWN = ".pseudonymised"
_MAX_CARD_BYTES = 1 << 20


def _now() -> datetime:
    return datetime.now(UTC)


def _no_progress(done: int, total: int) -> None:
    del done, total


def pseudonymise(
    request: ToolRequest, mapping_to: Path | None = None, progress: Progress = _no_progress
) -> ToolReport:
    """Pseudonymise a source; a run that was killed goes on where it stopped when it is asked again.

    Args:
        request: what to do.
        mapping_to: a folder of the operator's for the mapping of old to new identifiers; audited.
        progress: told how many files are dealt with, and of how many.

    Raises:
        UsageError: source, output and mapping lie in each other, or the output was begun by another request.
        NotFoundError: the source is not there.
        ArchiveError: the zip is refused.
        StateError: the key cannot be used, or another process works on the folder.
        StorageError: the disk is full, or the folder cannot be written.
    """
    started = time.monotonic()
    if mapping.within(request.target, request.source) or mapping.within(request.source, request.target):
        raise UsageError("source and output lie in each other", hint="Name an output folder elsewhere.")
    if mapping_to is not None:
        mapping.prepare(mapping_to, request.target, request.source)
    key = PseudonymKey.load(request.key)
    if mapping.within(request.key, request.target):
        raise UsageError("the key may not lie with the images", hint="Keep it outside the output.")
    own = _begin(request, key)
    audit = audit_file.audit_path(request.key)
    audited: dict[str, str | int] = {
        "key": f"{key.key_id} v{key.version}", "project": request.project, "user": os.geteuid(),
    }  # fmt: skip
    source_key = key.sub_key(request.project, "source-file")
    with (
        open_journal(own / "journal.jsonl") as journal,
        open_source(request.source, source_key, request.max_file_bytes) as source,
    ):
        audit_file.append(audit, ToolEvent.RUN_BEGUN, audited, now=_now())
        run = _Run(request, key, own, journal)
        try:
            skipped = run.through(source, progress)
        finally:
            run.close()
        report = run.report(skipped, time.monotonic() - started)
    write_atomically(
        request.target / "report.json",
        canonical_json(report.model_dump(mode="json", by_alias=True)) + b"\n",
        0o644,
    )
    write_atomically(request.target / "report.txt", report.readable().encode("ascii"), 0o644)
    audit_file.append(
        audit,
        ToolEvent.RUN_FINISHED,
        {**audited, "written": report.written, "failed": sum(report.failed.values())},
        now=_now(),
    )
    if mapping_to is not None:
        _write_mapping(request, key, own, mapping_to, audited)
    return report


def _begin(request: ToolRequest, key: PseudonymKey) -> Path:
    """Make the output folder, or find that it was begun by the same request."""
    source = key.sub_key(request.project, "source-path")
    card = ToolCard.model_validate(
        {
            "schema": "pht-pseudonymised-folder",
            "key_id": key.key_id,
            "key_version": key.version,
            "project": request.project,
            "default_issuer": request.default_issuer,
            "options": request.options,
            "pixels": request.pixels,
            "keep_faces": request.keep_faces,
            "recipe": RECIPE_VERSION,
            "source": _path_digest(source, request.source),
        }
    )
    own = request.target / _OWN
    path = own / "card.json"
    try:
        if not path.exists():
            if request.target.exists() and any(entry.name != _OWN for entry in request.target.iterdir()):
                raise UsageError("the output folder is not empty", hint="Name a new folder.")
            own.mkdir(parents=True, exist_ok=True)
            write_atomically(path, canonical_json(card.model_dump(mode="json", by_alias=True)) + b"\n", 0o600)
        begun = load_json(ToolCard, path.read_bytes(), what="card", max_bytes=_MAX_CARD_BYTES)
        shutil.rmtree(own / "unfinished", ignore_errors=True)
        (own / "unfinished").mkdir()
    except DocumentError:
        raise StateError("the output folder's card is damaged", hint="Name a new folder.") from None
    except OSError as error:
        raise storage_fault(error, "the output folder") from None
    if begun != card:
        raise UsageError(
            "the output folder was begun with another source, key, project or options",
            hint="Give the same ones to go on, or name a new folder.",
        )
    return own


def _path_digest(key: bytes, path: Path) -> str:
    return hmac.new(key, os.fsencode(path.resolve()), hashlib.sha256).hexdigest()


class _Run:
    """One run over a source."""

    def __init__(self, request: ToolRequest, key: PseudonymKey, own: Path, journal: Journal) -> None:
        self._request = request
        self._key = key
        self._unfinished = own / "unfinished"
        self._journal = journal
        self._pool = Pool(request, key, self._unfinished)
        self._resumed = 0
        self._folders: set[Path] = set()
        self._written: dict[str, str] = {}
        self._patients: dict[str, str] = {}
        self._disputed: set[str] = set()
        for entry in list(journal.entries.values()):
            self._remember(entry)

    def close(self) -> None:
        """End the workers and clear what they left unfinished."""
        self._pool.close()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def through(self, source: Source, progress: Progress) -> int:
        """Deal with every file; return how many were passed over."""
        done = frozenset(file for file, entry in self._journal.entries.items() if self._stands(entry))
        self._resumed = len(done)
        count = 0

        def fresh() -> Iterator[SourceFile]:
            nonlocal count
            for file in source.files(done):
                if file.file in done:
                    count += 1
                else:
                    yield file

        answers = self._pool.run(working.make_all, fresh(), _died)
        for answer in answers:
            if isinstance(answer, working.NotMade):
                self._journal.add(JournalEntry(answer.file, answer.reason.value))
            else:
                self._place(answer)
            count += 1
            progress(count, source.total)
        self._withdraw_disputed()
        return source.skipped

    def report(self, skipped: int, seconds: float) -> ToolReport:
        """Count what came of it."""
        entries = self._journal.entries.values()
        outcomes = Counter(entry.outcome for entry in entries)
        written = [entry.target.split("/") for entry in entries if entry.outcome == WRITTEN]
        options = self._request.options
        return ToolReport.model_validate(
            {
                "schema": "pht-pseudonymisation-report",
                "finished_at": _now(),
                "profile": f"PS3.15 {load_table().source.edition} Basic Application Level Confidentiality Profile",
                "codes": tuple(code.value for code in options.codes()),
                "recipe": RECIPE_VERSION,
                "key_id": self._key.key_id,
                "key_version": self._key.version,
                "project": self._request.project,
                "files": len(entries),
                "written": outcomes.pop(WRITTEN, 0),
                "duplicates": outcomes.pop(DUPLICATE, 0),
                "skipped": skipped,
                "failed": dict(sorted(outcomes.items())),
                "patients": len({parts[0] for parts in written}),
                "studies": len({parts[1] for parts in written}),
                "series": len({parts[2] for parts in written}),
                "resumed": self._resumed,
                "seconds": round(seconds, 1),
            }
        )

    def _place(self, made: working.Made) -> None:
        target = f"{made.patient}/{made.study}/{made.series}/{made.instance}.dcm"
        unfinished = self._unfinished / made.unfinished
        path = self._request.target / target
        owner = self._written.get(target)
        outcome = WRITTEN
        try:
            if owner is not None and owner != made.file:
                same = cmp(unfinished, path, shallow=False)
                outcome = DUPLICATE if same else ToolFault.INSTANCE_CONFLICT.value
                unfinished.unlink()
            else:
                if path.parent not in self._folders:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._folders.add(path.parent)
                unfinished.replace(path)
        except OSError as error:
            raise storage_fault(error, "the output folder") from None
        entry = JournalEntry(
            made.file,
            outcome,
            target if outcome == WRITTEN else "",
            made.patient if outcome == WRITTEN else "",
        )
        self._journal.add(entry)
        self._remember(entry)

    def _remember(self, entry: JournalEntry) -> None:
        if entry.outcome != WRITTEN:
            return
        self._written[entry.target] = entry.file
        study = entry.target.split("/")[1]
        if self._patients.setdefault(study, entry.patient) != entry.patient:
            self._disputed.add(study)

    def _stands(self, entry: JournalEntry) -> bool:
        # What the machine lost with its power is made again.
        return entry.outcome != WRITTEN or (self._request.target / entry.target).is_file()

    def _withdraw_disputed(self) -> None:
        for entry in list(self._journal.entries.values()):
            if entry.outcome == WRITTEN and entry.target.split("/")[1] in self._disputed:
                path = self._request.target / entry.target
                with suppress(OSError):
                    path.unlink()
                    for folder in list(path.parents)[:3]:
                        folder.rmdir()
                self._journal.add(JournalEntry(entry.file, ToolFault.STUDY_PATIENT_MISMATCH.value))


def _died(source: SourceFile) -> working.Made | working.NotMade:
    return working.NotMade(source.file, ToolFault.WORKER_DIED)


def _write_mapping(
    request: ToolRequest, key: PseudonymKey, own: Path, folder: Path, audited: dict[str, str | int]
) -> None:
    """Make the mapping of what has an output, by reading the source again: nothing identified was kept meanwhile."""
    patients: dict[str, str] = {}
    uids: dict[str, str] = {}
    with (
        open_journal(own / "journal.jsonl") as journal,
        open_source(
            request.source, key.sub_key(request.project, "source-file"), request.max_file_bytes
        ) as source,
    ):
        without = frozenset(
            file for file, entry in journal.entries.items() if entry.outcome not in {WRITTEN, DUPLICATE}
        )
        pool = Pool(request, key, own / "unfinished")
        try:
            files = (file for file in source.files(without) if file.file not in without)
            for of_patient, of_uids in pool.run(working.map_all, files, lambda _: ([], [])):
                patients.update(of_patient)
                uids.update(of_uids)
        finally:
            pool.close()
    rendered = mapping.rendered(patients), mapping.rendered(uids)
    audit_file.append(
        audit_file.audit_path(request.key),
        ToolEvent.MAPPING_WRITTEN,
        {**audited, "patient_ids": len(patients), "uids": len(uids), **mapping.digests(*rendered)},
        now=_now(),
    )
    mapping.write(folder, *rendered)
