"""Makes a new orchestrator home: settings, certificates, database, and the board's root where it is given.

Either the whole home appears or none of it: it is made beside its place and renamed.
"""

import os
import shutil
import tempfile
from pathlib import Path

from orchestrator.registry.trust import pin_root
from orchestrator.settings import (
    SETTINGS_FILE,
    Home,
    Settings,
    database_location,
    load_settings,
    render_settings,
)
from orchestrator.storage import open_database
from policies.errors import StorageError, UsageError
from policies.files import write_atomically
from policies.signing import generate_key
from policies.tls import CertificateAuthority, create_ca, issue_server_certificate

_CA_KEY = "ca.key"
_FOLDERS = ("blobs/sha256", "blobs/partial", "mirror/metadata", "mirror/targets", "runs", "logs", "run")


def initialise(path: Path, settings: Settings, root: bytes | None = None) -> Home:
    """Make a home.

    Args:
        path: where; must not exist yet, or be an empty folder.
        settings: what the settings file will say.
        root: the board's TUF root, received from the board itself.

    Raises:
        UsageError: there is something at `path` already.
        TrustError: `root` is not a root.
        StorageError: it cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: there is something here already", hint="Choose an empty folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StorageError(f"{path}: cannot be made ({error.strerror})") from error
    try:
        _fill(Home(draft), settings, root)
        if path.exists():
            path.rmdir()
        draft.rename(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made ({error.strerror})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Home(path)


def renew_certificate(home: Home) -> None:
    """Issue a new server certificate, for the hosts that the settings name now.

    Raises:
        NotFoundError: the authority's key is not in the home any more.
    """
    settings = load_settings(home)
    authority = CertificateAuthority.read(home.ca_certificate, home.tls / _CA_KEY)
    _issue(home, authority, settings)


def _fill(home: Home, settings: Settings, root: bytes | None) -> None:
    # 0700: tokens' hashes, keys and models are nobody else's on this machine.
    os.chmod(home.path, 0o700)  # noqa: PTH101
    for folder in _FOLDERS:
        (home.path / folder).mkdir(parents=True)
    home.trust.mkdir(mode=0o700)
    home.superlink.mkdir(mode=0o700)
    write_atomically(home.path / SETTINGS_FILE, render_settings(settings).encode())
    authority = create_ca(f"PHT authority of {settings.front.name}")
    authority.write(home.ca_certificate, home.tls / _CA_KEY)
    _issue(home, authority, settings)
    # Flower takes a second to import, and only `init` and `serve` need it.
    from orchestrator.federation.superlink import SuperLinkFiles  # noqa: PLC0415

    SuperLinkFiles(home.superlink).prepare()
    if root is not None:
        pin_root(home, root)
    (home.path / "keys").mkdir(mode=0o700)
    generate_key(home.notary_key)
    open_database(database_location(home, settings)).close()


def _issue(home: Home, authority: CertificateAuthority, settings: Settings) -> None:
    hosts = list(dict.fromkeys([*settings.front.hosts, "localhost", "127.0.0.1"]))
    issue_server_certificate(authority, hosts).write(home.server_certificate, home.server_key)
