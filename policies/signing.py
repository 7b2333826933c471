"""Ed25519 keys in files, and DSSE envelopes over the very bytes a person read.

Does not know what it signs, nor who may sign: the caller names the payload type and the keys that count. Invariants:
a key file that others on the machine can read is refused; a signature by an unknown key, a second signature by one
key, or an envelope of another payload type never counts; nothing of the payload is parsed here.

Sources: DSSE v1.0.2 (PAE and envelope), RFC 8032 (Ed25519), RFC 5958 and RFC 8018 (PKCS #8, PBES2).
"""

import base64
import binascii
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ConfigDict, Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey
from securesystemslib.signer import Signer as SecureSystemsSigner

from policies.documents import MAX_DOCUMENT_BYTES, Sequence, StrictModel, canonical_json, load_json
from policies.errors import DocumentError, NotFoundError, StorageError, TrustError, UsageError

MAX_ENVELOPE_BYTES = MAX_DOCUMENT_BYTES * 4 // 3 + 64 * 1024
"""A document of the largest size, in base64, and its signatures."""

MAX_SIGNATURES = 128
_MAX_KEY_FILE_BYTES = 16 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _SignatureJson(StrictModel):
    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sig: Annotated[str, Field(max_length=200)]


class _EnvelopeJson(StrictModel):
    model_config = ConfigDict(populate_by_name=True)

    payload: str
    payload_type: Annotated[str, Field(alias="payloadType", max_length=200)]
    signatures: Sequence[_SignatureJson] = Field(max_length=MAX_SIGNATURES)


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, read from its file or reached through its signer.

    Attributes:
        public_hex: the Ed25519 public key, 64 hex digits: how documents name it.
        crypto_signer: the same key as securesystemslib and python-tuf use it.
    """

    public_hex: str
    crypto_signer: SecureSystemsSigner


@dataclass(frozen=True, slots=True)
class VerifiedEnvelope:
    """What `verify_envelope` vouches for.

    Attributes:
        payload: the signed bytes.
        signers: the known keys whose signatures over them hold.
    """

    payload: bytes
    signers: frozenset[str]


def generate_key(path: Path, passphrase: str | None = None) -> str:
    """Make a new key and write it as PEM PKCS #8, readable by its owner alone.

    Args:
        path: must not exist yet: a key is never overwritten.
        passphrase: encrypts the file where given.

    Returns:
        The public key, hex.

    Raises:
        UsageError: the file exists, or the passphrase is empty.
        StorageError: it cannot be written.
    """
    if passphrase is not None and not passphrase:
        raise UsageError(
            "the passphrase is empty", hint="Give a passphrase, or say explicitly that there is none."
        )
    private = Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    )
    _write_new_private_file(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return private.public_key().public_bytes_raw().hex()


def _write_new_private_file(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(
            f"{path.name}: a file of this name is there already",
            hint="Choose another name: a key is never overwritten.",
        ) from error
    except OSError as error:
        raise StorageError(f"{path.name}: the key cannot be written ({error.strerror})") from error


def load_signer(path: Path, passphrase: str | None = None) -> Signer:
    """Read a key that `generate_key` (or OpenSSL) wrote.

    Raises:
        NotFoundError: there is no such file.
        TrustError: others can read the file, the passphrase is wrong or missing, or it holds no Ed25519 key.
    """
    pem = _read_private_file(path)
    try:
        private = load_pem_private_key(pem, None if passphrase is None else passphrase.encode())
    except TypeError as error:
        # cryptography's way to say that exactly one of the two, encryption and passphrase, is missing
        if passphrase is None:
            raise TrustError(f"{path.name}: the key is encrypted", hint="Give its passphrase.") from error
        raise TrustError(
            f"{path.name}: the key is not encrypted", hint="Leave the passphrase out."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(
            f"{path.name}: cannot be read as a key", hint="The passphrase is wrong, or this is not a PEM key."
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise TrustError(f"{path.name}: is not an Ed25519 key", hint="Make one with `pht-board member new`.")
    return Signer(private.public_key().public_bytes_raw().hex(), CryptoSigner(private))


def _read_private_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Of the open file, not of the path: what is checked is what is read.
            refuse_if_readable_by_others(os.fstat(file.fileno()).st_mode, path.name)
            return file.read(_MAX_KEY_FILE_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.name}: there is no such key file") from error
    except OSError as error:
        raise StorageError(f"{path.name}: the key cannot be read ({error.strerror})") from error


def refuse_if_readable_by_others(mode: int, name: str) -> None:
    """Refuse a key file by its mode.

    Raises:
        TrustError: others can read it.
    """
    if mode & _OTHERS:
        raise TrustError(
            f"{name}: other users of this machine can read the key",
            hint=f"Run `chmod 600 {name}`, and consider whether somebody already has a copy.",
        )


def public_key(public_hex: str) -> SSlibKey:
    """Return a public key as python-tuf uses it.

    Raises:
        TrustError: it is not an Ed25519 public key in hex.
    """
    try:
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)))
    except ValueError as error:
        raise TrustError("not an Ed25519 public key of 64 hex digits") from error


def sign_envelope(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """Return a DSSE envelope (JSON) over `payload` with one signature."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer.crypto_signer)
    return _encode(envelope)


