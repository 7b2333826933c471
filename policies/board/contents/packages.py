"""The packages that an image says it holds: Debian's, from dpkg's own list, and Python's, from their metadata.

What is listed here is what files in the image claim. A train could write these files itself; the digests of a distribution's
RECORD at least show where its files are others than those that were installed.
"""

import base64
import binascii
import csv
import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, Literal

from policies.board.contents.layers import LayerFile
from policies.board.contents.licences import MAX_LICENCE, Family, debian_licences, family_of, strictest
from policies.board.contents.tree import Placed, Tree

DPKG_STATUS: Final = "var/lib/dpkg/status"
MAX_PACKAGES: Final = 20_000
MAX_LISTED: Final = 600_000

_METADATA: Final = re.compile(r"(?:^|/)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)$")
_RECORD: Final = re.compile(r"(?:^|/)[^/]+\.dist-info/RECORD$")
_COPYRIGHT: Final = re.compile(r"^usr/share/doc/[^/]+/copyright$")
_LISTED: Final = re.compile(r"^var/lib/dpkg/info/[^/]+\.list$")
_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOREIGN: Final = (
    ("Alpine packages", re.compile(r"^lib/apk/db/installed$")),
    ("RPM packages", re.compile(r"^(usr/lib/sysimage|var/lib)/rpm/")),
    ("conda packages", re.compile(r"(?:^|/)conda-meta/[^/]+\.json$")),
    ("Node packages", re.compile(r"(?:^|/)node_modules/[^/]+/package\.json$")),
    ("R packages", re.compile(r"(?:^|/)R/(?:[^/]+/)?library/[^/]+/DESCRIPTION$")),
)
_LIMITS: Final = (
    (re.compile(rf"^{DPKG_STATUS}(?:\.d/[^/]+)?$"), 16 << 20),
    (_METADATA, 512 << 10),
    (_RECORD, 8 << 20),
    (_COPYRIGHT, 256 << 10),
    (_LISTED, 4 << 20),
)

_Licences = dict[bytes, tuple[str, Family]]
"""What each copyright file says, by its digest."""


class Origin(StrEnum):
    """Whose a file is, as the image's own lists have it: they are claims, and nothing proves them.

    `UNCHECKED` is listed by a Python distribution without a digest (compiled files are), `ALTERED` with another one.
    """

    DEBIAN = "debian"
    PYTHON = "python"
    UNCHECKED = "unchecked"
    ALTERED = "altered"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Package:
    """One package.

    Attributes:
        licence: as it is named there; empty where it is not.
        family: what that name says.
        place: the folder of a Python distribution.
        layer: that holds its list or metadata; 1 is the lowest.
    """

    ecosystem: Literal["debian", "python"]
    name: str
    version: str
    licence: str
    family: Family
    place: str
    layer: int


def is_evidence(path: str, size: int) -> bool:
    """Whether a file says what is installed, and is of a size to be read."""
    return any(size <= limit and pattern.search(path) for pattern, limit in _LIMITS)


def packages_of(tree: Tree) -> tuple[Package, ...]:
    """List the packages of an image, Debian's first, by name."""
    debian: list[Package] = []
    python: list[Package] = []
    licences: _Licences = {}
    for path, placed in tree:
        if placed.file.data is None:
            continue
        if path == DPKG_STATUS or path.startswith(DPKG_STATUS + ".d/"):
            if len(debian) < MAX_PACKAGES:
                debian += islice(_debian(placed, tree, licences), MAX_PACKAGES - len(debian))
        elif (
            len(python) < MAX_PACKAGES
            and _METADATA.search(path)
            and (package := _python(path, placed)) is not None
        ):
            python.append(package)
    found = debian + python
    found.sort(key=lambda each: (each.ecosystem, each.name.casefold(), each.version, each.place))
    return tuple(found[:MAX_PACKAGES])


def not_read(tree: Tree) -> tuple[str, ...]:
    """Name the kinds of packages that are there and that are not listed."""
    there = [name for name, pattern in _FOREIGN if any(pattern.search(path) for path, _ in tree)]
    return tuple(there)


