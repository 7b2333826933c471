"""What changed between the images of two bundles: packages, licences, and files, with the lines of the source that differ.

Layers that both images have are read once. Files' texts are read in a second pass, of the layers that hold a file that changed;
both passes hold the bytes to their digests.
"""

import difflib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, Literal

from policies.board.contents.layers import Ceilings, Layer, read_layer
from policies.board.contents.packages import Origin, Package, Records, is_evidence, packages_of
from policies.board.contents.report import Bundle, read_layers, shown
from policies.board.contents.settings import ImageSettings, settings_of
from policies.board.contents.tar_stream import Kind
from policies.board.contents.tree import Placed, Tree

MAX_TEXT_BYTES: Final = 256 << 10
MAX_TEXT_LINES: Final = 4000
MAX_TEXTS: Final = 500
MAX_DIFF_LINES: Final = 20_000
MAX_WORK: Final = 20_000_000
"""Lines looked at and pairs of equal lines held together while texts are compared, over all files; seconds."""

MAX_WORK_OF_FILE: Final = 6_000_000

Happened = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One package that is new, gone, or another than before.

    Attributes:
        before: its version then; empty where it was not there.
        after: its version now; empty where it is gone.
        licence_before: as it was named.
        licence_after: as it is named.
    """

    ecosystem: str
    name: str
    before: str
    after: str
    licence_before: str
    licence_after: str

    @property
    def licence_changed(self) -> bool:
        """Whether a package that stays has another licence now."""
        return bool(self.before and self.after) and self.licence_before != self.licence_after


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path that is new, gone, or other than before.

    Attributes:
        own: whether it is of no package, before or after.
        why: what differs: "content", "mode", "kind" or "link".
        lines: a unified diff, for text of the train's own; empty where there is none to show.
        note: why there are no lines.
    """

    path: str
    happened: Happened
    own: bool
    size_before: int
    size_after: int
    why: tuple[str, ...]
    lines: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ImageChanges:
    """What changed between two images.

    Attributes:
        shared_bytes: of layers that both have.
        new_bytes: of layers that only the second has.
        settings: what the images' configs ask, where it differs.
        packages: by name.
        files: those of no package first.
    """

    before: str
    after: str
    shared_bytes: int
    new_bytes: int
    settings: tuple[str, ...]
    packages: tuple[PackageChange, ...]
    files: tuple[FileChange, ...]


@dataclass(frozen=True, slots=True)
class _Side:
    bundle: Bundle
    layers: list[Layer]
    tree: Tree
    records: Records


def image_changes(before: Bundle, after: Bundle) -> ImageChanges:
    """Compare two images.

    Raises:
        DocumentError: a layer is no tar archive as image builders write it, or beyond the ceilings.
        TrustError: a layer holds other bytes.
        NotFoundError: a layer is missing.
    """
    done: dict[str, Layer] = {}
    old, new = _side(before, done), _side(after, done)
    there = {layer.digest for layer in old.layers}
    return ImageChanges(
        before.index.config.digest,
        after.index.config.digest,
        sum(layer.size for layer in new.layers if layer.digest in there),
        sum(layer.size for layer in new.layers if layer.digest not in there),
        _settings_changes(settings_of(before.config), settings_of(after.config)),
        package_changes(packages_of(old.tree), packages_of(new.tree)),
        _with_texts(_files(old, new), old, new),
    )


def _side(bundle: Bundle, done: dict[str, Layer]) -> _Side:
    layers, tree, _ = read_layers(bundle, is_evidence, done)
    return _Side(bundle, layers, tree, Records(tree))


def _settings_changes(before: ImageSettings, after: ImageSettings) -> tuple[str, ...]:
    names = ("platform", "entrypoint", "command", "user", "folder", "environment", "others")
    return tuple(
        f"{name}: {_words(getattr(before, name))} -> {_words(getattr(after, name))}"
        for name in names
        if getattr(before, name) != getattr(after, name)
    )


def _words(value: str | tuple[str, ...]) -> str:
    return (value if isinstance(value, str) else " ".join(value)) or "none"


def package_changes(before: Iterable[Package], after: Iterable[Package]) -> tuple[PackageChange, ...]:
    """Compare two lists of packages; a package that moved to another folder is the same one."""
    old, new = _by_name(before), _by_name(after)
    found = []
    for key in sorted(old.keys() | new.keys()):
        was, comes = old.get(key, ()), new.get(key, ())
        if [(each.version, each.licence) for each in was] != [(each.version, each.licence) for each in comes]:
            found.append(
                PackageChange(*key, _versions(was), _versions(comes), _licences(was), _licences(comes))
            )
    return tuple(found)


def _by_name(packages: Iterable[Package]) -> dict[tuple[str, str], list[Package]]:
    found: dict[tuple[str, str], list[Package]] = {}
    for package in packages:
        found.setdefault((package.ecosystem, package.name), []).append(package)
    return found


def _versions(packages: Iterable[Package]) -> str:
    return ", ".join(each.version for each in packages)


def _licences(packages: Iterable[Package]) -> str:
    return ", ".join(dict.fromkeys(each.licence or "not named" for each in packages))


