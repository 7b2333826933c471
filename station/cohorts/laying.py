"""Put the cases' images into a cohort's folder: radiographs, volumes with their masks, or DICOM files.

Each way yields every case with what it became, or with the reason why it became nothing; then nothing of it stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from station.cohorts import nifti
from station.cohorts.cache import VolumeCache
from station.cohorts.decoding import DecoderPool
from station.cohorts.definition import CohortDefinition
from station.cohorts.frozen import remove_tree
from station.cohorts.keys import CohortKey
from station.cohorts.layout import (
    dicom_folder,
    finish_file,
    image_name,
    mask_name,
    write_file,
)
from station.cohorts.pixels import Radiograph
from station.cohorts.series import MAX_SLICES, VolumeGrid, examine_series
from station.cohorts.source import CaseSource, MaskSource
from station.cohorts.unusable import Unusable
from station.cohorts.volumes import read_series, write_volume


@dataclass(frozen=True, slots=True)
class LaidImage:
    """What a case became: paths relative to the cohort's folder."""

    image: str
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """Lays one cohort's cases.

    Args:
        definition: of the cohort.
        key: the station's cohort key.
        folder: the cohort's folder; its subfolders are there.
        pool: decoder processes.
        cache: of volumes; None to make each anew.
    """

    definition: CohortDefinition
    key: CohortKey
    folder: Path
    pool: DecoderPool
    cache: VolumeCache | None

    def lay(self, cases: Sequence[CaseSource]) -> Iterator[tuple[CaseSource, LaidImage | Unusable]]:
        """Lay every case, one at a time; yields each.

        Raises:
            OSError: the folder cannot be written.
            UnavailableError: no decoder process can be started.
        """
        if self.definition.representation == "dicom":
            return ((case, self._lay_dicom(case)) for case in cases)
        if self.definition.volumes:
            return ((case, self._lay_volume(case)) for case in cases)
        return self._lay_radiographs(cases)

    def _lay_radiographs(
        self, cases: Sequence[CaseSource]
    ) -> Iterator[tuple[CaseSource, LaidImage | Unusable]]:
        for case, image in self.pool.decode_all((case, case.files[0]) for case in cases):
            if not isinstance(image, Radiograph):
                yield case, image
            elif image.modality != case.modality:
                yield case, Unusable.MODALITY
            else:
                name = image_name(self._name(case))
                write_file(self.folder / name, nifti.encode(image.pixels, image.spacing_mm))
                yield case, LaidImage(name)

    def _lay_volume(self, case: CaseSource) -> LaidImage | Unusable:
        name = image_name(self._name(case))
        path = self.folder / name
        write = self.cache.lay if self.cache is not None else write_volume
        volume = write(case.files, path, self.pool)
        if isinstance(volume, Unusable):
            return volume
        finish_file(path)
        if not self.definition.masks:
            return LaidImage(name)
        mask = self._lay_masks(case, volume.grid)
        if isinstance(mask, Unusable):
            path.unlink()
            return mask
        return LaidImage(name, mask)

    def _lay_masks(self, case: CaseSource, grid: VolumeGrid) -> str | Unusable:
        """Merge the masks that are wanted into one label map: 1 for the first name of the definition, and so on."""
        columns, rows, slices = grid.shape
        labels = np.zeros((slices, rows, columns), np.uint8)
        for source, values in _sources_of(case, self.definition.masks):
            mask = self.pool.mask(source.file, source.format, grid, values)
            if isinstance(mask, Unusable):
                return mask
            if max(mask.max(initial=0), 0) > len(self.definition.masks):
                return Unusable.MASK_INVALID
            for index, more in enumerate(mask):
                if (labels[index].astype(bool) & more.astype(bool)).any():
                    return Unusable.MASK_OVERLAP
                labels[index] |= more
        name = mask_name(self._name(case))
        header = nifti.header(tuple(grid.shape), grid.affine, labels.dtype)
        write_file(self.folder / name, header, labels.data.cast("B"))
        return name

    def _lay_dicom(self, case: CaseSource) -> LaidImage | Unusable:
        if len(case.files) > MAX_SLICES:
            return Unusable.TOO_LARGE
        if self.definition.volumes:
            # Who asks for slices as they are still gets whole series only.
            headers = read_series(case.files, self.pool)
            if isinstance(headers, Unusable):
                return headers
            if findings := examine_series(headers):
                return findings[0].reason
        name = dicom_folder(self._name(case))
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        scope = self.definition.scope
        key, shift_s = self.key.uid_key(scope), self.key.shift_s(scope, case.patient)
        patient = self.key.patient_id(scope, case.patient)
        # In the order of the train's own names: the files' order is the project's.
        files = sorted(case.files, key=lambda file: self.key.case_id(scope, file.digest or file.path.name))
        for number, made in enumerate(self.pool.rekeyed(files, key, patient, shift_s)):
            if isinstance(made, Unusable):
                remove_tree(folder)
                return made
            write_file(folder / f"{number:05d}.dcm", made)
        return LaidImage(name)

    def _name(self, case: CaseSource) -> str:
        return self.key.case_id(self.definition.scope, case.case)


def _sources_of(case: CaseSource, wanted: Sequence[str]) -> Iterator[tuple[MaskSource, dict[int, int]]]:
    """Yield the masks to read, with what becomes of their values; a name is taken from the first mask that has it."""
    left = {name: number for number, name in enumerate(wanted, 1)}
    for source in case.masks:
        values = {value: left.pop(name) for value, name in enumerate(source.names, 1) if name in left}
        if values:
            yield source, values
