"""Where the database is: a SQLite file in the home, or a PostgreSQL server by URL.

The password never is part of a URL, of a settings file or of a text that we show: it comes from a file of its own or
from the environment, and goes to the driver as an argument. What leaves the machine is encrypted and the server's
certificate verified, unless the server is on this machine.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from policies.documents import StrictModel
from policies.errors import SettingsError

Tls = Literal["verify-full", "verify-ca", "off"]

_DRIVER = "postgresql+psycopg"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PASSWORD_BYTES = 4096


class DatabaseSettings(StrictModel):
    """Where the orchestrator keeps its own state."""

    url: str = Field(
        default="",
        max_length=1000,
        description="Empty: SQLite, `state.db` in the home. Else `postgresql://USER@HOST:PORT/NAME`, or "
        "`postgresql://USER@/NAME?host=FOLDER&port=PORT` for a Unix socket; never with a password.",
    )
    password_file: str = Field(
        default="",
        max_length=1000,
        description="File that holds the password; or PHT_ORCHESTRATOR_DATABASE_PASSWORD.",
    )
    tls: Tls = Field(
        default="verify-full",
        description="How the server proves itself: `verify-full`, `verify-ca`; `off` for this machine only.",
    )
    ca_file: str = Field(
        default="", max_length=1000, description="The server's authority; empty: the system's authorities."
    )
    certificate_file: str = Field(
        default="", max_length=1000, description="Our certificate, where the server wants one."
    )
    key_file: str = Field(default="", max_length=1000, description="The key of that certificate.")
    password: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="From the environment only."
    )

    @field_validator("url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if value:
            _parsed(value)
        return value


@dataclass(frozen=True, slots=True)
class Location:
    """One database.

    Attributes:
        url: for SQLAlchemy, without a password.
        name: how messages call it.
        arguments: for the driver; may hold the password, and is never shown.
    """

    url: URL
    name: str
    arguments: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a SQLite file of ours."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The SQLite file."""
        if not self.is_file or self.url.database is None:
            raise SettingsError(f"{self.name}: is no file")
        return Path(self.url.database)


def file_location(path: Path) -> Location:
    """Return a SQLite file as a place for the database."""
    return Location(URL.create("sqlite", database=str(path)), path.name)


def location_of(settings: DatabaseSettings, file: Path) -> Location:
    """Return where the settings put the database.

    Args:
        settings: the section `[database]`.
        file: the SQLite file, where no URL is given.

    Raises:
        SettingsError: a file cannot be read, or what would leave this machine would not be encrypted.
    """
    if not settings.url:
        return file_location(file)
    url = _parsed(settings.url)
    # A folder: `_parsed` lets nothing else through. The driver would take any other text as the name of a machine.
    socket = str(url.query.get("host", ""))
    local = bool(socket) or url.host in _LOOPBACK
    if settings.tls == "off" and not local:
        raise SettingsError(
            "database.tls: off is for a server on this machine only",
            hint="Set verify-full, and ca_file where the server's authority is your own.",
        )
    arguments: dict[str, Any] = {"sslmode": "disable" if settings.tls == "off" or socket else settings.tls}
    if arguments["sslmode"] != "disable":
        arguments["sslrootcert"] = settings.ca_file or "system"
        if settings.certificate_file:
            arguments |= {"sslcert": settings.certificate_file, "sslkey": settings.key_file}
    if password := _password(settings):
        arguments["password"] = password
    where = socket or f"{url.host}:{url.port or 5432}"
    return Location(url, f"PostgreSQL {where}/{url.database}", arguments)


def _password(settings: DatabaseSettings) -> str | None:
    if settings.password is not None:
        return settings.password.get_secret_value()
    if not settings.password_file:
        return None
    try:
        with Path(settings.password_file).open("rb") as file:
            return file.read(_PASSWORD_BYTES).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"database.password_file: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError("database.password_file: is not UTF-8 text") from error


def _parsed(text: str) -> URL:
    """Read a URL; the text itself is in no error, since a password may stand in it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("is not a URL of the form postgresql://USER@HOST:PORT/NAME") from None
    if url.get_backend_name() != "postgresql":
        raise ValueError("begins with postgresql://, or is empty for SQLite")
    if url.password is not None:
        raise ValueError("holds a password; put it into a file, and name that in database.password_file")
    if set(url.query) - {"host", "port"} or not all(isinstance(value, str) for value in url.query.values()):
        raise ValueError("takes no parameters but host=FOLDER and port of a Unix socket")
    if "host" in url.query and not str(url.query["host"]).startswith("/"):
        raise ValueError(
            "host=FOLDER is a Unix socket's folder, from the root; a machine stands before the /NAME"
        )
    if any("," in part for part in (url.host or "", *(str(value) for value in url.query.values()))):
        raise ValueError("names one server; a list of them is not taken")
    if not url.database or not url.username or (url.host is None) == ("host" not in url.query):
        raise ValueError("names a user, a database, and either a host or the folder of a socket")
    return url.set(drivername=_DRIVER)