def _files(old: _Side, new: _Side) -> list[FileChange]:
    before = {path: placed for path, placed in old.tree if placed.file.kind is not Kind.FOLDER}
    after = {path: placed for path, placed in new.tree if placed.file.kind is not Kind.FOLDER}
    found = []
    for path in before.keys() | after.keys():
        was, comes = before.get(path), after.get(path)
        if why := _why(was, comes):
            own = any(
                placed is not None and side.records.origin_of(path, placed) in {Origin.OWN, Origin.ALTERED}
                for side, placed in ((old, was), (new, comes))
            )
            happened: Happened = "added" if was is None else "removed" if comes is None else "changed"
            found.append(
                FileChange(
                    path, happened, own, was.file.size if was else 0, comes.file.size if comes else 0, why
                )
            )
    # Compiled files change with their source, and nobody reads them.
    found.sort(key=lambda each: (not each.own, each.path.endswith((".pyc", ".pyo")), each.path))
    return found


def _why(was: Placed | None, comes: Placed | None) -> tuple[str, ...]:
    if was is None or comes is None:
        return ("content",)
    a, b = was.file, comes.file
    checks = (
        ("content", a.digest != b.digest),
        ("kind", a.kind is not b.kind),
        ("mode", a.mode != b.mode or a.capabilities != b.capabilities),
        ("link", a.link != b.link),
    )
    return tuple(name for name, differs in checks if differs)


def _with_texts(files: list[FileChange], old: _Side, new: _Side) -> tuple[FileChange, ...]:
    wanted = frozenset([each.path for each in files if each.own and "content" in each.why][:MAX_TEXTS])
    before, after = _texts(old, wanted), _texts(new, wanted)
    left, found = _Left(), []
    for each in files:
        told = each
        if each.path in wanted:
            told = _with_lines(each, before.get(each.path), after.get(each.path), left)
        found.append(replace(told, path=shown(each.path)))
    return tuple(found)


@dataclass(slots=True)
class _Left:
    """What may still be spent on the lines that differ."""

    lines: int = MAX_DIFF_LINES
    work: int = MAX_WORK


def _with_lines(change: FileChange, before: bytes | None, after: bytes | None, left: _Left) -> FileChange:
    if (before is None and change.happened != "added") or (after is None and change.happened != "removed"):
        return replace(change, note="too large to show, or no file")
    old, new = _lines(before or b""), _lines(after or b"")
    if old is None or new is None:
        return replace(change, note="no text")
    if max(len(old), len(new)) > MAX_TEXT_LINES:
        return replace(change, note="too many lines to show")
    limit = min(left.work, MAX_WORK_OF_FILE)
    work = work_of(old, new, limit)
    left.work -= min(work, limit)
    if work > limit:
        few = limit < MAX_WORK_OF_FILE
        return replace(change, note="too much to compare" if few else "too repetitive to show")
    lines = tuple(difflib.unified_diff(old, new, lineterm="", n=2))[2:]
    if len(lines) > left.lines:
        return replace(change, note="too many lines to show")
    left.lines -= len(lines)
    return replace(change, lines=lines)


class _WorkError(Exception):
    """Comparing two texts takes more than there is for it."""


class _Counting(difflib.SequenceMatcher[str]):
    """Compares two texts, and counts what that costs before it is spent."""

    def __init__(self, old: list[str], new: list[str], limit: int) -> None:
        super().__init__(None, old, new)
        pairs = (1 + len(self.b2j.get(line, ())) for line in old)  # type: ignore[attr-defined]
        self._upto = list(accumulate(pairs, initial=0))
        self._limit = limit
        self.work = 0

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        end = len(self._upto) - 1 if ahi is None else ahi
        self.work += self._upto[end] - self._upto[alo]
        if self.work > self._limit:
            raise _WorkError
        return super().find_longest_match(alo, ahi, blo, bhi)


def work_of(old: list[str], new: list[str], limit: int) -> int:
    """Return what comparing two texts costs; counts no further than the first step that goes beyond a limit."""
    matcher = _Counting(old, new, limit)
    with suppress(_WorkError):
        matcher.get_matching_blocks()
    return matcher.work


def _lines(data: bytes) -> list[str] | None:
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # By line feeds alone: other characters that some take for the end of a line must not make one here.
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else [*lines[:-1], lines[-1] + " (no line end)"]


def _texts(side: _Side, wanted: frozenset[str]) -> dict[str, bytes]:
    """Read the files that are wanted out of the layers that hold them."""
    places = {path: placed for path in wanted if (placed := side.tree.get(path)) is not None}
    found: dict[str, bytes] = {}
    ceilings = Ceilings()
    for number in sorted({placed.layer for placed in places.values()}):
        blob = side.bundle.index.layers[number]
        here = {path for path, placed in places.items() if placed.layer == number}
        with side.bundle.blobs.open(blob.digest) as file:
            layer = read_layer(
                file,
                blob.digest,
                blob.size,
                lambda path, size, here=here: path in here and size <= MAX_TEXT_BYTES,  # type: ignore[misc]
                ceilings,
            )
        # Of a name that stands twice the last one counts, as in the tree.
        found |= {
            path: entry.data for path, entry in layer.entries if path in here and entry.data is not None
        }
    return found
