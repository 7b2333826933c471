"""The freshness witness: vouches, for a short time and again and again, for the newest snapshot of the repository.

A small daemon outside the orchestrator. It decides nothing: its key can neither add a policy nor withdraw one, and
without it everything goes stale within one lifetime. Invariants: it vouches only for a snapshot (and targets) that the
secretary's key signed under the root it pinned, in time, and never older than one it vouched for before; its own
versions are durable before a signature leaves.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from policies.documents import StrictModel, canonical_json, format_moment
from policies.errors import NotFoundError, PhtError, StateError, TrustError, UsageError
from policies.files import exclusive_lock, write_atomically
from policies.signing import Signer
from policies.trust.metadata import read_metadata, sign_metadata, versions, whole_seconds
from policies.trust.root import verified_chain
from policies.trust.state import ROOT_VERSION_FIELD

DEFAULT_LIFETIME_S = 3600
_LOOK_EVERY_S = 1.0
_RETRY_S = 3.0

_Role = TypeVar("_Role", Snapshot, Targets)
_log = logging.getLogger(__name__)


class _State(StrictModel):
    """What the witness vouched for last; versions only grow."""

    root: str
    snapshot_version: int = 0
    targets_version: int = 0
    timestamp_version: int = 0


@dataclass(frozen=True, slots=True)
class Vouched:
    """What one signature of the witness says."""

    timestamp_version: int
    snapshot_version: int
    expires: datetime


class Witness:
    """Signs timestamps for one repository.

    Args:
        folder: the repository, as `BoardRepository` lays it out.
        key: the timestamp key that the root names.
        lifetime_s: how long each signature counts: how long a withdrawn policy can live at most.
        state_dir: the witness's own folder; by default ``witness`` in the repository.
    """

    def __init__(
        self,
        folder: Path,
        key: Signer,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        *,
        state_dir: Path | None = None,
    ) -> None:
        if lifetime_s < 1:
            raise UsageError("the lifetime must be at least one second")
        self._metadata = folder / "metadata"
        self._key = key
        self._lifetime = timedelta(seconds=lifetime_s)
        self._state_path = (state_dir or folder / "witness") / "state.json"

    def sign_once(self, now: datetime) -> Vouched:
        """Verify the newest snapshot and write a new ``timestamp.json`` that vouches for it.

        Raises:
            NotFoundError: nothing is published yet.
            TrustError: the snapshot or its targets do not verify, are stale, or are older than before.
        """
        # A daemon and a person may do this at once; no two timestamps may share a version.
        with exclusive_lock(self._state_path.with_name(".lock")):
            return self._sign(now)

    def _sign(self, now: datetime) -> Vouched:
        state = self._load()
        root = verified_chain(self._metadata, state.root.encode())
        if self._key.crypto_signer.public_key.keyid not in root.roles[Timestamp.type].keyids:
            raise TrustError("this key is not the witness's", hint="The root names the key of the timestamp.")
        snapshot, data = self._newest_snapshot(root, now)
        targets_version = self._verify_targets(root, snapshot, now)
        if snapshot.version < state.snapshot_version or targets_version < state.targets_version:
            raise TrustError("the repository is older than what was vouched for before")
        moment = whole_seconds(now)
        version = max(state.timestamp_version, self._present_version()) + 1
        timestamp = Metadata(
            Timestamp(
                version=version,
                expires=moment + self._lifetime,
                snapshot_meta=MetaFile.from_data(snapshot.version, data, ["sha256"]),
                unrecognized_fields={ROOT_VERSION_FIELD: root.version},
            )
        )
        sign_metadata(timestamp, self._key)
        self._store(
            state.model_copy(
                update={
                    "snapshot_version": snapshot.version,
                    "targets_version": targets_version,
                    "timestamp_version": version,
                }
            )
        )
        write_atomically(self._metadata / "timestamp.json", timestamp.to_bytes())
        return Vouched(version, snapshot.version, moment + self._lifetime)

    def run(
        self,
        every_s: float,
        stop: threading.Event,
        clock: Callable[[], datetime],
        publish: Callable[[], object] | None = None,
    ) -> None:
        """Sign every `every_s` seconds, and at once when something new is published, until `stop` is set.

        A failure is logged and tried again: the next turn may find the repository or the mirror well.

        Args:
            every_s: well below the lifetime.
            stop: ends the loop.
            clock: the present.
            publish: called after each signature, to bring it to the mirror.
        """
        while not stop.is_set():
            seen = versions(self._metadata, Snapshot.type)
            wait_s = every_s
            try:
                vouched = self.sign_once(clock())
                if publish is not None:
                    publish()
            except PhtError as error:
                # Our own texts only: they hold no secret and no data.
                _log.warning("witness_failed: %s", error.message)
                wait_s = min(every_s, _RETRY_S)
            else:
                _log.info(
                    "witness_vouched snapshot=%d timestamp=%d expires=%s",
                    vouched.snapshot_version,
                    vouched.timestamp_version,
                    format_moment(vouched.expires),
                )
            self._wait(wait_s, stop, seen)

    def _wait(self, seconds: float, stop: threading.Event, seen: list[int]) -> None:
        left = seconds
        while left > 0 and not stop.wait(min(left, _LOOK_EVERY_S)):
            if versions(self._metadata, Snapshot.type) != seen:
                return
            left -= _LOOK_EVERY_S

    def _newest_snapshot(self, root: Root, now: datetime) -> tuple[Snapshot, bytes]:
        if root.is_expired(now):
            raise TrustError("the root has expired", hint="Members sign a new one: `pht-board root`.")
        found = versions(self._metadata, Snapshot.type)
        if not found:
            raise NotFoundError("nothing is published yet", hint="Run `pht-board publish`.")
        data = (self._metadata / f"{found[-1]}.snapshot.json").read_bytes()
        snapshot = _verified(root, Snapshot, data)
        if snapshot.version != found[-1]:
            raise TrustError("the snapshot's version is not the one of its file name")
        if snapshot.is_expired(now):
            raise TrustError(
                "the snapshot has expired", hint="The secretary publishes again: `pht-board publish`."
            )
        return snapshot, data

    def _verify_targets(self, root: Root, snapshot: Snapshot, now: datetime) -> int:
        info = snapshot.meta["targets.json"]
        try:
            data = (self._metadata / f"{info.version}.targets.json").read_bytes()
            info.verify_length_and_hashes(data)
        except (OSError, RepositoryError) as error:
            raise TrustError("the targets are not those that the snapshot names") from error
        targets = _verified(root, Targets, data)
        if targets.is_expired(now):
            raise TrustError(
                "the targets have expired", hint="The secretary publishes again: `pht-board publish`."
            )
        return targets.version

    def _present_version(self) -> int:
        path = self._metadata / "timestamp.json"
        return read_metadata(path, Timestamp).version if path.exists() else 0

    def _load(self) -> _State:
        try:
            return _State.model_validate_json(self._state_path.read_bytes())
        except FileNotFoundError:
            pass
        except ValidationError as error:
            raise StateError(
                "the witness's state is damaged", hint="Restore it; it guards against rollback."
            ) from error
        first = self._metadata / "1.root.json"
        if not first.exists():
            raise NotFoundError(
                "the root is not in force yet", hint="Members sign it: `pht-board sign --root`."
            )
        # Pinned at the first signature, on the board's own machine; every later root follows from it.
        state = _State(root=first.read_text("utf-8"))
        self._store(state)
        return state

    def _store(self, state: _State) -> None:
        write_atomically(self._state_path, canonical_json(state), mode=0o600)


def _verified(root: Root, role: type[_Role], data: bytes) -> _Role:
    try:
        metadata = Metadata.from_bytes(data)
        root.verify_delegate(role.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise TrustError(f"the {role.type} metadata is not signed with the secretary's key") from error
    if not isinstance(metadata.signed, role):
        raise TrustError(f"this is not {role.type} metadata")
    return metadata.signed
