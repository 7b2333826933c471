"""Reads a box of a volume on the grid that is asked for, and nothing more of the file than that needs.

Between voxels values are interpolated linearly, axis by axis, in float32; label maps take the nearest voxel. Nothing is smoothed before
a coarser grid is taken, as MONAI's `Spacing` does not either. Of an unscaled file the result is rounded to whole numbers again: a
Hounsfield unit is as fine as the file itself was, and a volume that is kept as int16 then holds the very numbers that its patches have.
Every voxel is computed by the same operations whatever box it is read in: a patch equals that part of the whole, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from algorithms.volumes.grids import Grid, Shape
from algorithms.volumes.mapped import MappedVolume

_SLAB: Final = 8
"""Voxels along the last axis that are read at a time: bounds what a whole volume needs beside itself, and stays in the processor's cache."""

Spacing = tuple[float, float, float] | None


class Source(Protocol):
    """Where boxes of voxels come from: a file, or a volume in memory."""

    @property
    def grid(self) -> Grid:
        """In which boxes are told."""
        ...

    def read(self, start: Sequence[int], shape: Shape, padding: float) -> NDArray[Any]:
        """Return a box; what lies outside the volume is padding."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file, read in RAS order with a spacing of one's own.

    Attributes:
        volume: open.
        spacing_mm: of the grid to read on; None for the file's own.
        linear: interpolate; else the nearest voxel.
    """

    volume: MappedVolume
    spacing_mm: Spacing = None
    linear: bool = True

    @property
    def grid(self) -> Grid:
        """The file's voxels in RAS order, with the spacing that was asked for."""
        return self.volume.grid if self.spacing_mm is None else self.volume.grid.with_spacing(self.spacing_mm)

    def read(self, start: Sequence[int], shape: Shape, padding: float) -> NDArray[Any]:
        """Return a box.

        Args:
            start: its first voxel; may lie outside.
            shape: of the box.
            padding: a value, for what lies outside.

        Returns:
            C-ordered: the file's own kind where it is not scaled, else float32.
        """
        own, wanted = self.volume.grid, self.grid
        ratio = [new / old for new, old in zip(wanted.spacing_mm, own.spacing_mm, strict=True)]
        kind = np.dtype(np.float32) if self.volume.scaled else self.volume.dtype.newbyteorder("=")
        found = np.full(shape, padding, kind)
        inside = [
            (max(0, -first), min(size, whole - first))
            for first, size, whole in zip(start, shape, wanted.shape, strict=True)
        ]
        if any(low >= high for low, high in inside):
            return found
        voxels = self.volume.voxels()
        steps = [
            _steps(first + low, first + high, scale, whole)
            for first, (low, high), scale, whole in zip(start, inside, ratio, own.shape, strict=True)
        ]
        (left, right), (front, back), (bottom, top) = inside
        for low in range(bottom, top, _SLAB):
            high = min(low + _SLAB, top)
            slab = [*steps[:2], steps[2].part(low - bottom, high - bottom)]
            values = (
                _interpolated(voxels, slab, self.volume)
                if self.linear
                else _nearest(voxels, slab, self.volume)
            )
            if kind.kind != "f" and values.dtype.kind == "f":
                values = np.rint(values, out=values)
            found[left:right, front:back, low:high] = values
        return found


@dataclass(frozen=True, slots=True)
class HeldSource:
    """A volume in memory, on its own grid."""

    voxels: NDArray[Any]
    grid: Grid

    def read(self, start: Sequence[int], shape: Shape, padding: float) -> NDArray[Any]:
        """Return a box, a copy; what lies outside is padding."""
        found = np.full(shape, padding, self.voxels.dtype)
        here, there = [], []
        for first, size, whole in zip(start, shape, self.voxels.shape, strict=True):
            low, high = max(0, -first), min(size, whole - first)
            if low >= high:
                return found
            here.append(slice(low, high))
            there.append(slice(first + low, first + high))
        found[tuple(here)] = self.voxels[tuple(there)]
        return found


@dataclass(frozen=True, slots=True)
class _Steps:
    """Along one axis: of each voxel wanted, which stored ones it lies between, and how far from the lower one."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]

    @property
    def as_stored(self) -> bool:
        """Whether each stored voxel from the first to the last is wanted, and nothing between two."""
        return not self.share.any() and int(self.low[-1] - self.low[0]) + 1 == len(self.low)

    def part(self, first: int, last: int) -> "_Steps":
        return _Steps(self.low[first:last], self.high[first:last], self.share[first:last])


def _steps(first: int, last: int, scale: float, whole: int) -> _Steps:
    # The last wanted voxel may lie up to half a step beyond the last stored one: it takes that one's value.
    place = np.clip(np.arange(first, last) * scale, 0, whole - 1)
    # Whole places stay whole: products of decimals are off by a trillionth.
    close = np.rint(place)
    place = np.where(np.abs(place - close) < 1e-6, close, place)
    low = np.floor(place).astype(np.int64)
    return _Steps(low, np.minimum(low + 1, whole - 1), (place - low).astype(np.float32))


def _interpolated(voxels: NDArray[Any], steps: Sequence[_Steps], volume: MappedVolume) -> NDArray[Any]:
    box, shifted = _box(voxels, steps)
    values = volume.values(box)
    for axis, step in enumerate(shifted):
        if step.as_stored and len(step.low) == values.shape[axis]:
            continue
        low = np.take(values, step.low, axis)
        if step.share.any():
            share = step.share.reshape([-1 if at == axis else 1 for at in range(3)])
            low = low.astype(np.float32, copy=False)
            values = low + (np.take(values, step.high, axis).astype(np.float32, copy=False) - low) * share
        else:
            values = low
    return values


def _nearest(voxels: NDArray[Any], steps: Sequence[_Steps], volume: MappedVolume) -> NDArray[Any]:
    box, shifted = _box(voxels, steps)
    if all(step.as_stored for step in shifted):
        return volume.values(box)
    chosen = [np.where(step.share < 0.5, step.low, step.high) for step in shifted]
    return volume.values(box[np.ix_(*chosen)])


def _box(voxels: NDArray[Any], steps: Sequence[_Steps]) -> tuple[NDArray[Any], list[_Steps]]:
    """Read the stored voxels between which all wanted ones lie; and the steps counted from there."""
    firsts = [int(step.low.min()) for step in steps]
    lasts = [int(step.high.max()) + 1 for step in steps]
    if all(step.as_stored for step in steps):
        # Copied once, to where it is wanted.
        lasts = [first + len(step.low) for first, step in zip(firsts, steps, strict=True)]
        return voxels[tuple(slice(a, b) for a, b in zip(firsts, lasts, strict=True))], [
            _Steps(s.low - at, s.low - at, s.share) for s, at in zip(steps, firsts, strict=True)
        ]
    box = np.ascontiguousarray(voxels[tuple(slice(a, b) for a, b in zip(firsts, lasts, strict=True))])
    return box, [_Steps(s.low - at, s.high - at, s.share) for s, at in zip(steps, firsts, strict=True)]
