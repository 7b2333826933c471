"""The desk where members sign: a document beside its envelope, and who has signed.

``x.yaml`` is what people read; ``x.yaml.dsse.json`` holds exactly its bytes and their signatures, and goes from member to
member. Invariant: a signature is added only to an envelope over the very bytes of the file beside it.
"""

from dataclasses import dataclass
from pathlib import Path

from policies.board.documents.placeholders import unfinished
from policies.charter import Charter, Member
from policies.documents import digest_of, load_yaml
from policies.errors import DocumentError, RefusedError, TrustError
from policies.files import write_atomically
from policies.policy import Policy
from policies.refusals import RefusalCode
from policies.signing import (
    Signer,
    add_signature,
    sign_envelope,
    unsafe_payload,
    unsafe_signature_count,
    verify_envelope,
)


@dataclass(frozen=True, slots=True)
class SignedFile:
    """What came of signing.

    Attributes:
        envelope: the file that goes on to the next member.
        digest: of the document's bytes.
        signatures: how many the envelope holds now.
    """

    envelope: Path
    digest: str
    signatures: int


def envelope_path(document: Path) -> Path:
    """Return where a document's signatures lie."""
    return document.with_name(document.name + ".dsse.json")


def read_policy(data: bytes, name: str) -> Policy:
    """Read a policy that is about to be signed.

    Raises:
        DocumentError: it is not valid, or still has something to fill in.
    """
    policy = load_yaml(Policy, data, what=name)
    if keys := unfinished(data):
        raise DocumentError(
            f"{name}: still to be filled in: {', '.join(keys)}",
            hint="Write what holds for this board and this study where the file says FILL IN.",
        )
    return policy


def sign_document(document: Path, data: bytes, payload_type: str, signer: Signer) -> SignedFile:
    """Add a signature over a document's bytes to its envelope.

    Args:
        document: the file.
        data: its bytes, as they were shown to the person who signs.
        payload_type: what kind of document it is.
        signer: whose key.

    Raises:
        RefusedError: the envelope beside the file holds other bytes.
    """
    path = envelope_path(document)
    if not path.exists():
        envelope = sign_envelope(data, payload_type, signer)
    else:
        before = path.read_bytes()
        refuse_other_bytes(document.name, data, unsafe_payload(before, payload_type))
        envelope = add_signature(before, signer)
    write_atomically(path, envelope)
    return SignedFile(path, digest_of(data), unsafe_signature_count(envelope))


def refuse_other_bytes(name: str, data: bytes, signed: bytes) -> None:
    """See that a document is what its envelope holds.

    Raises:
        RefusedError: it was changed after it was signed, or the envelope was.
    """
    if data != signed:
        raise RefusedError(
            RefusalCode.DOCUMENT_CHANGED,
            f"{name}: the signatures beside it are over other bytes than it holds now",
            hint="Take the file that was signed, or start again with a new version and an empty envelope.",
        )


def members_who_signed(envelope: bytes, payload_type: str, charter: Charter) -> list[Member]:
    """Return the members whose signatures over an envelope hold."""
    try:
        signers = verify_envelope(
            envelope, payload_type, [member.key for member in charter.members], 1
        ).signers
    except TrustError:
        return []
    return [member for member in charter.members if member.key in signers]
