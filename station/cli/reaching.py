"""How the commands reach a station: its folder, its two local APIs, and who is asking."""

import getpass
import os
import pwd
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.errors import NotFoundError, StorageError, UsageError
from station.layout import StationPaths

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="PHT_HOME", help="The station's folder.", file_okay=False),
]

GroupHomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="PHT_HOME", help="The station's folder.", file_okay=False),
]
"""Of a group that does something without a command too; its commands name the folder themselves."""

LOGIN = Path("/proc/self/loginuid")
"""Where the kernel says who logged in."""
_NO_LOGIN = 0xFFFFFFFF


def operator_name() -> str:
    """Return the name of who types, as this host knows it: who logged in, also where root was taken on since."""
    if os.geteuid() == 0 and (behind := _behind_root()):
        return behind
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user without an entry on this host, as in some containers.
        return f"uid-{os.getuid()}"


def _behind_root() -> str:
    """Return who became root: by the login that the kernel remembers over su and sudo, or by sudo's word."""
    try:
        login = int(LOGIN.read_text("ascii"))
        if login not in {0, _NO_LOGIN}:
            return pwd.getpwuid(login).pw_name
    except (OSError, ValueError, KeyError):
        pass
    name = os.environ.get("SUDO_USER", "")
    return "" if name == "root" else name


def read_file(path: Path) -> bytes:
    """Read a file that the operator named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path.name} cannot be read ({error.strerror})") from error


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, readable by who types alone.

    Raises:
        StorageError: it is there, or cannot be written; nothing is left of it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(
            f"{path.name} cannot be made ({error.strerror})", hint="Name a new file."
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{path.name} cannot be written ({error.strerror})", hint="Free disk space."
        ) from error


def named(home: Path | None) -> Path:
    """Return the station's folder.

    Raises:
        UsageError: none was named.
    """
    if home is None:
        raise UsageError("Missing option '--home'.", hint="Name the station's folder, here or in PHT_HOME.")
    return home


def station_paths(home: Path) -> StationPaths:
    """Return the paths of a station that is there."""
    paths = StationPaths(home.resolve())
    if not paths.settings.is_file():
        raise NotFoundError(
            f"there is no station in {home}", hint="Name its folder with --home, or make one with init."
        )
    return paths


def compute_api(home: Path) -> Any:  # noqa: ANN401 - imported late, so that --help is quick
    """Return the local API of compute."""
    from station.web.client import LocalApi  # noqa: PLC0415

    paths = station_paths(home)
    return LocalApi(paths.api_socket, paths.api_token)


def intake_api(home: Path) -> Any:  # noqa: ANN401 - imported late, so that --help is quick
    """Return the local API of intake."""
    from station.web.client import LocalApi  # noqa: PLC0415

    paths = station_paths(home)
    return LocalApi(paths.intake_socket, paths.run / "intake.token")
