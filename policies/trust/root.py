"""The root of a board's repository: who decides, with which keys, and how a new root replaces it.

The charter stands inside the root, so members change it as they change keys: by the root's threshold. A root collects
its signatures as a draft (``draft/root.json``) and comes into force with the last one it takes.

Invariants: a root in force is never rewritten; the next one takes the threshold of both; the witness's key, the one that
is kept online, is nobody else's; a draft is signed only where it says what its plan says and nothing besides, and only the
bytes that were shown.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from policies.charter import ROOT_KEY, Charter
from policies.errors import NotFoundError, RefusedError, StateError, TrustError, UsageError
from policies.files import exclusive_lock, write_atomically
from policies.refusals import RefusalCode
from policies.signing import Signer, public_key
from policies.trust.metadata import read_metadata, sign_metadata, versions, whole_seconds
from policies.trust.verification import charter_of

ROOT_LIFETIME = timedelta(days=365)
_CLOCKS_APART = timedelta(days=1)
"""By how much the clocks of who drafts and who signs may differ."""
_ASK = "Do not sign it: have it drafted again, and ask who wrote this one."


@dataclass(frozen=True, slots=True)
class RootPlan:
    """What a root says.

    Attributes:
        charter: who decides; its members' keys are the root's.
        threshold: how many members a root takes; not below the charter's own threshold.
        secretary_key: public key, hex, of targets and snapshot.
        witness_key: public key, hex, of the timestamp; kept online, so nobody else's.
    """

    charter: Charter
    threshold: int
    secretary_key: str
    witness_key: str


@dataclass(frozen=True, slots=True)
class RootSignatures:
    """How far a root is from being valid.

    Attributes:
        version: the root's version.
        signed: members who have signed.
        needed: how many it takes.
        valid: it counts; a rotation also needs the threshold of the root before.
    """

    version: int
    signed: int
    needed: int
    valid: bool


@dataclass(frozen=True, slots=True)
class DraftedRoot:
    """A drafted root as a member reads it.

    Attributes:
        plan: all that it says, but for its lifetime.
        version: the root's version.
        expires: when it ends.
        signed_bytes: what a signature is over.
    """

    plan: RootPlan
    version: int
    expires: datetime
    signed_bytes: bytes


class BoardRoot:
    """The root and its draft, in a repository's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metadata = folder / "metadata"
        self._draft = folder / "draft" / "root.json"

    def propose(self, plan: RootPlan, *, now: datetime) -> None:
        """Draft the next root: the first one, another charter, rotated keys, or only a new lifetime.

        Raises:
            UsageError: the plan contradicts itself.
        """
        root = _new_root(plan)
        root.version = self._next_version()
        root.expires = whole_seconds(now) + ROOT_LIFETIME
        write_atomically(self._draft, Metadata(root).to_bytes())

    def sign(self, signer: Signer, shown: bytes | None = None) -> RootSignatures:
        """Add a member's signature to the drafted root; the one that completes it puts it in force.

        Args:
            signer: whose key.
            shown: the bytes that the member read (`to_sign`); None only for who drafted it in this very process.

        Raises:
            NotFoundError: no root is drafted.
            TrustError: the key is not of a member under the new or the old root, or the draft says more than its plan.
            RefusedError: the draft is another one than was shown.
        """
        with exclusive_lock(self._folder / ".lock"):
            draft = self._read_draft()
            if shown is not None and draft.signed_bytes != shown:
                raise RefusedError(
                    RefusalCode.DOCUMENT_CHANGED,
                    "draft/root.json is another root than the one that was shown",
                    hint="Somebody drafted it anew meanwhile: read it again, then sign it.",
                )
            self._plan_drafted(draft.signed)
            previous = self.in_force() if self.exists() else None
            keyid = signer.crypto_signer.public_key.keyid
            allowed = set(draft.signed.roles[Root.type].keyids)
            if previous is not None:
                allowed |= set(previous.roles[Root.type].keyids)
            if keyid not in allowed:
                raise TrustError(
                    "this key is not a member's", hint="The charter names the keys of the members."
                )
            sign_metadata(draft, signer, append=True)
            status = _root_signatures(draft, previous)
            if status.valid:
                write_atomically(self._metadata / f"{status.version}.root.json", draft.to_bytes())
                self._draft.unlink()
            else:
                write_atomically(self._draft, draft.to_bytes())
            return status

    def drafted(self) -> RootSignatures | None:
        """Return how far the drafted root is, or None where none is drafted."""
        if not self._draft.exists():
            return None
        return _root_signatures(self._read_draft(), self.in_force() if self.exists() else None)

    def drafted_plan(self) -> RootPlan:
        """Return what members are about to sign.

        Raises:
            NotFoundError: no root is drafted.
            TrustError: the draft says something besides its plan.
        """
        return self._plan_drafted(self._read_draft().signed)

    def to_sign(self, now: datetime) -> DraftedRoot:
        """Return the drafted root for a member to read, and its bytes for `sign`.

        Raises:
            NotFoundError: no root is drafted.
            TrustError: the draft says something besides its plan, or lives longer than a root does.
        """
        draft = self._read_draft()
        plan = self._plan_drafted(draft.signed)
        if draft.signed.expires > now + ROOT_LIFETIME + _CLOCKS_APART:
            raise TrustError(f"the drafted root lives longer than {ROOT_LIFETIME.days} days", hint=_ASK)
        return DraftedRoot(plan, draft.signed.version, draft.signed.expires, draft.signed_bytes)

    def plan(self) -> RootPlan:
        """Return what the root in force says.

        Raises:
            TrustError: its members have not all signed yet.
        """
        return _stated_plan(self.in_force())

    def exists(self) -> bool:
        """Say whether a root is in force."""
        return bool(versions(self._metadata, Root.type))

    def _next_version(self) -> int:
        return self.in_force().version + 1 if self.exists() else 1

    def _plan_drafted(self, root: Root) -> RootPlan:
        plan = _stated_plan(root)
        if root.version != self._next_version():
            # It would take the place of one that is in force, or leave a gap behind it.
            raise TrustError("the drafted root does not follow the root in force", hint=_ASK)
        return plan

    def _read_draft(self) -> Metadata[Root]:
        try:
            draft = Metadata[Root].from_bytes(self._draft.read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                "no root waits for signatures",
                hint="`pht-board status` shows the root in force; `pht-board rotate` drafts the next one.",
            ) from error
        except RepositoryError as error:
            raise StateError("draft/root.json is damaged") from error
        if not isinstance(draft.signed, Root):
            raise StateError("draft/root.json is not root metadata")
        return draft

    def in_force(self) -> Root:
        """Return the root in force.

        Raises:
            TrustError: its members have not all signed yet.
        """
        found = versions(self._metadata, Root.type)
        if not found:
            draft = self.drafted()
            have = f" ({draft.signed} of {draft.needed} signatures)" if draft else ""
            raise TrustError(
                f"the root is not in force yet{have}", hint="Members sign it with `pht-board sign --root`."
            )
        return read_metadata(self._metadata / f"{found[-1]}.root.json", Root)

    def charter(self) -> Charter:
        """Return the charter in force."""
        return charter_of(self.in_force())

    def pinnable(self) -> bytes:
        """Return the first root's bytes: what a station pins.

        Raises:
            TrustError: it is not signed yet.
        """
        self.in_force()
        return (self._metadata / "1.root.json").read_bytes()


