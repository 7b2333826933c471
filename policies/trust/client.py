"""The reader's side of the board's repository: pin the root once, refresh, and never go back.

python-tuf's `Updater` does the client workflow (TUF specification 5); this module feeds it what was verified before,
keeps the outcome in one durable file, and turns it into a `PolicySet`. Invariants: a mirror can withhold, and nothing
else; what was verified last counts while the mirror is out of reach, until its timestamp expires; versions, seen
policies and withdrawals only grow; a state file that cannot be read refuses instead of starting afresh.

Files in the trust folder: ``root.json`` (the pinned root), ``verified.json`` (the last verified state), ``lock``.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.ngclient import FetcherInterface

from policies.charter import REGISTER_TARGET, Charter
from policies.decisions import DECISIONS_TARGET
from policies.documents import canonical_json
from policies.errors import StateError, TrustError
from policies.files import exclusive_lock, write_atomically
from policies.purposes import PURPOSES_TARGET
from policies.refusals import Permitted, RefusalCode, Refused
from policies.trust.diagnosis import UntrustedMirrorError
from policies.trust.fetch import HttpsFetcher, MirrorError, fetcher_for
from policies.trust.policy_set import PolicySet, RepositoryState
from policies.trust.state import StoredFetcher, VerifiedState, update
from policies.trust.verification import (
    charter_of,
    parse_opinion_target,
    parse_policy_target,
    verify_purposes,
    verify_register,
)
from policies.wire.proxies import Proxy


class PolicyClient:
    """Verifies a mirror of the board's repository against the root pinned in `trust_dir`.

    Args:
        trust_dir: this reader's own folder; others must not be able to write to it.
        mirror: an https URL that has ``metadata/`` and ``targets/`` below it, or such a folder.
        fetcher: overrides how bytes are fetched from `mirror`.
        ca: PEM of the authority behind the mirror's certificate.
        proxy: a CONNECT proxy to go through.
    """

    def __init__(
        self,
        trust_dir: Path,
        mirror: str | Path,
        fetcher: FetcherInterface | None = None,
        *,
        ca: Path | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._dir = trust_dir
        self._base, default_fetcher = fetcher_for(mirror, ca, proxy)
        self._fetcher = fetcher or default_fetcher

    @staticmethod
    def pin(trust_dir: Path, root: bytes) -> Charter:
        """Trust this root from now on; every later one must be signed by the one before.

        Args:
            trust_dir: the reader's folder; made if missing.
            root: the first root's bytes, received from the board by a way the mirror has no hand in.

        Returns:
            The charter in it, to show to the person who pins.

        Raises:
            TrustError: not a root that signs itself, no charter in it, or another root is pinned already.
        """
        charter = read_root(root)[1]
        path = trust_dir / "root.json"
        if path.exists():
            if path.read_bytes() != root:
                raise TrustError(
                    "another root is pinned here already",
                    hint="A root changes by rotation, signed by its members, never by pinning again.",
                )
            return charter
        write_atomically(path, root, mode=0o600)
        return charter

    def refresh(self, now: datetime) -> Permitted[PolicySet] | Refused:
        """Fetch, verify and remember the repository's state.

        Args:
            now: the moment that expiry is judged by, with a time zone.

        Raises:
            StorageError: the new state cannot be made durable; nothing may be decided by it then.
        """
        return self._in_turn(now, from_mirror=True)

    def last_verified(self, now: datetime) -> Permitted[PolicySet] | Refused:
        """Return the last verified state without asking the mirror; refuses once it is stale."""
        return self._in_turn(now, from_mirror=False)

    def _in_turn(self, now: datetime, *, from_mirror: bool) -> Permitted[PolicySet] | Refused:
        pinned = self._pinned()
        if pinned is None:
            return Refused.because(RefusalCode.TRUST_UNVERIFIED, "no root is pinned")
        with exclusive_lock(self._dir / "lock"):
            try:
                before = self._load()
            except StateError as error:
                return Refused.because(RefusalCode.TRUST_UNVERIFIED, error.message)
            try:
                after, reached = self._next(pinned, before, now, from_mirror=from_mirror)
                result = _policy_set(pinned, after, now, reached=reached)
            except UntrustedMirrorError as error:
                return Refused((error.reason,))
            except DownloadError as error:
                said = str(error) if isinstance(error, MirrorError) else ""
                return Refused.because(RefusalCode.TRUST_UNREACHABLE, said)
            except TrustError as error:
                return Refused.because(RefusalCode.TRUST_UNVERIFIED, error.message)
            except ValidationError:
                # Its text would quote what the mirror gave.
                return Refused.because(
                    RefusalCode.TRUST_UNVERIFIED, "what the mirror gives is no valid state"
                )
            if isinstance(result, Permitted) and reached:
                self._store(after, result.value)
            return result

    def _next(
        self, pinned: bytes, before: VerifiedState, now: datetime, *, from_mirror: bool
    ) -> tuple[VerifiedState, bool]:
        """Return the next verified state, and whether it comes from the mirror."""
        if from_mirror:
            try:
                return update(pinned, before, self._base, self._fetcher, now), True
            except DownloadError:
                if not before.metadata:
                    raise
            finally:
                # Refreshes are minutes apart: no connection stays open between them.
                if isinstance(self._fetcher, HttpsFetcher):
                    self._fetcher.close()
        return update(pinned, before, self._base, StoredFetcher(before), now), False

    def _pinned(self) -> bytes | None:
        try:
            return (self._dir / "root.json").read_bytes()
        except FileNotFoundError:
            return None

    def _load(self) -> VerifiedState:
        path = self._dir / "verified.json"
        try:
            return VerifiedState.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return VerifiedState(verified_at="")
        except ValidationError as error:
            raise StateError(
                f"{path.name} is damaged; what it remembers is needed against rollback"
            ) from error

    def _store(self, state: VerifiedState, found: PolicySet) -> None:
        if found.register is not None:
            state = state.model_copy(update={"register_version": found.register.version})
        if found.purposes is not None:
            state = state.model_copy(update={"purposes_version": found.purposes.version})
        write_atomically(self._dir / "verified.json", canonical_json(state), mode=0o600)


def read_root(data: bytes) -> tuple[Root, Charter]:
    """Read root metadata that is signed by its own threshold.

    Raises:
        TrustError: it is not.
    """
    try:
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise TrustError("this is not root metadata")
        metadata.verify_delegate(Root.type, metadata)
    except RepositoryError as error:
        raise TrustError(
            "this is no root that is signed by the members it names",
            hint="Give `1.root.json` as the board handed it out, whole and unchanged.",
        ) from error
    return metadata.signed, charter_of(metadata.signed)


def _policy_set(
    pinned: bytes, state: VerifiedState, now: datetime, *, reached: bool
) -> Permitted[PolicySet] | Refused:
    root_text = state.roots[max(state.roots)] if state.roots else pinned.decode("utf-8")
    root = Metadata[Root].from_bytes(root_text.encode()).signed
    roles = {role: Metadata.from_bytes(text.encode()).signed for role, text in state.metadata.items()}
    charter = charter_of(root)
    former = _former_keys(pinned, state, charter)
    register = purposes = None
    if REGISTER_TARGET in state.targets:
        signed_register = verify_register(state.targets[REGISTER_TARGET].encode(), charter, former)
        if isinstance(signed_register, Refused):
            return signed_register
        register = signed_register.value
        if register.version < state.register_version:
            return Refused.because(
                RefusalCode.TRUST_ROLLBACK, "an older register of stations than was seen before"
            )
    if PURPOSES_TARGET in state.targets:
        signed_table = verify_purposes(state.targets[PURPOSES_TARGET].encode(), charter, former)
        if isinstance(signed_table, Refused):
            return signed_table
        purposes = signed_table.value
        if purposes.version < state.purposes_version:
            return Refused.because(
                RefusalCode.TRUST_ROLLBACK, "an older table of purposes than was seen before"
            )
    return Permitted(
        PolicySet(
            state=RepositoryState(
                root_version=root.version,
                timestamp_version=roles[Timestamp.type].version,
                targets_version=roles[Targets.type].version,
                expires=min(role.expires for role in (root, *roles.values())),
                verified_at=now,
                reached=reached,
            ),
            charter=charter,
            register=register,
            purposes=purposes,
            witness_keys=frozenset(
                root.keys[key].keyval["public"] for key in root.roles[Timestamp.type].keyids
            ),
            envelopes={
                key: text.encode()
                for path, text in state.targets.items()
                if (key := parse_policy_target(path))
            },
            revocations=state.revocations,
            floor={name: max(seen - 1, state.withdrawn.get(name, 0)) for name, seen in state.seen.items()},
            former_keys=former,
            opinion_envelopes={
                about: text.encode()
                for path, text in state.targets.items()
                if (about := parse_opinion_target(path))
            },
            decisions_json=(
                state.targets[DECISIONS_TARGET].encode() if DECISIONS_TARGET in state.targets else None
            ),
        )
    )


def _former_keys(pinned: bytes, state: VerifiedState, charter: Charter) -> frozenset[str]:
    """Return the keys of charters before this one that count no longer."""
    roots = (pinned, *(text.encode() for text in state.roots.values()))
    charters = [charter_of(Metadata[Root].from_bytes(root).signed) for root in roots]
    return _keys_of(charters) - _keys_of([charter])


def _keys_of(charters: Sequence[Charter]) -> frozenset[str]:
    members = (member.key for charter in charters for member in charter.members)
    return frozenset(members) | frozenset(key for charter in charters for key in charter.development_keys)
