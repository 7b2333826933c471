"""Who we say we are to an OCI registry: nobody, a user with a password, or a bearer token.

Challenges are those of RFC 9110 section 11.6.1; the token's form is that of the distribution project's token authentication.
The credentials go to the registry, and to a token service only where that is the registry's own host or one that its user named.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import NetworkError, SettingsError

MAX_TOKEN: Final = 16 << 10
_PARAMETER: Final = re.compile(r'([A-Za-z_]{1,32})="([^"\\]{0,2000})"')
_LINE: Final = re.compile(r"[!-~]{1,4096}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was given out for a registry. Never shown: it has no useful form as text.

    Attributes:
        user: empty where `secret` is a bearer token.
        secret: a password or a token.
    """

    user: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials()"

    @property
    def basic(self) -> str:
        """The header's value for basic authentication (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()

    @classmethod
    def read(cls, path: Path, what: str) -> "Credentials":
        """Read a credentials file: one line, ``user:password`` or a token; `what` is how its owner knows it.

        Raises:
            SettingsError: it is not there, others may read it, or it is no such line.
        """
        try:
            mode = path.stat().st_mode
            text = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{what}: cannot be read",
                hint="It holds one line, user:password or a token, and belongs to the user who reads it.",
            ) from error
        if mode & 0o077:
            raise SettingsError(f"{what}: others may read it", hint="Set its mode to 0600.")
        if not _LINE.fullmatch(text):
            raise SettingsError(f"{what}: is not one line of plain characters")
        user, found, secret = text.partition(":")
        return cls(user, secret) if found else cls("", text)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry answered 401 with."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def read(cls, header: str) -> "Challenge":
        """Read ``WWW-Authenticate``; the first challenge counts.

        Raises:
            NetworkError: it is none.

        >>> Challenge.read('Bearer realm="https://a/token",service="r"').parameters["service"]
        'r'
        """
        scheme, _, rest = header[:8192].strip().partition(" ")
        return cls(scheme.lower(), dict(_PARAMETER.findall(rest)))


def read_token(answer: object) -> str:
    """Return the token of a token service's answer.

    Raises:
        NetworkError: it holds none.
    """
    for name in ("token", "access_token"):
        token = answer.get(name) if isinstance(answer, dict) else None
        if isinstance(token, str) and _LINE.fullmatch(token):
            return token
    raise NetworkError("the registry's token service answered no token")
