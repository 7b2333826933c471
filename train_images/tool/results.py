"""Fetches what a run gives, and holds its files to the digests in its provenance statement.

A download goes on where it stopped: after a break of the network, a restart of the orchestrator, or another process that was killed.
Nothing has its final name before its bytes are verified, and the provenance statement comes last: where it is, all of it is there.
The orchestrator is not trusted with names of files or with sizes: those of `policies.result_files` are taken, into a folder of nothing
else.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from policies.documents import digest_of_file
from policies.errors import NotFoundError, PhtError, StorageError, TrustError, UsageError, WireError
from policies.files import sync_folder
from policies.result_files import PROVENANCE, RESULT_FILES, SIGNED, most_bytes
from policies.signing import unsafe_payload
from policies.wire.registry_client import RegistryClient, RunStatus

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
WRITTEN_WITHIN_S: Final = 60.0
"""What a run gives is written within a moment of its end."""

_SUFFIXES: Final = ("", ".part", ".new", ".new.part")
_OURS: Final = frozenset(name + suffix for name in RESULT_FILES for suffix in _SUFFIXES)
"""What an earlier fetch leaves, whole or broken off."""

OnBytes = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file of a result."""

    name: str
    size: int
    digest: str


def fetch_result(
    registry: RegistryClient, digest: str, out: Path, on_bytes: OnBytes | None = None
) -> tuple[ResultFile, ...]:
    """Fetch every file of what a run gives; a file that is there already and is the one is not fetched again.

    Args:
        registry: an open connection.
        digest: the order's.
        out: a folder; made when missing.
        on_bytes: told the name of a file and how many of its bytes are there.

    Raises:
        NotFoundError: the run gives nothing (yet).
        WireError: its provenance statement is none.
        TrustError: bytes are not those of their digest, a file is none of a result or too large for one, or the countersigned
            statement is another one.
        UsageError: the folder holds something else than an earlier result.
        StorageError: the disk is full.
    """
    _hold_nothing_else(out)
    _written(registry, digest)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror})") from error
    draft = out / (PROVENANCE + ".new")
    _fetch(registry, digest, PROVENANCE, draft)
    subjects = subjects_of(draft)
    _forget_another(out, draft, subjects)
    for name, wanted in sorted(subjects.items()):
        path = out / name
        if not path.is_file() or digest_of_file(path) != wanted:
            _fetch(registry, digest, name, path, wanted, on_bytes)
    _fetch_signed(registry, digest, out, draft)
    draft.replace(out / PROVENANCE)
    sync_folder(out)
    names = [*sorted(subjects), *([SIGNED] if (out / SIGNED).is_file() else []), PROVENANCE]
    return tuple(ResultFile(name, (out / name).stat().st_size, digest_of_file(out / name)) for name in names)


def outcome_of(out: Path) -> tuple[bool, str]:
    """Return whether a fetched result is of a run that did all that was ordered, and the statement's words about it."""
    found = statement_of(out / PROVENANCE).get("predicate", {}).get("outcome", {})
    return bool(found.get("complete", True)), str(found.get("words", ""))[:1000]


def _written(registry: RegistryClient, digest: str) -> RunStatus:
    end = time.monotonic() + WRITTEN_WITHIN_S
    while True:
        status = registry.get_run(digest)
        if PROVENANCE in status.result:
            return status
        over = status.progress.is_over
        gives = status.progress.state == "finished" or bool(status.rounds)
        if not (over and gives) or time.monotonic() > end:
            raise NotFoundError(
                f"the run has no result: it is {status.progress.state}",
                hint="It released nothing before it ended." if over else "Wait for it: pht-train watch.",
            )
        time.sleep(0.5)


def _hold_nothing_else(out: Path) -> None:
    """Refuse a folder with a person's own files in it: a result's may have their names."""
    try:
        others = [path for path in out.iterdir() if path.name not in _OURS or not path.is_file()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{out}: cannot be read ({error.strerror})") from error
    if others:
        raise UsageError(
            f"{out}: holds other files than a result's",
            hint="Name an empty folder, or one that is not there yet.",
        )


def _fetch(
    registry: RegistryClient,
    digest: str,
    name: str,
    to: Path,
    wanted: str | None = None,
    on_bytes: OnBytes | None = None,
) -> None:
    """Fetch one file; one that grows beyond what it may be is broken off, and nothing of it stays."""

    def told(count: int) -> None:
        if count > most_bytes(name):
            raise TrustError(f"{name}: more bytes came than a result's file may have")
        if on_bytes is not None:
            on_bytes(name, count)

    try:
        registry.get_result_file(digest, name, to, digest=wanted, on_bytes=told)
    except TrustError:
        to.with_name(to.name + ".part").unlink(missing_ok=True)
        raise


def _forget_another(out: Path, draft: Path, subjects: dict[str, str]) -> None:
    """Remove what is here of another result: no statement may stand beside files that it does not name."""
    standing = out / PROVENANCE
    if not standing.is_file() or standing.read_bytes() == draft.read_bytes():
        return
    try:
        before = subjects_of(standing)
    except (WireError, TrustError):
        before = {}
    standing.unlink()
    for name in {*before, SIGNED} - subjects.keys():
        (out / name).unlink(missing_ok=True)


def _fetch_signed(registry: RegistryClient, digest: str, out: Path, draft: Path) -> None:
    """Fetch the countersigned statement, where there is one: it must be of the very bytes of the other."""
    envelope = out / (SIGNED + ".new")
    try:
        _fetch(registry, digest, SIGNED, envelope)
    except NotFoundError:
        return
    try:
        same = (
            unsafe_payload(envelope.read_bytes(), PAYLOAD_TYPE, max_bytes=most_bytes(SIGNED))
            == draft.read_bytes()
        )
    except PhtError:
        same = False
    if not same:
        envelope.unlink()
        raise TrustError(
            f"{SIGNED} is of another statement than {PROVENANCE}", hint="Fetch the result again."
        )
    envelope.replace(out / SIGNED)


def statement_of(path: Path) -> dict[str, Any]:
    """Return a provenance statement as it stands.

    Raises:
        WireError: it is none.
    """
    try:
        statement = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WireError(f"{PROVENANCE} is no provenance statement") from error
    if not isinstance(statement, dict):
        raise WireError(f"{PROVENANCE} is no provenance statement")
    return statement


def subjects_of(path: Path) -> dict[str, str]:
    """Return the files that a provenance statement names, with their digests.

    Raises:
        WireError: it is none.
        TrustError: it names a file that a result does not have.
    """
    try:
        found = {
            str(each["name"]): f"sha256:{each['digest']['sha256']}" for each in statement_of(path)["subject"]
        }
    except (KeyError, TypeError) as error:
        raise WireError(f"{PROVENANCE} is no provenance statement") from error
    if not found.keys() <= set(RESULT_FILES) - {PROVENANCE, SIGNED}:
        raise TrustError(f"{PROVENANCE} names a file that a result does not have")
    return found
