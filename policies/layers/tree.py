"""The names of one layer: what stands where, and where its links lead."""

from typing import Final

from policies.layers.ceilings import Ceilings, LayerFault
from policies.layers.headers import HeaderError

_MAX_COMPONENT: Final = 255
_MAX_TARGET: Final = 4095
_MAX_HOPS: Final = 40
"""As many links as the kernel follows (path_resolution(7)); then it answers ELOOP, and nothing is reached."""
_WHITEOUT: Final = b".wh."
_META: Final = b".wh..wh."
_OPAQUE: Final = b".wh..wh..opq"

_FOLDER: Final = 0
_FILE: Final = 1
_REMOVAL: Final = 2


class Tree:
    """Takes the entries in their order; `finish` sees that none leaves the image."""

    def __init__(self, ceilings: Ceilings) -> None:
        self._ceilings = ceilings
        # A symbolic link's value is its target.
        self._entries: dict[bytes, int | bytes] = {}
        self._name_bytes = 0
        self._steps = 0

    def add_folder(self, name: bytes) -> None:
        """Take a folder. One that stands twice is one folder: some tools write it so, and it changes nothing."""
        path = self._path(name)
        if path and self._entries.setdefault(path, _FOLDER) != _FOLDER:
            raise HeaderError(LayerFault.TWICE)

    def add_file(self, name: bytes, size: int) -> None:
        """Take a file, or an entry that removes one of a lower layer."""
        if name.endswith(b"/"):
            raise HeaderError(LayerFault.FILE_IS_FOLDER)
        path = self._new(name)
        last = path.rpartition(b"/")[2]
        if not last.startswith(_WHITEOUT):
            self._entries[path] = _FILE
            return
        removed = last.removeprefix(_WHITEOUT)
        if size or removed in {b"", b".", b".."} or (last.startswith(_META) and last != _OPAQUE):
            raise HeaderError(LayerFault.WHITEOUT)
        self._entries[path] = _REMOVAL

    def add_symlink(self, name: bytes, target: bytes) -> None:
        """Take a symbolic link; where it leads is seen when all entries are known."""
        if not target:
            raise HeaderError(LayerFault.SYMLINK_EMPTY)
        if len(target) > _MAX_TARGET:
            raise HeaderError(LayerFault.LINK_TARGET)
        path = self._new(name)
        self._count(len(target))
        self._entries[path] = target

    def add_hard_link(self, name: bytes, target: bytes) -> None:
        """Take a hard link to a file that stands before it."""
        path = self._new(name)
        try:
            wanted = self._path(target)
        except HeaderError as error:
            raise HeaderError(LayerFault.HARD_LINK_LEAVES) from error
        if self._entries.get(wanted) != _FILE:
            raise HeaderError(LayerFault.HARD_LINK_TARGET)
        self._entries[path] = _FILE

    def finish(self) -> None:
        """See that every entry lies in folders and that no link leads out of the image.

        Raises:
            HeaderError: otherwise.
        """
        seen: set[bytes] = set()
        for path in self._entries:
            parent = path.rpartition(b"/")[0]
            if parent not in seen:
                self._require_folders(parent)
                seen.add(parent)
        for path, target in self._entries.items():
            if isinstance(target, bytes):
                self._follow(path, target)
            elif target == _REMOVAL:
                folder, _, last = path.rpartition(b"/")
                removed = (folder + b"/" if folder else b"") + last.removeprefix(_WHITEOUT)
                # Engines differ in which of the two holds.
                if removed in self._entries or removed in seen:
                    raise HeaderError(LayerFault.WHITEOUT)

    def _require_folders(self, folder: bytes) -> None:
        while folder:
            self._step()
            if self._entries.get(folder, _FOLDER) != _FOLDER:
                raise HeaderError(LayerFault.BELOW_NO_FOLDER)
            folder = folder.rpartition(b"/")[0]

    def _follow(self, path: bytes, target: bytes) -> None:
        """Walk where a link leads, through this layer's other links, as the kernel would."""
        here = path.split(b"/")[:-1]
        ahead: list[bytes] = []
        hops = 0
        found: int | bytes | None = target
        while True:
            if isinstance(found, bytes):
                hops += 1
                if hops > _MAX_HOPS:
                    return
                if found.startswith(b"/"):
                    here = []
                ahead.extend(reversed(found.split(b"/")))
            found = None
            if not ahead:
                return
            self._step()
            part = ahead.pop()
            if part == b"..":
                if not here:
                    raise HeaderError(LayerFault.SYMLINK_LEAVES)
                here.pop()
            elif part not in {b"", b"."}:
                found = self._entries.get(b"/".join([*here, part]))
                if not isinstance(found, bytes):
                    here.append(part)

    def _new(self, name: bytes) -> bytes:
        path = self._path(name)
        if not path:
            raise HeaderError(LayerFault.ROOT)
        if path in self._entries:
            raise HeaderError(LayerFault.TWICE)
        return path

    def _path(self, name: bytes) -> bytes:
        """Return a path without empty parts and '.', empty for the root itself."""
        if not name:
            raise HeaderError(LayerFault.NAME_EMPTY)
        if len(name) > self._ceilings.path_bytes:
            raise HeaderError(LayerFault.PATH)
        self._count(len(name))
        # "/" alone is the root, which some builders write so; every engine puts it where it puts "./".
        if name.startswith(b"/") and name.strip(b"/"):
            raise HeaderError(LayerFault.ABSOLUTE)
        parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            raise HeaderError(LayerFault.DOTS)
        if len(parts) > self._ceilings.depth:
            raise HeaderError(LayerFault.DEPTH)
        if any(len(part) > _MAX_COMPONENT for part in parts):
            raise HeaderError(LayerFault.COMPONENT)
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise HeaderError(LayerFault.WHITEOUT)
        return b"/".join(parts)

    def _count(self, size: int) -> None:
        self._name_bytes += size
        if self._name_bytes > self._ceilings.name_bytes:
            raise HeaderError(LayerFault.NAMES)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > self._ceilings.steps:
            raise HeaderError(LayerFault.STEPS)
