"""One verified state of the repository, and TUF's client workflow from one to the next.

python-tuf's `Updater` does the workflow (TUF specification 5) in a folder that is thrown away; the outcome is one value,
`VerifiedState`, that the caller stores as a whole or not at all. Invariant: what is in a state was verified against the
pinned root; versions, seen policies and withdrawals only grow from one to the next.
"""

import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from policies.charter import REGISTER_TARGET
from policies.decisions import DECISIONS_TARGET
from policies.documents import StrictModel, load_json
from policies.errors import DocumentError, TrustError
from policies.purposes import PURPOSES_TARGET
from policies.refusals import Reason, RefusalCode
from policies.signing import MAX_ENVELOPE_BYTES
from policies.trust.diagnosis import UntrustedMirrorError, WatchedFetcher, diagnose
from policies.trust.revocations import REVOKED_TARGET, RememberedRevocations, RevocationList
from policies.trust.verification import parse_opinion_target, parse_policy_target

MAX_TARGETS = 10_000
_MAX_TARGET_BYTES = MAX_ENVELOPE_BYTES
_NAMED_TARGETS = frozenset({REGISTER_TARGET, REVOKED_TARGET, PURPOSES_TARGET, DECISIONS_TARGET})
ROOT_VERSION_FIELD = "pht-root-version"
"""In the timestamp: the version of the root that the witness saw in force."""
_ROLES = (Timestamp.type, Snapshot.type, Targets.type)


class VerifiedState(StrictModel):
    """Metadata and targets as text, and what must never go back.

    Attributes:
        verified_at: when it was verified.
        roots: the roots after the pinned one, by version.
        metadata: timestamp, snapshot and targets, by role.
        targets: what the targets role lists and we read, by path.
        seen: the highest version of each policy that was ever listed.
        withdrawn: the highest version of each policy that was listed once and then was not.
        register_version: of the newest register of stations.
        purposes_version: of the newest table of purposes.
        revocations: all that was ever withdrawn by name: policies, requesters, stations.
    """

    schema_version: Literal[1] = 1
    verified_at: str
    roots: dict[Annotated[int, Field(ge=2)], str] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    targets: dict[str, str] = Field(default_factory=dict)
    seen: dict[str, int] = Field(default_factory=dict)
    withdrawn: dict[str, int] = Field(default_factory=dict)
    register_version: int = 0
    purposes_version: int = 0
    revocations: RememberedRevocations = RememberedRevocations(schema_version=1)


class StoredFetcher(FetcherInterface):
    """Serves one verified state and nothing newer: `Updater` has no offline mode of its own."""

    def __init__(self, state: VerifiedState) -> None:
        self._metadata = state.metadata

    def _fetch(self, url: str) -> Iterator[bytes]:
        role = url.rpartition("/")[2].removesuffix(".json").rpartition(".")[2]
        if role == Root.type:
            raise DownloadHTTPError("no newer root", 404)
        if role not in self._metadata:
            raise DownloadError("not stored")
        yield self._metadata[role].encode()


def update(
    pinned: bytes, before: VerifiedState, base: str, fetcher: FetcherInterface, now: datetime
) -> VerifiedState:
    """Run TUF's client workflow from the state `before`.

    Works in a folder that is thrown away: the state on disk changes as a whole or not at all, so a download that
    breaks off leaves the last verified state usable.

    Raises:
        UntrustedMirrorError: something does not verify; the reason says which lie it is.
        TrustError: the list of what is withdrawn cannot be read.
        DownloadError: something cannot be fetched.
    """
    watched = WatchedFetcher(fetcher)
    with tempfile.TemporaryDirectory(prefix="pht-trust-") as scratch:
        folder = Path(scratch)
        _lay_out(folder, before)
        try:
            updater = Updater(
                str(folder),
                f"{base}/metadata/",
                target_dir=str(folder),
                target_base_url=f"{base}/targets/",
                fetcher=watched,
                bootstrap=pinned,
            )
        except RepositoryError as error:
            raise UntrustedMirrorError(Reason(RefusalCode.TRUST_UNVERIFIED, "the pinned root")) from error
        # python-tuf takes the time from the system; rules that decide take it as an argument. The set of what it has
        # verified is private (tuf is pinned, to 7.0.1).
        verified = updater._trusted_set  # noqa: SLF001
        verified.reference_time = now.astimezone(UTC)
        try:
            updater.refresh()
            _no_root_is_withheld(verified.root, verified.timestamp)
            return _collect(updater, folder, pinned, before, now)
        except (RepositoryError, DownloadLengthMismatchError) as error:
            roots = (*_roots_before(folder, verified.root.version), verified.root)
            raise UntrustedMirrorError(diagnose(error, watched.last, roots)) from error


