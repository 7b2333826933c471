"""Keys that no file of ours holds: any signer that securesystemslib knows, named by its URI (``hsm:``, ``gcpkms:``, ...).

The library's registry says which scheme is which signer; a program may add its own. Invariants: only Ed25519 keys; what a
signer returns counts only if it verifies with the public key that the person named; no text of a signer's fault is shown,
because it may quote secrets or paths.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

from securesystemslib.exceptions import (
    UnsupportedLibraryError,
    UnverifiedSignatureError,
    VerificationError,
)
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature
from securesystemslib.signer import Signer as SecureSystemsSigner

from policies.errors import PhtError, TrustError, UsageError
from policies.signing import Signer, public_key, refuse_if_readable_by_others


def is_signer_uri(named: str) -> bool:
    """Say whether this names a signer and not a file: it begins with a scheme, and no such file exists.

    >>> is_signer_uri("hsm:2?label=YubiKey"), is_signer_uri("keys/alice.pem")
    (True, False)
    """
    scheme, colon, _ = named.partition(":")
    return bool(colon) and scheme.isalnum() and scheme.islower() and not Path(named).exists()


def load_external_signer(uri: str, public_hex: str, secret: Callable[[str], str]) -> Signer:
    """Reach a key through its signer.

    Args:
        uri: as securesystemslib documents it for the signer.
        public_hex: its Ed25519 public key.
        secret: answers what the signer asks for, such as a PIN.

    Raises:
        UsageError: the scheme is unknown.
        TrustError: the signer's library is missing, it cannot be reached, or it has another key.
    """
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        raise UsageError(
            f"{scheme}: no such key file, and no signer of this kind is known",
            hint=f"Known are {', '.join(sorted(SIGNER_FOR_URI_SCHEME))}.",
        )
    key = public_key(public_hex)
    _check_file(uri, scheme)
    try:
        signer = SecureSystemsSigner.from_priv_key_uri(uri, key, secret)
    except PhtError:
        raise
    except (UnsupportedLibraryError, ImportError) as error:
        raise TrustError(
            f"{scheme}: the library that this signer needs is not installed",
            hint=f"Install securesystemslib with the extra for {scheme}.",
        ) from error
    except Exception as error:
        # Every signer brings a library of its own, with errors of its own.
        raise TrustError(
            f"{scheme}: the signer cannot be opened, or has another key ({type(error).__name__})",
            hint="Look at the URI, the device or service, and --public: it must be an Ed25519 key.",
        ) from error
    return Signer(public_hex, _Checked(signer, key, scheme))


def _check_file(uri: str, scheme: str) -> None:
    if SIGNER_FOR_URI_SCHEME[scheme] is not CryptoSigner:
        return
    path = Path(os.environ.get(CryptoSigner.PREFIX_ENV_VAR, "")) / urlparse(uri).path
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise TrustError(f"{scheme}: the key file cannot be read") from error
    if stat.S_ISREG(mode):
        refuse_if_readable_by_others(mode, path.name)


class _Checked(SecureSystemsSigner):
    """A signer whose every signature is checked against the public key before it counts."""

    def __init__(self, signer: SecureSystemsSigner, key: Key, scheme: str) -> None:
        self._signer = signer
        self._key = key
        self._scheme = scheme

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> "SecureSystemsSigner":
        """Reach the signer itself; it is `load_external_signer` that checks."""
        return SecureSystemsSigner.from_priv_key_uri(priv_key_uri, public_key, secrets_handler)

    @property
    def public_key(self) -> Key:
        """The key that the person named."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Have the signer sign.

        Raises:
            TrustError: it did not, or with another key.
        """
        try:
            signature = self._signer.sign(payload)
            self._key.verify_signature(signature, payload)
        except PhtError:
            raise
        except (UnverifiedSignatureError, VerificationError) as error:
            raise TrustError(
                f"{self._scheme}: the signer signed with another key than --public names",
                hint="Name the public key that the device or service has.",
            ) from error
        except (UnsupportedLibraryError, ImportError) as error:
            raise TrustError(
                f"{self._scheme}: the library that this signer needs is not installed",
                hint=f"Install securesystemslib with the extra for {self._scheme}.",
            ) from error
        except Exception as error:
            raise TrustError(
                f"{self._scheme}: the signer did not sign ({type(error).__name__})",
                hint="Look at the device or service; it must have an Ed25519 key.",
            ) from error
        return signature
