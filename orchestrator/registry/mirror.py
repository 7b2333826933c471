"""The mirror: the board's TUF repository as files, written by the board and its witness, read by everyone.

Trusts nothing in it and decides nothing: whoever reads verifies. What it does check keeps accidents out: a file with
a version in its name never changes, `timestamp.json` never goes back, the witness writes `timestamp.json` alone, and
no name leaves the folder. Each file is written whole or not at all; `timestamp.json` goes last and makes the rest count.
"""

import re
import threading
from pathlib import Path
from typing import Any

from policies.documents import parse_json
from policies.errors import NotFoundError, UsageError, WireError
from policies.files import write_atomically

TIMESTAMP = "timestamp.json"
MAX_METADATA_BYTES = 4 << 20
MAX_TARGET_BYTES = 4 << 20

_METADATA = re.compile(r"^(?:([1-9][0-9]{0,9})\.)?([a-z][a-z0-9-]{0,63})\.json$")
_SEGMENT = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$")
_MAX_SEGMENTS = 6


class Mirror:
    """The two folders of a TUF repository."""

    def __init__(self, folder: Path) -> None:
        self.metadata_folder = folder / "metadata"
        self.targets_folder = folder / "targets"
        self._one_at_a_time = threading.Lock()

    def metadata(self, name: str) -> Path:
        """Return a metadata file.

        Raises:
            NotFoundError: it is not here.
        """
        return _existing(self.metadata_folder / _metadata_name(name))

    def target(self, path: str) -> Path:
        """Return a target file.

        Raises:
            NotFoundError: it is not here.
        """
        return _existing(self.targets_folder / _target_path(path))

    def put_metadata(self, name: str, data: bytes) -> None:
        """Write a metadata file.

        Raises:
            UsageError: the name is not one, or a version that was published already would change.
            WireError: the content is not TUF metadata of that name's role and version.
            StorageError: it cannot be written.
        """
        path = self.metadata_folder / _metadata_name(name)
        role, version = _role_and_version(data)
        match = _METADATA.fullmatch(name)
        stated = match.group(1) if match else None
        expected = match.group(2) if match else name
        if role != expected and not (role == "targets" and expected not in {"root", "snapshot", "timestamp"}):
            raise WireError(f"{name}: holds metadata of the role {role}")
        if stated is not None and version != int(stated):
            raise WireError(f"{name}: holds version {version}")
        # Board and witness write at once: between look and write nothing newer may come, which this would take back.
        with self._one_at_a_time:
            if path.is_file():
                before = path.read_bytes()
                if before == data:
                    return
                if stated is not None:
                    raise UsageError(
                        f"{name} is published already and would change", hint="Publish a new version."
                    )
                if version < _role_and_version(before)[1]:
                    raise UsageError(f"{name} would go back to version {version}")
            write_atomically(path, data)

    def put_target(self, path: str, data: bytes) -> None:
        """Write a target file; its content is addressed by digest or version in its name, and never changes.

        Raises:
            UsageError: the path is not one, or the file would change.
        """
        place = self.targets_folder / _target_path(path)
        # A target without consistent naming (a register, say) may be published again; what counts is the digest in
        # the targets metadata, so a half-published repository verifies as the old one or not at all.
        if place.is_file() and place.read_bytes() == data:
            return
        write_atomically(place, data)


def _metadata_name(name: str) -> str:
    if not _METADATA.fullmatch(name):
        raise UsageError("not the name of a metadata file")
    return name


def _target_path(path: str) -> Path:
    segments = path.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise UsageError("not the path of a target")
    return Path(*segments)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError(f"{path.name} is not published here")
    return path


def _role_and_version(data: bytes) -> tuple[str, int]:
    value: Any = parse_json(data, what="metadata", max_bytes=MAX_METADATA_BYTES)
    signed = value.get("signed") if isinstance(value, dict) else None
    if not isinstance(signed, dict):
        raise WireError("this is not TUF metadata")
    role, version = signed.get("_type"), signed.get("version")
    if not isinstance(role, str) or not isinstance(version, int) or isinstance(version, bool):
        raise WireError("this is not TUF metadata")
    return role, version