def _debian(placed: Placed, tree: Tree, licences: _Licences) -> Iterator[Package]:
    for fields in _paragraphs(placed.file.data or b""):
        name, status = fields.get("package", ""), fields.get("status", "install ok installed")
        if not name or not status.endswith(" installed"):
            continue
        document = tree.follow(f"usr/share/doc/{name}/copyright")
        licence, family = ("", Family.UNKNOWN) if document is None else _copyright(document, licences)
        yield Package("debian", name, fields.get("version", ""), licence, family, "", placed.layer + 1)


def _copyright(document: LayerFile, licences: _Licences) -> tuple[str, Family]:
    """Read a copyright file, each once: any number of packages may lead to the same one."""
    if document.data is None:
        return "", Family.UNKNOWN
    if document.digest not in licences:
        names = debian_licences(document.data) or ()
        # Such a file names every snippet's licence, by names of its own too: those that are known decide.
        known = {family_of(each) for each in names} - {Family.UNKNOWN}
        licences[document.digest] = ", ".join(names)[:MAX_LICENCE], strictest(known)
    return licences[document.digest]


def _paragraphs(data: bytes) -> Iterator[dict[str, str]]:
    for paragraph in data.decode("utf-8", "replace").split("\n\n")[:MAX_PACKAGES]:
        fields = {}
        for line in paragraph.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line[:1].isspace():
                fields[key.lower()] = value.strip()[:MAX_LICENCE]
        yield fields


def _python(path: str, placed: Placed) -> Package | None:
    head: dict[str, str] = {}
    classified: list[str] = []
    for line in (placed.file.data or b"").decode("utf-8", "replace").splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if not colon or line[:1].isspace():
            continue
        if key.lower() == "classifier" and value.strip().startswith("License ::"):
            classified.append(value.rpartition("::")[2].strip()[:MAX_LICENCE])
        head.setdefault(key.lower(), value.strip()[:MAX_LICENCE])
    if not head.get("name"):
        return None
    told = head.get("license-expression") or head.get("license", "")
    family = family_of(told)
    # The old field may hold anything, the licence's whole text too; a classifier is a name from a list.
    if (family is Family.UNKNOWN or not told) and classified:
        told = ", ".join(classified)[:MAX_LICENCE]
        family = strictest(family_of(each) for each in classified)
    place = posixpath.dirname(posixpath.dirname(path))
    return Package("python", head["name"], head.get("version", ""), told, family, place, placed.layer + 1)


class Records:
    """The files that packages say they installed; Python distributions with the digests that these had then.

    A file without a digest to hold it to counts as the package's only in the layer that brought the package's list: one that a
    later layer put in its place is somebody else's.
    """

    def __init__(self, tree: Tree) -> None:
        self._digests: dict[str, tuple[bytes | None, int]] = {}
        self._debian: dict[str, int] = {}
        # "/bin/sh" of a package lies under "usr/bin" since Debian merged the two.
        merged = {
            name: placed.file.link.strip("/")
            for name in _MERGED
            if (placed := tree.get(name)) is not None and placed.file.link
        }
        for path, placed in tree:
            if placed.file.data is not None and _RECORD.search(path):
                self._read(posixpath.dirname(posixpath.dirname(path)), placed.file.data, placed.layer)
            elif placed.file.data is not None and _LISTED.search(path):
                self._list(placed.file.data, merged, placed.layer)

    def _read(self, place: str, data: bytes, layer: int) -> None:
        try:
            for row in csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")):
                if len(row) == 3 and len(self._digests) < MAX_LISTED:
                    path = posixpath.normpath(posixpath.join("/", place, row[0])).strip("/")
                    self._digests[path] = (_digest(row[1]), layer)
        except csv.Error:
            # The rest of its files then count as nobody's.
            return

    def _list(self, data: bytes, merged: dict[str, str], layer: int) -> None:
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            top, slash, rest = line.strip("/").partition("/")
            if len(self._debian) < MAX_LISTED:
                self._debian[f"{merged.get(top, top)}/{rest}" if slash else top] = layer

    def origin_of(self, path: str, placed: Placed) -> Origin:
        """Say whose a file is, as the image's own lists have it."""
        if path in self._digests:
            told, layer = self._digests[path]
            if told is not None:
                return Origin.PYTHON if told == placed.file.digest else Origin.ALTERED
            return Origin.UNCHECKED if placed.layer == layer else Origin.OWN
        return Origin.DEBIAN if self._debian.get(path) == placed.layer else Origin.OWN


def _digest(text: str) -> bytes | None:
    algorithm, _, value = text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return None
