"""Where the orchestrator is, and as whom we speak to it: from the command line, or from a small file.

    # ~/.config/pht-train.toml
    to = "https://orchestrator.example:8443"
    token_file = "researcher.token"      # beside this file
    ca = "orchestrator-ca.pem"           # may hold several authorities, such as the hospital's own
    proxy = "http://proxy.example:3128"  # where the only way out is one that tunnels with CONNECT
    proxy_credentials_file = "proxy.credentials"   # one line, user:password, mode 0600
    proxy_ca = "proxy-ca.pem"            # where the proxy's address is https

What the command line says wins over the file.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.documents import StrictModel, canonical_json, load_json
from policies.errors import NotFoundError, SettingsError, UsageError
from policies.wire.proxies import Proxy
from policies.wire.registry_client import RegistryClient

DEFAULT_PROFILE: Final = Path("~/.config/pht-train.toml")
_MAX_TOKEN_BYTES: Final = 4096


class Profile(StrictModel):
    """The file; paths are relative to it."""

    to: str | None = None
    token_file: str | None = None
    ca: str | None = None
    proxy: str | None = None
    proxy_credentials_file: str | None = None
    proxy_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where and as whom.

    Attributes:
        to: the orchestrator's address.
        token_file: holds the bearer token.
        ca: the authority behind the orchestrator's certificate.
        proxy: a CONNECT proxy to go through.
    """

    to: str
    token_file: Path
    ca: Path
    proxy: Proxy | None = None

    def open(self) -> RegistryClient:
        """Return a client.

        Raises:
            NotFoundError: the token's or the authority's file is not there.
            UsageError: the address is not https.
        """
        if not self.ca.is_file():
            raise NotFoundError(f"{self.ca}: there is no such certificate authority")
        return RegistryClient(self.to, self.ca, token=_read_token(self.token_file), proxy=self.proxy)


def choose_connection(
    to: str | None, token_file: Path | None, ca: Path | None, profile: Path | None
) -> Connection:
    """Return the connection that was asked for.

    Args:
        to: from the command line, as the next two.
        token_file: likewise.
        ca: likewise.
        profile: the file that fills in the rest; without one `DEFAULT_PROFILE`, where it is there.

    Raises:
        UsageError: something is in neither.
        SettingsError: the file is wrong.
        NotFoundError: the file that was named is not there.
    """
    path = (profile or DEFAULT_PROFILE).expanduser()
    found = _read_profile(path, must_exist=profile is not None)
    address = to or found.to
    token = token_file or _beside(path, found.token_file)
    authority = ca or _beside(path, found.ca)
    missing = [
        name
        for name, value in (("--to", address), ("--token-file", token), ("--ca", authority))
        if value is None
    ]
    if address is None or token is None or authority is None:
        raise UsageError(
            f"{', '.join(missing)}: not given",
            hint=f"Give them, or write to, token_file and ca into {DEFAULT_PROFILE}.",
        )
    return Connection(address, token, authority, _proxy(path, found))


def _proxy(path: Path, found: Profile) -> Proxy | None:
    if found.proxy is None:
        return None
    if not found.proxy.startswith(("http://", "https://")) or "@" in found.proxy:
        raise SettingsError(
            f"{path.name}: proxy is no address of the form http://host:port",
            hint="User and password go into the file that proxy_credentials_file names.",
        )
    credentials, ca = _beside(path, found.proxy_credentials_file), _beside(path, found.proxy_ca)
    return Proxy.read(found.proxy, credentials, ca, "proxy_credentials_file")


def _beside(profile: Path, name: str | None) -> Path | None:
    return None if name is None else profile.parent / Path(name).expanduser()


def _read_profile(path: Path, *, must_exist: bool) -> Profile:
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if must_exist:
            raise NotFoundError(f"{path}: there is no such profile") from error
        return Profile()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path.name}: cannot be read as TOML") from error
    try:
        return load_json(Profile, canonical_json(value), what=path.name)
    except TypeError as error:
        raise SettingsError(f"{path.name}: holds a value that is no text") from error


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES)
    except OSError as error:
        raise NotFoundError(f"{path}: the token cannot be read ({error.strerror})") from error
    token = data.decode("utf-8", "replace").strip()
    if not token or not token.isprintable() or not token.isascii():
        raise UsageError(f"{path.name}: holds no token", hint="Ask the orchestrator's operator for one.")
    return token
