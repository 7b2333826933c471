"""What a member says of a policy besides a signature: written beside the policy file, published with it.

``x.yaml.opinion-<first 8 digits of the key>.dsse.json`` holds one member's conditions or dissent, over the digest of the
very bytes of ``x.yaml``. Invariant: nobody both signs a policy and dissents from it.
"""

from datetime import datetime
from pathlib import Path

from policies.board.documents.documents_in import read_file
from policies.board.documents.wording import opinion_in_words
from policies.board.signing.signing_desk import SignedFile, envelope_path, read_policy, sign_document
from policies.charter import POLICY_PAYLOAD_TYPE, Charter
from policies.documents import canonical_json, digest_of, load_json
from policies.errors import DocumentError, TrustError, UsageError
from policies.files import write_atomically
from policies.opinions import OPINION_PAYLOAD_TYPE, Opinion
from policies.signing import Signer, sign_envelope, verify_envelope
from policies.trust.verification import verify_opinion_about

_SUFFIX = ".dsse.json"


def opinion_path(document: Path, key: str) -> Path:
    """Return where one member's opinion of a policy lies."""
    return document.with_name(f"{document.name}.opinion-{key[:8]}{_SUFFIX}")


def opinions_beside(document: Path) -> tuple[Path, ...]:
    """Return the opinions that lie beside a policy file."""
    start = f"{document.name}.opinion-"
    return tuple(
        path
        for path in sorted(document.parent.iterdir())
        if path.name.startswith(start) and path.name.endswith(_SUFFIX)
    )


def opinions_in_words(document: Path, data: bytes, charter: Charter) -> tuple[str, ...]:
    """Return what members say of the policy file, from the opinions beside it; what is not a member's is named as such."""
    policy = read_policy(data, document.name)
    about = (policy.id, policy.version, digest_of(data))
    return tuple(_in_words(path, about, charter) for path in opinions_beside(document))


def _in_words(path: Path, about: tuple[str, int, str], charter: Charter) -> str:
    envelope = read_file(path)
    for member in charter.members:
        try:
            return opinion_in_words(verify_opinion_about(envelope, member.key, about, charter))
        except TrustError:
            continue
    return f"{path.name} is no member's opinion of these bytes."


def approve(
    document: Path, data: bytes, signer: Signer, conditions: str | None, now: datetime
) -> tuple[SignedFile, Path | None]:
    """Sign a policy, with conditions where there are any.

    Args:
        document: the policy file.
        data: its bytes, as they were shown to the person who signs.
        signer: whose key.
        conditions: published with the policy.
        now: the present.

    Raises:
        UsageError: this member has dissented from it.
        TrustError: the envelope beside the file holds other bytes.
    """
    path = opinion_path(document, signer.public_hex)
    if path.exists() and _read(path, signer.public_hex).verdict == "dissent":
        raise UsageError(
            "this key has signed a dissent from the policy",
            hint=f"Remove {path.name} if you have changed your mind.",
        )
    if conditions is None:
        return sign_document(document, data, POLICY_PAYLOAD_TYPE, signer), None
    # Conditions first: what is cut off in between is refused when it is published, and never passes for an approval without.
    opinion = _write(path, _opinion(data, document.name, "conditions", conditions, now), signer)
    return sign_document(document, data, POLICY_PAYLOAD_TYPE, signer), opinion


def dissent_from(document: Path, data: bytes, signer: Signer, reason: str, now: datetime) -> Path:
    """Sign a dissent from a policy.

    Raises:
        UsageError: this key has signed the policy.
    """
    envelope = envelope_path(document)
    if envelope.exists() and _has_signed(read_file(envelope), signer.public_hex):
        raise UsageError(
            "this key has signed the policy",
            hint="Who has changed their mind asks the secretary not to publish it, and has the file signed anew.",
        )
    opinion = _opinion(data, document.name, "dissent", reason, now)
    return _write(opinion_path(document, signer.public_hex), opinion, signer)


def _has_signed(envelope: bytes, key: str) -> bool:
    try:
        verify_envelope(envelope, POLICY_PAYLOAD_TYPE, [key], 1)
    except TrustError:
        return False
    return True


def _opinion(data: bytes, name: str, verdict: str, text: str, now: datetime) -> Opinion:
    policy = read_policy(data, name)
    value = {
        "schema_version": 1,
        "policy_id": policy.id,
        "version": policy.version,
        "policy_digest": digest_of(data),
        "verdict": verdict,
        "text": text,
        "when": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return load_json(Opinion, canonical_json(value), what=f"the {verdict}")


def _write(path: Path, opinion: Opinion, signer: Signer) -> Path:
    write_atomically(path, sign_envelope(canonical_json(opinion), OPINION_PAYLOAD_TYPE, signer))
    return path


def _read(path: Path, key: str) -> Opinion:
    """Read an opinion that this key signed.

    Raises:
        TrustError: it did not, or it holds something else.
    """
    payload = verify_envelope(read_file(path), OPINION_PAYLOAD_TYPE, [key], 1).payload
    try:
        return load_json(Opinion, payload, what=path.name)
    except DocumentError as error:
        raise TrustError(f"{path.name}: holds no opinion") from error
