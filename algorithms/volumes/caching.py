"""Keeps as many volumes in memory as fit: MONAI's `CacheDataset` for those, the memory map for the rest.

What a container may use is in its cgroup; where there is none, the machine's memory counts. `PersistentDataset` is no choice here: it
keeps files, and a train has no disk, only a scratch that counts as its memory. Reading through a map costs no memory of its own: the
kernel drops such pages when they are needed otherwise.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from monai.data import CacheDataset
from torch.utils.data import ConcatDataset, Dataset

from algorithms.volumes.mapped import open_volume
from algorithms.volumes.transforms import Reading, ReadVolumesd

_CGROUP: Final = Path("/sys/fs/cgroup")
_NAMED: Final = Path("/proc/self/cgroup")


def memory_limit_bytes(cgroup: Path = _CGROUP, named: Path = _NAMED) -> int:
    """Return the memory that this process may use: the least that its cgroups (version 2 or 1) or the machine set.

    Args:
        cgroup: where cgroups are shown; in a container its own is at the top.
        named: which cgroups the process is in, by the kernel.
    """
    folders = {cgroup, cgroup / "memory"}
    for line in _text(named).splitlines():
        _number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds == "" or "memory" in kinds.split(","):
            folders.add((cgroup / "memory" if kinds else cgroup) / path.lstrip("/"))
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name).strip()
            if text.isdigit() and int(text) > 0:
                limits.append(int(text))
    return min(limits)


def bytes_of(case: Mapping[str, Any], reading: Reading) -> int:
    """Return what a case's volumes take in memory, read as told; nothing of them is read for it.

    Raises:
        VolumeError: a file is none that can be mapped.
    """
    total = 0
    for key in reading.keys:
        volume = open_volume(case[key])
        grid = volume.grid if reading.spacing_mm is None else volume.grid.with_spacing(reading.spacing_mm)
        wide = 4 if volume.scaled or volume.dtype == np.uint16 else volume.dtype.itemsize
        total += int(np.prod(grid.shape)) * wide
    return total


def cases_that_fit(sizes: Iterable[int], room_bytes: int) -> int:
    """Return how many of the first cases fit together.

    >>> cases_that_fit([40, 40, 40], 100)
    2
    """
    count = 0
    for size in sizes:
        room_bytes -= size
        if room_bytes < 0:
            break
        count += 1
    return count


def cached(cases: Sequence[Mapping[str, Any]], reading: Reading, room_bytes: int) -> Dataset[Any]:
    """Return the cases in their order, the first ones read and held in memory, the others as they are: paths.

    Put `RandPatchesd` of the same reading over it: it draws the same patches from both.

    Args:
        cases: items with paths.
        reading: how they are read.
        room_bytes: what may be held.

    Raises:
        VolumeError: a file is none that can be mapped.
    """
    items = [dict(case) for case in cases]
    count = cases_that_fit((bytes_of(case, reading) for case in items), room_bytes)
    parts: list[Dataset[Any]] = []
    if count:
        # One thread: a train has the processors that its manifest asks for. Items are not copied: patches are.
        parts.append(
            CacheDataset(
                items[:count],
                ReadVolumesd(reading),
                cache_num=count,
                num_workers=1,
                progress=False,
                copy_cache=False,
            )
        )
    if items[count:]:
        parts.append(_Cases(items[count:]))
    return ConcatDataset(parts)


class _Cases(Dataset[Any]):
    def __init__(self, items: Sequence[dict[str, Any]]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._items[index])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
