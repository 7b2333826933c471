"""Reading keys as a person names them: a key file with its passphrase, a public key as hex or as a ``.pub`` file."""

import getpass
import re
import sys
from pathlib import Path

from policies.errors import DocumentError, TrustError, UsageError
from policies.external_signers import is_signer_uri, load_external_signer
from policies.files import write_atomically
from policies.signing import Signer, generate_key, load_signer

_HEX = re.compile(r"[0-9a-f]{64}")


def new_key(path: Path, passphrase: str | None) -> str:
    """Make a key, and beside it ``<name>.pub`` with the public part, to hand out.

    Returns:
        The public key, hex.
    """
    public_hex = generate_key(path, passphrase)
    write_atomically(public_file(path), public_hex.encode() + b"\n")
    return public_hex


def public_file(path: Path) -> Path:
    """Return where the public part of a key file lies."""
    return path.with_suffix(".pub")


def read_public(text: str) -> str:
    """Read a public key that is given as 64 hex digits or as the name of a ``.pub`` file.

    Raises:
        DocumentError: it is neither.
    """
    if _HEX.fullmatch(text):
        return text
    try:
        found = Path(text).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(
            f"{text}: neither a public key (64 hex digits) nor a readable .pub file",
            hint="`pht-board member new` prints the key and writes the .pub file.",
        ) from error
    if not _HEX.fullmatch(found):
        raise DocumentError(
            f"{Path(text).name}: holds no public key (64 hex digits)",
            hint="Give the .pub file that lies beside the key, not the key itself.",
        )
    return found


def read_passphrase(file: Path | None, environment: str | None) -> str | None:
    """Return the passphrase from its file or the environment, or None where neither is given."""
    if file is None:
        return environment or None
    try:
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file.name}: the passphrase cannot be read") from error


def choose_passphrase() -> str:
    """Ask for a new passphrase, twice.

    Raises:
        UsageError: nobody is there to ask, or the two differ.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "no passphrase is given, and there is no terminal to ask for one",
            hint="Give --passphrase-file, or --no-passphrase for a key that a daemon uses.",
        )
    first = getpass.getpass("Passphrase for the new key: ")
    if first != getpass.getpass("Once more: "):
        raise UsageError("the two passphrases differ")
    return first


def open_key(named: str | Path, passphrase: str | None, public: str | None = None) -> Signer:
    """Open a key as a person names it: a file, or a securesystemslib signer's URI.

    A file's passphrase, or what a signer asks for, is asked for where none is given and a person is there.

    Args:
        named: the file, or ``scheme:...`` of a signer that securesystemslib knows.
        passphrase: of the file; a signer gets it where it asks for a secret.
        public: hex, of a signer: what it signs is checked against it. A file needs none.

    Raises:
        TrustError: the key cannot be opened, or has another public key.
        UsageError: a URI without its public key.
    """
    if is_signer_uri(str(named)):
        if public is None:
            raise UsageError(
                "a signer's URI needs its public key", hint="Give --public, as 64 hex digits or a .pub file."
            )
        return load_external_signer(str(named), public, lambda what: _secret(what, passphrase))
    signer = _open_file(Path(named), passphrase)
    if public is not None and signer.public_hex != public:
        raise TrustError(f"{Path(named).name}: is another key than --public names")
    return signer


def _open_file(path: Path, passphrase: str | None) -> Signer:
    try:
        return load_signer(path, passphrase)
    except TrustError:
        if passphrase is not None or not _encrypted(path) or not sys.stdin.isatty():
            raise
    return load_signer(path, getpass.getpass(f"Passphrase of {path.name}: "))


def _secret(what: str, passphrase: str | None) -> str:
    if passphrase is not None:
        return passphrase
    if not sys.stdin.isatty():
        raise UsageError(
            "the signer asks for a secret, and there is no terminal to ask for it",
            hint="Give --passphrase-file.",
        )
    return getpass.getpass(f"The signer's {what}: ")


def _encrypted(path: Path) -> bool:
    with path.open("rb") as file:
        return b"ENCRYPTED" in file.readline()
