"""The pure core: what makes a signed policy or register binding under a charter.

Takes bytes that TUF has already vouched for, and the charter of the verified root; reads no file and no clock. Whether
a policy is in time, and whether a station may follow it, are other rules (`policies.rules`). Invariants: nothing of a
document is parsed before a known key's signature over it holds; `PolicyInForce` is made here and nowhere else.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from tuf.api.metadata import Root

from policies.charter import (
    POLICY_PAYLOAD_TYPE,
    REGISTER_PAYLOAD_TYPE,
    ROOT_KEY,
    Charter,
    Member,
    StationRegister,
    policy_target,
)
from policies.documents import (
    canonical_json,
    digest_of,
    load_json,
    load_yaml,
)
from policies.errors import DocumentError, TrustError
from policies.opinions import OPINION_PAYLOAD_TYPE, Opinion
from policies.policy import Policy
from policies.purposes import PURPOSES_PAYLOAD_TYPE, PurposeTable
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import VerifiedEnvelope, verify_envelope

_POLICY_TARGET = re.compile(r"policies/(?P<id>[a-z0-9-]{1,64})/(?P<version>[1-9][0-9]{0,8})\.dsse\.json")
_OPINION_TARGET = re.compile(
    r"opinions/(?P<id>[a-z0-9-]{1,64})/(?P<version>[1-9][0-9]{0,8})/(?P<key>[0-9a-f]{64})\.dsse\.json"
)
_REPLACED = "the charter in force names another key"
_BoardDocument = TypeVar("_BoardDocument", StationRegister, PurposeTable)


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy that the board's members signed as the charter demands. Made by `verify_policy` only.

    Attributes:
        policy: the parsed document.
        digest: of the policy file's bytes, as run orders name it.
        signers: the public keys, hex, whose signatures hold and count.
        envelope: the DSSE envelope, to keep as evidence.
    """

    policy: Policy
    digest: str
    signers: frozenset[str]
    envelope: bytes


@dataclass(frozen=True, slots=True)
class MemberOpinion:
    """What a member says of a policy version, signed by that member. Made by `verify_opinion` only."""

    member: Member
    opinion: Opinion


def charter_of(root: Root) -> Charter:
    """Return the charter that stands in verified root metadata.

    Raises:
        TrustError: there is none, it is not a charter, or others than its members sign the next root.
    """
    if ROOT_KEY not in root.unrecognized_fields:
        raise TrustError(f"the root metadata holds no charter ({ROOT_KEY})")
    try:
        charter = load_json(Charter, canonical_json(root.unrecognized_fields[ROOT_KEY]), what=ROOT_KEY)
    except DocumentError as error:
        raise TrustError(f"the charter in the root metadata is not valid: {error.message}") from error
    keys = (root.keys.get(keyid) for keyid in root.roles[Root.type].keyids)
    held = sorted("" if key is None else str(key.keyval.get("public")) for key in keys)
    # As lists: one key under two ids would count as two members.
    if held != sorted(member.key for member in charter.members):
        raise TrustError("the root's keys are not the keys of the members that its charter names")
    return charter


def parse_policy_target(path: str) -> tuple[str, int] | None:
    """Return (id, version) of a policy's target path, or None where the path is of something else."""
    match = _POLICY_TARGET.fullmatch(path)
    if match is None:
        return None
    return match["id"], int(match["version"])


def parse_opinion_target(path: str) -> tuple[str, int, str] | None:
    """Return (policy id, version, member's key) of an opinion's target path, or None."""
    match = _OPINION_TARGET.fullmatch(path)
    if match is None:
        return None
    return match["id"], int(match["version"]), match["key"]


@lru_cache(maxsize=1024)
def verify_policy(
    envelope: bytes, policy_id: str, version: int, charter: Charter, former: frozenset[str] = frozenset()
) -> Permitted[PolicyInForce] | Refused:
    """Decide whether a signed policy file is binding under a charter.

    1. Some member's or development key's signature holds: otherwise nothing is parsed.
    2. The file is a policy without contradictions, of this board, under its own id and version.
    3. None of those who signed is the requester.
    4. A development policy has a development key's signature; any other has the threshold of members, and
       5. at least one of each role that the charter requires.

    Where signatures are missing, those of `former` keys, which the board has replaced, say why.

    The result depends on the arguments alone, so it is remembered.
    """
    members = {member.key: member for member in charter.members}
    # 1
    known = members.keys() | set(charter.development_keys)
    try:
        verified = verify_envelope(envelope, POLICY_PAYLOAD_TYPE, known, threshold=1)
    except TrustError as error:
        if _signed_by(envelope, POLICY_PAYLOAD_TYPE, former):
            return Refused.because(RefusalCode.POLICY_SIGNER_RETIRED, _REPLACED)
        return Refused.because(RefusalCode.POLICY_SIGNATURES_TOO_FEW, error.message)
    # 2
    name = policy_target(policy_id, version)
    try:
        policy = load_yaml(Policy, verified.payload, what=name)
    except DocumentError as error:
        return Refused.because(RefusalCode.POLICY_INVALID, error.message)
    if policy.board != charter.board:
        return Refused.because(RefusalCode.POLICY_OTHER_BOARD, f"{name} holds a policy of another board")
    if (policy.id, policy.version) != (policy_id, version):
        return Refused.because(RefusalCode.POLICY_INVALID, f"{name} holds a policy of another id or version")
    # 3
    if _requester_signed(policy, envelope, verified, members):
        return Refused.because(RefusalCode.POLICY_SIGNER_IS_REQUESTER)
    # 4, 5
    signers: frozenset[str] | Refused
    if policy.role == "development":
        signers = verified.signers & set(charter.development_keys)
        if not signers:
            return Refused.because(RefusalCode.POLICY_SIGNATURES_TOO_FEW, "no development key has signed")
    else:
        signers = verified.signers & members.keys()
        if refused := _quorum(signers, charter):
            if _signed_by(envelope, POLICY_PAYLOAD_TYPE, former):
                return Refused.because(RefusalCode.POLICY_SIGNER_RETIRED, _REPLACED)
            return refused
    return Permitted(PolicyInForce(policy, digest_of(verified.payload), signers, envelope))


