"""From the slices of a CT series to one NIfTI file, slice by slice: no more than a few are in memory at once.

Every slice is read twice: its header, to judge the series and to know where each slice belongs, then all of it,
verified by its digest; both must say the same. What is not a volume is a finding, not an error.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from station.cohorts import nifti
from station.cohorts.decoding import DecoderPool
from station.cohorts.series import MAX_SLICES, SliceHeader, VolumeGrid, arrange, examine_series
from station.cohorts.source import SourceFile
from station.cohorts.unusable import Unusable

VOXELS = np.dtype("<i2")
VOLUME_VERSION = 1
"""Grows when equal slices give other bytes than before."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One written volume.

    Attributes:
        grid: where its voxels lie.
        digest: of the file.
    """

    grid: VolumeGrid
    digest: str


def write_volume(files: Sequence[SourceFile], path: Path, pool: DecoderPool) -> Volume | Unusable:
    """Write one series as a new file, synced; where it makes no volume, nothing stays.

    Args:
        files: the series' slices, in any order.
        path: a file that is not there yet; only its owner may read it until the caller says otherwise.
        pool: decoder processes.

    Raises:
        OSError: the file cannot be written; what was written of it does not stay.
        UnavailableError: no decoder process can be started.
    """
    headers = read_series(files, pool)
    if isinstance(headers, Unusable):
        return headers
    if findings := examine_series(headers):
        return findings[0].reason
    grid, order = arrange(headers)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    written: str | Unusable | None = None
    try:
        with os.fdopen(descriptor, "wb") as file:
            written = _write_voxels(file, [(files[index], headers[index]) for index in order], grid, pool)
            file.flush()
            os.fsync(file.fileno())
    finally:
        if not isinstance(written, str) or isinstance(written, Unusable):
            path.unlink()
    return written if isinstance(written, Unusable) else Volume(grid, written)


def read_series(files: Sequence[SourceFile], pool: DecoderPool) -> list[SliceHeader] | Unusable:
    """Read the headers of a series, in the order of `files`; where a file has none, say why.

    Raises:
        UnavailableError: no decoder process can be started.
    """
    if len(files) > MAX_SLICES:
        return Unusable.TOO_LARGE
    headers: list[SliceHeader] = []
    faults: set[Unusable] = set()
    for header in pool.headers(files):
        if isinstance(header, Unusable):
            faults.add(header)
        else:
            headers.append(header)
    # The first of the list, whatever the order of the files: a freeze is a function of its inputs.
    return next((reason for reason in Unusable if reason in faults), headers)


def _write_voxels(
    file: BinaryIO,
    slices: Sequence[tuple[SourceFile, SliceHeader]],
    grid: VolumeGrid,
    pool: DecoderPool,
) -> str | Unusable:
    """Write header and slices, which are in order; return the file's digest."""
    sha256 = hashlib.sha256()

    def write(data: bytes) -> None:
        sha256.update(data)
        file.write(data)

    write(nifti.header(grid.shape, grid.affine, VOXELS))
    for expected, plane in pool.slices((header, source) for source, header in slices):
        if isinstance(plane, Unusable):
            return plane
        if plane.header != expected:
            return Unusable.DIGEST
        write(plane.hounsfield.tobytes())
    return "sha256:" + sha256.hexdigest()