def _new_root(plan: RootPlan) -> Root:
    charter = plan.charter
    members = [member.key for member in charter.members]
    if not charter.threshold <= plan.threshold <= len(members):
        raise UsageError(
            f"a root takes between {charter.threshold} and {len(members)} members",
            hint="Fewer than the charter's own threshold could change the charter.",
        )
    if plan.witness_key in {*members, plan.secretary_key, *charter.development_keys}:
        raise UsageError(
            "the witness needs a key of its own",
            hint="It is kept on a machine that is always on; others are not.",
        )
    root = Root(consistent_snapshot=True)
    for key in members:
        root.add_key(public_key(key), Root.type)
    root.roles[Root.type].threshold = plan.threshold
    for role in (Targets.type, Snapshot.type):
        root.add_key(public_key(plan.secretary_key), role)
    root.add_key(public_key(plan.witness_key), Timestamp.type)
    root.unrecognized_fields[ROOT_KEY] = charter.model_dump(mode="json")
    return root


def _plan_of(root: Root) -> RootPlan:
    (secretary,) = root.roles[Targets.type].keyids
    (witness,) = root.roles[Timestamp.type].keyids
    return RootPlan(
        charter_of(root),
        root.roles[Root.type].threshold,
        root.keys[secretary].keyval["public"],
        root.keys[witness].keyval["public"],
    )


def _stated_plan(root: Root) -> RootPlan:
    """Return a root's plan, where the root says nothing besides: every key, threshold and role is what the plan makes.

    Raises:
        TrustError: it does not: a key that the charter does not name would sign in the members' place.
    """
    try:
        plan = _plan_of(root)
        expected = _new_root(plan)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise TrustError("the root is none that a board drafts", hint=_ASK) from error
    expected.version, expected.expires = root.version, root.expires
    # Of the library that wrote it, not of the board.
    expected.spec_version = root.spec_version
    if root.to_dict() != expected.to_dict():
        raise TrustError("the root holds keys or terms that its charter does not name", hint=_ASK)
    return plan


def _root_signatures(draft: Metadata[Root], previous: Root | None) -> RootSignatures:
    own = draft.signed.get_verification_result(Root.type, draft.signed_bytes, draft.signatures)
    both = draft.signed.get_root_verification_result(previous, draft.signed_bytes, draft.signatures)
    return RootSignatures(draft.signed.version, len(own.signed), own.threshold, both.verified)


def verified_chain(metadata: Path, first: bytes) -> Root:
    """Return the newest root that follows from `first`, each signed by the threshold of the one before and its own.

    Args:
        metadata: folder with ``<version>.root.json``.
        first: the pinned first root.

    Raises:
        TrustError: a root in the folder does not follow.
    """
    try:
        root = Metadata[Root].from_bytes(first)
        root.verify_delegate(Root.type, root)
        for version in range(root.signed.version + 1, max((1, *versions(metadata, Root.type))) + 1):
            following = Metadata[Root].from_bytes((metadata / f"{version}.root.json").read_bytes())
            result = following.signed.get_root_verification_result(
                root.signed, following.signed_bytes, following.signatures
            )
            if not result.verified or following.signed.version != version:
                raise TrustError(f"root {version} is not signed by the members of root {version - 1}")
            root = following
    except (OSError, RepositoryError) as error:
        raise TrustError("the chain of roots does not verify") from error
    return root.signed
