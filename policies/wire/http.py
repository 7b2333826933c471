"""Signed HTTP requests: how a station (or a requester) proves its key to the orchestrator's own HTTPS endpoints.

The signature is ECDSA with SHA-256 over a text that starts with `CONTEXT` (the same key also signs Flower's
timestamps: the prefix keeps one from passing for the other), then method, request target, time and the digest of the
body. TLS protects the exchange; the signature says who asks.

It does not remember requests: what may be repeated within `MAX_SKEW_S` must be idempotent (a GET, a PUT by digest) or
carry its own nonce (a run order does). The server compares the body it received with the signed digest itself.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policies.errors import WireError

CONTEXT = "PHT-HTTP-1"
KEY_HEADER = "PHT-Key"
TIMESTAMP_HEADER = "PHT-Timestamp"
DIGEST_HEADER = "PHT-Digest"
SIGNATURE_HEADER = "PHT-Signature"
EMPTY_DIGEST = "sha256:" + hashlib.sha256(b"").hexdigest()
MAX_SKEW_S = 300


class RequestSignatureError(WireError):
    """A request without a signature that holds: absent, malformed, stale, or by another key than it names."""


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """``sha256:<hex>`` of the key's DER SubjectPublicKeyInfo: how registers and logs name a key."""
    return "sha256:" + hashlib.sha256(_der(key)).hexdigest()


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a station's identity key (PEM or OpenSSH private key on a NIST curve, no passphrase).

    Raises:
        WireError: unreadable, or not an EC private key.
    """
    try:
        text = path.read_bytes()
        if b"OPENSSH PRIVATE KEY" in text:
            key: object = serialization.load_ssh_private_key(text, None)
        else:
            key = serialization.load_pem_private_key(text, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WireError(f"cannot read the private key {path.name} ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WireError(f"{path.name} is not an elliptic curve private key")
    return key


def load_public_key(text: bytes) -> ec.EllipticCurvePublicKey:
    """Parse a public key: PEM, or one OpenSSH line (``ecdsa-sha2-nistp256 ...``).

    Raises:
        WireError: not an elliptic curve public key.
    """
    try:
        if text.lstrip().startswith(b"-----"):
            key: object = serialization.load_pem_public_key(text)
        else:
            key = serialization.load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WireError(f"not a public key ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise WireError("not an elliptic curve public key")
    return key


def openssh_public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """The one-line OpenSSH form that Flower registers nodes by."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def sign_request(
    key: ec.EllipticCurvePrivateKey, method: str, path: str, body_digest: str = EMPTY_DIGEST, *, now: float
) -> dict[str, str]:
    """Headers that sign one request.

    Args:
        key: the caller's identity key.
        method: ``GET``, ``PUT``, ``POST``, ``HEAD``.
        path: the request target as sent: path, and query if there is one.
        body_digest: ``sha256:<hex>`` of the whole body.
        now: seconds since the epoch.
    """
    timestamp = str(int(now))
    signature = key.sign(_text(method, path, timestamp, body_digest), ec.ECDSA(hashes.SHA256()))
    return {
        KEY_HEADER: base64.b64encode(_der(key.public_key())).decode(),
        TIMESTAMP_HEADER: timestamp,
        DIGEST_HEADER: body_digest,
        SIGNATURE_HEADER: base64.b64encode(signature).decode(),
    }


def verify_request(method: str, path: str, headers: Mapping[str, str], *, now: float) -> tuple[str, str]:
    """Check a request's signature; whether that key may do it is the caller's question.

    Args:
        method: as received.
        path: the raw request target as received: path, and query if there is one.
        headers: the request's headers, names in any case.
        now: seconds since the epoch.

    Returns:
        The fingerprint of the key that signed (`key_fingerprint`), and the body digest it signed.

    Raises:
        RequestSignatureError: absent, malformed, older or newer than `MAX_SKEW_S`, or wrong.
    """
    found = _signature_headers(headers)
    timestamp = found[TIMESTAMP_HEADER]
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise RequestSignatureError("the signature's time is not a whole number of seconds")
    if abs(now - int(timestamp)) > MAX_SKEW_S:
        raise RequestSignatureError(f"the signature's time is more than {MAX_SKEW_S} s from this clock")
    try:
        key = serialization.load_der_public_key(base64.b64decode(found[KEY_HEADER], validate=True))
        signature = base64.b64decode(found[SIGNATURE_HEADER], validate=True)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise RequestSignatureError("the key or the signature is malformed") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RequestSignatureError("the key is not an elliptic curve key")
    try:
        key.verify(signature, _text(method, path, timestamp, found[DIGEST_HEADER]), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise RequestSignatureError("the signature is not of this request") from None
    return key_fingerprint(key), found[DIGEST_HEADER]


def _signature_headers(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = {name.lower(): name for name in (KEY_HEADER, TIMESTAMP_HEADER, DIGEST_HEADER, SIGNATURE_HEADER)}
    found: dict[str, str] = {}
    for name, value in headers.items():
        known = wanted.get(name.lower())
        if known is None:
            continue
        if known in found or len(value) > 1024:
            raise RequestSignatureError(f"{known} appears twice or is too long")
        found[known] = value
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise RequestSignatureError(f"the request is not signed ({', '.join(missing)} missing)")
    return found


def _text(method: str, path: str, timestamp: str, body_digest: str) -> bytes:
    return f"{CONTEXT}\n{method.upper()}\n{path}\n{timestamp}\n{body_digest}".encode()


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