def add_signature(envelope: bytes, signer: Signer) -> bytes:
    """Return the envelope with one more signature; signing twice with one key changes nothing.

    Raises:
        TrustError: this is not an envelope.
    """
    decoded = _decode(envelope)
    decoded.sign(signer.crypto_signer)
    return _encode(decoded)


def verify_envelope(
    envelope: bytes,
    payload_type: str,
    keys: Iterable[str],
    threshold: int,
    *,
    max_bytes: int = MAX_ENVELOPE_BYTES,
) -> VerifiedEnvelope:
    """Return what `threshold` or more of `keys` signed.

    Args:
        envelope: untrusted bytes.
        payload_type: the only one that is accepted.
        keys: the public keys, hex, whose signatures count.
        threshold: how many different ones must hold; at least 1.
        max_bytes: of the envelope, for documents that may be larger than most.

    Raises:
        TrustError: not an envelope, another payload type, or too few signatures that hold.
        ValueError: a threshold below 1 would accept anything.
    """
    if threshold < 1:
        raise ValueError("a threshold below 1 accepts anything")
    decoded = _decode(envelope, max_bytes)
    if decoded.payload_type != payload_type:
        raise TrustError("the signature is over another type of document")
    signers = _valid_signers(decoded, frozenset(keys))
    if len(signers) < threshold:
        raise TrustError(f"{len(signers)} of the {threshold} signatures it takes")
    return VerifiedEnvelope(decoded.payload, signers)


def unsafe_payload(envelope: bytes, payload_type: str, *, max_bytes: int = MAX_ENVELOPE_BYTES) -> bytes:
    """Return the payload with no signature checked: only to find out whose signature to ask for, or to show it.

    Raises:
        TrustError: not an envelope, or of another payload type.
    """
    decoded = _decode(envelope, max_bytes)
    if decoded.payload_type != payload_type:
        raise TrustError("this is another type of document")
    return decoded.payload


def unsafe_signature_count(envelope: bytes) -> int:
    """Return how many signatures an envelope claims to hold; none of them is checked.

    Raises:
        TrustError: not an envelope.
    """
    return len(_decode(envelope).signatures)


def _valid_signers(envelope: Envelope, keys: frozenset[str]) -> frozenset[str]:
    known = {key.keyid: (public_hex, key) for public_hex in keys for key in [public_key(public_hex)]}
    pae = envelope.pae()
    valid: set[str] = set()
    for keyid, signature in envelope.signatures.items():
        if keyid not in known:
            continue
        public_hex, key = known[keyid]
        try:
            key.verify_signature(signature, pae)
        except (UnverifiedSignatureError, VerificationError):
            continue
        valid.add(public_hex)
    return frozenset(valid)


def _encode(envelope: Envelope) -> bytes:
    model = _EnvelopeJson(
        payload=base64.b64encode(envelope.payload).decode(),
        payload_type=envelope.payload_type,
        signatures=tuple(
            _SignatureJson(keyid=keyid, sig=base64.b64encode(bytes.fromhex(signature.signature)).decode())
            for keyid, signature in sorted(envelope.signatures.items())
        ),
    )
    return canonical_json(model.model_dump(mode="json", by_alias=True)) + b"\n"


def _decode(data: bytes, max_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    try:
        model = load_json(_EnvelopeJson, data, what="envelope", max_bytes=max_bytes)
    except DocumentError as error:
        raise TrustError("not a DSSE envelope") from error
    try:
        signatures: dict[str, Signature] = {}
        for entry in model.signatures:
            if entry.keyid in signatures:
                raise TrustError("the envelope holds two signatures under one key id")
            signatures[entry.keyid] = Signature(entry.keyid, base64.b64decode(entry.sig, validate=True).hex())
        return Envelope(base64.b64decode(model.payload, validate=True), model.payload_type, signatures)
    except (binascii.Error, ValueError) as error:
        raise TrustError("the envelope is not valid base64") from error