def _no_root_is_withheld(root: Root, timestamp: Timestamp) -> None:
    """Compare the newest root that the mirror gives with the one the witness vouches for.

    TUF lists no root anywhere: a mirror that keeps the newest one back would keep members and keys in force that the
    board has replaced, for as long as the root before lives.

    Raises:
        UntrustedMirrorError: a newer one was in force when the timestamp was made.
    """
    vouched = timestamp.unrecognized_fields.get(ROOT_VERSION_FIELD, 0)
    if not isinstance(vouched, int) or root.version < vouched:
        detail = f"root {vouched} is in force, and the mirror gives none after root {root.version}"
        raise UntrustedMirrorError(Reason(RefusalCode.TRUST_ROOT_SKIPPED, detail))


def _roots_before(folder: Path, version: int) -> list[Root]:
    files = {int(path.name.split(".")[0]): path for path in (folder / "root_history").iterdir()}
    return [
        Metadata[Root].from_bytes(files[one].read_bytes()).signed for one in sorted(files) if one < version
    ]


def _collect(
    updater: Updater, folder: Path, pinned: bytes, before: VerifiedState, now: datetime
) -> VerifiedState:
    """Return the state that a refreshed updater has verified, with its targets."""
    metadata = {role: (folder / f"{role}.json").read_text("utf-8") for role in _ROLES}
    roots = {
        int(path.name.split(".")[0]): path.read_text("utf-8")
        for path in (folder / "root_history").iterdir()
        if path.read_bytes() != pinned
    }
    listed = Metadata[Targets].from_bytes(metadata[Targets.type].encode()).signed.targets
    targets = {
        path: _target(updater, folder, listed[path], before.targets.get(path)) for path in _wanted(listed)
    }
    return remember(before, now, roots, metadata, targets)


def _lay_out(folder: Path, state: VerifiedState) -> None:
    (folder / "root_history").mkdir()
    for version, text in state.roots.items():
        (folder / "root_history" / f"{version}.root.json").write_text(text, "utf-8")
    for role, text in state.metadata.items():
        (folder / f"{role}.json").write_text(text, "utf-8")


def _wanted(listed: Mapping[str, TargetFile]) -> list[str]:
    """Return the targets we read, bounded; a reader of today ignores targets of tomorrow."""
    wanted = [
        path
        for path in listed
        if path in _NAMED_TARGETS or parse_policy_target(path) or parse_opinion_target(path)
    ]
    if len(wanted) > MAX_TARGETS:
        raise RepositoryError(f"more than {MAX_TARGETS} targets")
    return sorted(wanted)


def _target(updater: Updater, folder: Path, info: TargetFile, known: str | None) -> str:
    if info.length > _MAX_TARGET_BYTES:
        raise RepositoryError(f"{info.path} is larger than any document")
    if known is not None:
        try:
            info.verify_length_and_hashes(known.encode())
        except LengthOrHashMismatchError:
            pass
        else:
            return known
    data = Path(updater.download_target(info, filepath=str(folder / "target"))).read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{info.path} is not text") from error


def remember(
    before: VerifiedState,
    now: datetime,
    roots: dict[int, str],
    metadata: dict[str, str],
    targets: dict[str, str],
) -> VerifiedState:
    """Return the state after a verified update; what was seen and withdrawn only grows.

    Raises:
        TrustError: the list of what is withdrawn cannot be read.
    """
    latest: dict[str, int] = {}
    for path in targets:
        if key := parse_policy_target(path):
            latest[key[0]] = max(latest.get(key[0], 0), key[1])
    seen = {
        name: max(before.seen.get(name, 0), latest.get(name, 0))
        for name in before.seen.keys() | latest.keys()
    }
    gone = {name: version for name, version in before.seen.items() if name not in latest}
    withdrawn = {
        name: max(before.withdrawn.get(name, 0), gone.get(name, 0))
        for name in before.withdrawn.keys() | gone.keys()
    }
    return VerifiedState(
        verified_at=now.astimezone(UTC).isoformat(),
        roots=roots,
        metadata=metadata,
        targets=targets,
        seen=seen,
        withdrawn=withdrawn,
        register_version=before.register_version,
        purposes_version=before.purposes_version,
        revocations=before.revocations.joined_with(_revocations(targets.get(REVOKED_TARGET))),
    )


def _revocations(text: str | None) -> RevocationList:
    if text is None:
        return RevocationList(schema_version=1)
    try:
        return load_json(RevocationList, text.encode(), what=REVOKED_TARGET, max_bytes=_MAX_TARGET_BYTES)
    except DocumentError as error:
        raise TrustError(error.message) from error
