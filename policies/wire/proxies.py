"""The proxy that a hospital lets its machines out through: HTTP CONNECT (RFC 9110, section 9.3.6), with Basic authentication or without.

Whoever sits at the proxy sees which host is spoken to, and no more: TLS goes through it to the orchestrator. Where a hospital opens
TLS there and closes it again, its own authority stands in the file of trusted ones beside the orchestrator's.
Invariants: the password is in no text that a program writes; a proxy that refused it is not asked again for a minute, since many
lock an account that fails too often.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.errors import NetworkError, SettingsError
from policies.wire.oci_auth import Credentials

HELD_S: Final = 60.0
_REFUSED: Final = frozenset({401, 407})
"""407 is what it should say; tinyproxy says 401 to a wrong password."""


class ProxyError(NetworkError):
    """The proxy does not let us through; trying again at once helps nobody."""


@dataclass(slots=True)
class _Refusal:
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, for all of a program's connections.

    Attributes:
        url: its address, http or https.
        credentials: user and password for it.
        ca: the authority behind its own certificate, where its address is https; without it, the host's own authorities.
    """

    url: str
    credentials: Credentials | None = None
    ca: Path | None = None
    _refusal: _Refusal = field(default_factory=_Refusal, repr=False, compare=False)

    @classmethod
    def read(cls, url: str, credentials_file: Path | None, ca: Path | None, what: str) -> "Proxy":
        """Return a proxy whose user and password lie in a file.

        Args:
            url: its address.
            credentials_file: one line, ``user:password``; readable by its owner alone.
            ca: as above.
            what: how the owner knows the credentials' setting.

        Raises:
            SettingsError: one of the files cannot be used.
        """
        credentials = None if credentials_file is None else Credentials.read(credentials_file, what)
        if credentials is not None and not credentials.user:
            raise SettingsError(f"{what}: holds no user name", hint="It is one line: user:password.")
        if ca is not None and not ca.is_file():
            raise SettingsError(f"{ca.name}: there is no such file with the proxy's authority")
        return cls(url, credentials, ca)

    def require_open(self) -> None:
        """See that the proxy did not refuse who we are a moment ago.

        Raises:
            ProxyError: it did.
        """
        if time.monotonic() < self._refusal.until:
            raise self._unwelcome()

    def refused(self, answer: str) -> ProxyError | None:
        """Return the error for what the proxy answered to CONNECT; None for what may pass by itself.

        Args:
            answer: its status line; only the number of it is used.
        """
        number = answer.partition(" ")[0]
        status = int(number) if number.isascii() and number.isdigit() and len(number) == 3 else 0
        if status in _REFUSED:
            self._refusal.until = time.monotonic() + HELD_S
            return self._unwelcome()
        if 400 <= status < 500 and status not in {408, 429}:
            return ProxyError(
                f"the proxy does not let us through to that address ({status})",
                hint="Have the orchestrator's host and port allowed there, for CONNECT.",
            )
        return None

    def _unwelcome(self) -> ProxyError:
        if self.credentials is None:
            return ProxyError(
                "the proxy wants to know who asks",
                hint="Name a file with one line, user:password, as the proxy's credentials.",
            )
        return ProxyError(
            "the proxy does not take this user name and password",
            hint="Correct the proxy's credentials file, then start again. It must take Basic authentication.",
        )