def _signed_by(envelope: bytes, payload_type: str, keys: frozenset[str]) -> bool:
    """Say whether one of these keys signed an envelope."""
    try:
        verify_envelope(envelope, payload_type, keys, threshold=1)
    except TrustError:
        return False
    return True


def _requester_signed(
    policy: Policy, envelope: bytes, verified: VerifiedEnvelope, members: dict[str, Member]
) -> bool:
    # Whoever's key it is, and however many others signed: an approval with the requester's hand in it is none.
    if _signed_by(envelope, POLICY_PAYLOAD_TYPE, frozenset({policy.requester.key})):
        return True
    # A requester who is a member orders runs with another key; the name gives the second hat away.
    contact = _spoken(policy.requester.contact)
    return any(_spoken(members[key].name) == contact for key in verified.signers & members.keys())


def _spoken(name: str) -> str:
    """Return a name without what one does not hear: case, accents, other forms of a letter, spaces, marks between."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in letters if letter.isalnum())


def _quorum(signers: Iterable[str], charter: Charter) -> Refused | None:
    """Return what is missing for a binding decision of the board, or None."""
    signed = frozenset(signers)
    signing = [member for member in charter.members if member.key in signed]
    if len(signing) < charter.threshold:
        return Refused.because(
            RefusalCode.POLICY_SIGNATURES_TOO_FEW,
            f"{len(signing)} of the {charter.threshold} members it takes",
        )
    roles = {member.role for member in signing}
    missing = [role for role in charter.required_roles if role not in roles]
    if missing:
        return Refused.because(
            RefusalCode.POLICY_SIGNER_ROLE_MISSING, f"nobody signed as {', '.join(missing)}"
        )
    return None


@lru_cache(maxsize=16)
def verify_register(
    envelope: bytes, charter: Charter, former: frozenset[str] = frozenset()
) -> Permitted[StationRegister] | Refused:
    """Decide whether a signed register of stations is binding: members sign it as they sign a policy."""
    document = _Signed("the register of stations", envelope, REGISTER_PAYLOAD_TYPE)
    return _verify_document(document, StationRegister, charter, former)


@lru_cache(maxsize=16)
def verify_purposes(
    envelope: bytes, charter: Charter, former: frozenset[str] = frozenset()
) -> Permitted[PurposeTable] | Refused:
    """Decide whether a signed table of purposes is binding: members sign it as they sign a policy."""
    document = _Signed("the table of purposes", envelope, PURPOSES_PAYLOAD_TYPE)
    return _verify_document(document, PurposeTable, charter, former)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A document of the board, not looked at yet."""

    what: str
    envelope: bytes
    payload_type: str


def _verify_document(
    signed: _Signed, model: type[_BoardDocument], charter: Charter, former: frozenset[str]
) -> Permitted[_BoardDocument] | Refused:
    what, keys = signed.what, [member.key for member in charter.members]
    try:
        verified = verify_envelope(signed.envelope, signed.payload_type, keys, charter.threshold)
        missing = _quorum(verified.signers, charter)
    except TrustError as error:
        missing = Refused.because(RefusalCode.TRUST_SIGNATURES_TOO_FEW, error.message)
    if missing is not None:
        if _signed_by(signed.envelope, signed.payload_type, former):
            return Refused.because(RefusalCode.TRUST_KEY_RETIRED, f"{what}: {_REPLACED}")
        detail = f"{what}: {missing.reasons[0].detail}"
        return Refused.because(RefusalCode.TRUST_SIGNATURES_TOO_FEW, detail)
    try:
        document = load_yaml(model, verified.payload, what=what)
    except DocumentError as error:
        return Refused.because(RefusalCode.TRUST_UNVERIFIED, f"{what}: {error.message}")
    if document.board != charter.board:
        return Refused.because(RefusalCode.TRUST_UNVERIFIED, f"{what} is another board's")
    return Permitted(document)


def verify_opinion(
    envelope: bytes, member_key: str, policy: PolicyInForce, charter: Charter
) -> MemberOpinion:
    """Return a member's opinion of a policy.

    Args:
        envelope: untrusted bytes.
        member_key: under whose name it is listed.
        policy: what it is about, by its very bytes.
        charter: says who the members are.

    Raises:
        TrustError: not signed with that key, not a member's, or about other bytes than the policy's.
    """
    about = (policy.policy.id, policy.policy.version, policy.digest)
    return verify_opinion_about(envelope, member_key, about, charter)


def verify_opinion_about(
    envelope: bytes, member_key: str, about: tuple[str, int, str], charter: Charter
) -> MemberOpinion:
    """Return a member's opinion of a policy file that may not be in force yet: (id, version, digest of its bytes).

    Raises:
        TrustError: as `verify_opinion`.
    """
    member = next((member for member in charter.members if member.key == member_key), None)
    if member is None:
        raise TrustError("the opinion is not a member's")
    payload = verify_envelope(envelope, OPINION_PAYLOAD_TYPE, [member_key], 1).payload
    try:
        opinion = load_json(Opinion, payload, what="opinion")
    except DocumentError as error:
        raise TrustError(f"the opinion is not valid: {error.message}") from error
    if (opinion.policy_id, opinion.version, opinion.policy_digest) != about:
        raise TrustError("the opinion is about another policy, or other bytes of it")
    return MemberOpinion(member, opinion)
