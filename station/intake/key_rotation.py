"""Rotating the pseudonym key: while the service is stopped, audited before it happens, earlier versions kept."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from policies.errors import NotFoundError, UsageError
from station.intake.audit import IntakeEvent, record
from station.intake.installation import MIGRATIONS
from station.intake.locking import sole_process
from station.intake.paths import IntakePaths
from station.pseudonymisation.keyring import KeyDescription, Keyring
from station.storage.database import open_database


def _now() -> datetime:
    return datetime.now(UTC)


def key_versions(home: Path) -> list[KeyDescription]:
    """Return what may be told of the key's versions, newest first.

    Raises:
        NotFoundError: there is no intake in this home.
        UsageError: somebody else's intake; only its user reads its key.
    """
    return Keyring.load(_own_intake(home).pseudonym_key).describe()


def rotate_key(home: Path, *, clock: Callable[[], datetime] = _now) -> list[KeyDescription]:
    """Put a new version of the key into use; returns all versions, newest first.

    1. Nobody else works on the intake, and nobody can start to.
    2. The audit says which version follows which; only then
    3. the key file is replaced.

    A crash between 2 and 3 leaves the old version in use and says of a rotation that did not come to be: rotate again.

    Raises:
        NotFoundError: there is no intake in this home.
        UsageError: somebody else's intake.
        StateError: the service is running, or the key is damaged.
        StorageError: it cannot be written.
    """
    paths = _own_intake(home)
    with sole_process(paths.root):
        before = Keyring.load(paths.pseudonym_key)
        after = before.rotated(clock())
        old, new = before.current, after.current
        database = open_database(paths.database, MIGRATIONS)
        try:
            with database.write() as session:
                record(
                    session,
                    IntakeEvent.KEY_ROTATED,
                    {"from": f"{old.key_id} v{old.version}", "to": f"{new.key_id} v{new.version}"},
                    now=clock(),
                )
        finally:
            database.close()
        after.replace(paths.pseudonym_key, before)
    return after.describe()


def _own_intake(home: Path) -> IntakePaths:
    paths = IntakePaths(home.resolve())
    if not paths.root.is_dir():
        raise NotFoundError("there is no intake in this home", hint="Name the station's folder with --home.")
    # Root would leave files behind that the service's user cannot open.
    if paths.root.stat().st_uid != os.geteuid():
        raise UsageError(
            "the key belongs to intake's user", hint="Run this as that user, with `runuser -u` or `sudo -u`."
        )
    return paths
