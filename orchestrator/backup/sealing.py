"""Private keys under a passphrase: AES-256-GCM over their files, the key from scrypt (RFC 7914).

Whoever has the backup and not the passphrase learns how many bytes there are, and nothing else; a changed byte is found.
"""

import base64
import os
import struct
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from policies.documents import canonical_json, parse_json
from policies.errors import DocumentError, TrustError, UsageError

MAGIC: Final = b"PHT-KEYS-1\n"
LOG2_N: Final = 17
"""128 MiB and about half a second, for the one who guesses as well."""
MIN_PASSPHRASE: Final = 12
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_MAX_BYTES: Final = 16 << 20


def seal(files: Mapping[str, bytes], passphrase: str) -> bytes:
    """Encrypt files by name.

    Raises:
        UsageError: the passphrase is short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(f"the passphrase has fewer than {MIN_PASSPHRASE} characters")
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    head = MAGIC + struct.pack(">B", LOG2_N) + salt + nonce
    plain = canonical_json({name: base64.b64encode(data).decode() for name, data in files.items()})
    return head + AESGCM(_key(passphrase, salt, LOG2_N)).encrypt(nonce, plain, head)


def unseal(sealed: bytes, passphrase: str) -> dict[str, bytes]:
    """Decrypt what `seal` returned.

    Raises:
        DocumentError: it is not that.
        TrustError: another passphrase, or a changed byte.
    """
    length = len(MAGIC) + 1 + _SALT_BYTES + _NONCE_BYTES
    if not sealed.startswith(MAGIC) or len(sealed) < length:
        raise DocumentError("keys.sealed: these are no sealed keys of ours")
    head = sealed[:length]
    log2_n = head[len(MAGIC)]
    if not 14 <= log2_n <= 20:
        raise DocumentError("keys.sealed: asks for an unreasonable amount of work")
    salt, nonce = head[len(MAGIC) + 1 :][:_SALT_BYTES], head[-_NONCE_BYTES:]
    try:
        plain = AESGCM(_key(passphrase, salt, log2_n)).decrypt(nonce, sealed[length:], head)
    except InvalidTag as error:
        raise TrustError("keys.sealed: another passphrase, or a changed byte") from error
    found = parse_json(plain, what="keys.sealed", max_bytes=_MAX_BYTES)
    if not isinstance(found, dict):
        raise DocumentError("keys.sealed: holds no keys")
    return {str(name): base64.b64decode(str(text), validate=True) for name, text in found.items()}


def _key(passphrase: str, salt: bytes, log2_n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << log2_n, r=8, p=1).derive(passphrase.encode())
