"""The files of an image as a container sees them: its layers on top of each other. A value in memory; nothing is unpacked."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policies.board.contents.layers import Layer, LayerFile
from policies.board.contents.tar_stream import Kind
from policies.errors import DocumentError

MAX_PATHS: Final = 600_000

_MAX_HOPS: Final = 16


@dataclass(frozen=True, slots=True)
class Placed:
    """A file, and the layer (0 is the lowest) that put it there.

    Attributes:
        replaces: the layer whose file of this name it took the place of; None where there was none.
    """

    layer: int
    file: LayerFile
    replaces: int | None = None


class _Node:
    __slots__ = ("children", "placed")

    def __init__(self) -> None:
        self.placed: Placed | None = None
        self.children: dict[str, _Node] | None = None


class Tree:
    """An image's files over all layers; add layers lowest first."""

    def __init__(self) -> None:
        self._root = _Node()
        self._layers = 0
        self._paths = 0
        self.oddities: list[str] = []

    def add(self, layer: Layer) -> None:
        """Put a layer on top: first what it hides, then what it brings."""
        number = self._layers
        self._layers += 1
        for path in layer.hidden:
            self._remove(path)
        for folder in layer.opaque:
            node = self._root if folder == "" else self._find(folder)
            if node is not None:
                node.children = None
        behind_links = sum(not self._put(path, file, number) for path, file in layer.entries)
        if behind_links:
            self.oddities.append(
                f"layer {number + 1}: {behind_links} entries lie behind a link of the same layer; where they land "
                "depends on the engine"
            )

    def _put(self, path: str, file: LayerFile, number: int) -> bool:
        """Place a file; False where one of its folders is a link that this layer brought itself."""
        node, plain = self._root, True
        *folders, name = path.split("/")
        for step in folders:
            node = self._child(node, step)
            if node.placed is not None and node.placed.file.kind is not Kind.FOLDER:
                # A folder takes the place of what a lower layer had there.
                plain = plain and node.placed.layer != number
                node.placed = None
        node = self._child(node, name)
        before = node.placed
        if file.kind is not Kind.FOLDER:
            node.children = None
        replaced = before is not None and before.file.kind is not Kind.FOLDER and before.layer != number
        node.placed = Placed(number, file, before.layer if replaced and before is not None else None)
        return plain

    def get(self, path: str) -> Placed | None:
        """Return what stands under a path; links are not followed."""
        node = self._find(path)
        return None if node is None else node.placed

    def follow(self, path: str) -> LayerFile | None:
        """Return the file that a path leads to through links, hard or symbolic; None where it leads nowhere."""
        for _ in range(_MAX_HOPS):
            resolved, link = self._step(path)
            if link is None:
                return resolved
            path = link
        return None

    def _step(self, path: str) -> tuple[LayerFile | None, str | None]:
        node, done = self._root, ""
        steps = path.split("/")
        for place, name in enumerate(steps):
            child = None if node.children is None else node.children.get(name)
            if child is None:
                return None, None
            here = f"{done}/{name}" if done else name
            file = None if child.placed is None else child.placed.file
            if file is not None and file.kind is Kind.SYMLINK:
                target = posixpath.normpath(posixpath.join("/", done, file.link)).strip("/")
                return None, posixpath.join(target, *steps[place + 1 :])
            if file is not None and file.kind is Kind.HARDLINK and place == len(steps) - 1:
                return None, file.link
            node, done = child, here
        return (None if node.placed is None else node.placed.file), None

    def __iter__(self) -> Iterator[tuple[str, Placed]]:
        """Yield every path with what stands there, folders too, in the order of their names."""
        waiting = [("", self._root)]
        while waiting:
            path, node = waiting.pop()
            if node.placed is not None and path:
                yield path, node.placed
            waiting += [
                (f"{path}/{name}" if path else name, child)
                for name, child in sorted((node.children or {}).items(), key=_by_name, reverse=True)
            ]

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for step in path.split("/"):
            if node is None or node.children is None:
                return None
            node = node.children.get(step)
        return node

    def _remove(self, path: str) -> None:
        folder, name = posixpath.split(path)
        node = self._find(folder) if folder else self._root
        if node is not None and node.children is not None:
            node.children.pop(name, None)

    def _child(self, node: _Node, name: str) -> _Node:
        if node.children is None:
            node.children = {}
        child = node.children.get(name)
        if child is None:
            # Folders that no entry names count too: a few long names could make millions of them.
            self._paths += 1
            if self._paths > MAX_PATHS:
                raise DocumentError(f"the image holds more than {MAX_PATHS} paths")
            child = node.children[name] = _Node()
        return child


def _by_name(item: tuple[str, _Node]) -> str:
    return item[0]
