"""First batch of a frozen CT cohort against decoding the DICOM each time, on the same series in the same run.

    python -m tests.bench.bench_cohorts [--rounds 7] [--output FILE]

Patches: four of 96x96x48 through a memory map, against pydicom: every slice, sorted by position, to Hounsfield units. Volumes:
the whole one through MONAI's stock LoadImage, against the same LoadImage of the DICOM folder. Every other pair stands beside
them: LoadImage copies a volume from NIfTI's order to C's, which takes it over half of pydicom's time, and SimpleITK is
quicker than pydicom. Rounds in turn, files warm in the page cache for all, medians; seconds are of the processor (user and
system), so that what else the machine does counts for none. Then what freezing costs by the clock, with and without the
volume cache.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cohort_files import KEY
from ct_files import CT_DEFINITION, phantom

from policies.documents import digest_of_file
from policies.splits import Split
from station.cohorts import CaseSource, FrozenCohort, SourceFile, VolumeCache, freeze
from station.cohorts.decoding import DecoderPool
from train_images.phantoms import CtScanner

TARGET_PATCHES, TARGET_VOLUMES = 10.0, 3.0
"""DESIGN section 9."""
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct" / "lung-pet-ct-dx-A0001"
PEERS = {"patches": "DICOM, pydicom", "volumes": "DICOM, LoadImage"}
DICOM = ("DICOM, pydicom", "DICOM, LoadImage", "DICOM, SimpleITK")
PATCH, PATCHES = (96, 96, 48), 4
_OFFSET = 352

Volume = NDArray[np.int16]


def slices_to_use(scratch: Path) -> list[Path]:
    """Return the shared CT series, or where there is none, a generated one of the same size."""
    found = sorted(SHARED.glob("*.dcm"))
    if found:
        return found
    scanner = CtScanner(slices=64, size_px=512, pixel_mm=(0.7, 0.7))
    return list(phantom(scratch / "phantom", scanner=scanner).files)


def frozen(files: list[Path], out: Path, cache: VolumeCache | None, pool: DecoderPool) -> FrozenCohort:
    """Freeze a cohort of the one series."""
    patient = next(f"P{n}" for n in range(32) if KEY.split_of(f"P{n}") is Split.TRAINING)
    sources = tuple(SourceFile(path, digest_of_file(path)) for path in files)
    case = CaseSource("2.25.1", patient, "2.25.2", sources, 1, {"pneumonia": 1, "sex": "F"}, "CT")
    result = freeze(CT_DEFINITION, [case], out, KEY, pool=pool, cache=cache)
    if not isinstance(result, FrozenCohort):
        raise SystemExit(f"the series does not freeze: {result.reasons}")
    return result


def by_pydicom(files: list[Path]) -> Volume:
    """Decode every slice, as a data loader without a cohort would."""
    read = sorted(
        (pydicom.dcmread(path) for path in files), key=lambda each: float(each.ImagePositionPatient[2])
    )
    planes = [each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in read]
    return np.stack(planes).astype(np.int16).transpose(2, 1, 0)


def by_simpleitk(files: list[Path]) -> Volume:
    """Decode every slice by ITK's series reader."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute())).astype(np.int16).transpose(2, 1, 0)


def by_load_image(path: Path) -> Volume:
    """The whole volume, or a folder of DICOM, through MONAI's stock transform."""
    from monai.transforms import LoadImage

    return np.asarray(LoadImage(image_only=True, dtype=np.int16)(str(path)))


def by_memory_map(path: Path, shape: tuple[int, ...], corners: NDArray[np.int64]) -> list[Volume]:
    """Patches through a memory map: what is not asked for is not read."""
    mapped = np.memmap(path, "<i2", "r", _OFFSET, shape, "F")
    return [
        np.ascontiguousarray(
            mapped[tuple(slice(at, at + size) for at, size in zip(corner, PATCH, strict=True))]
        )
        for corner in corners
    ]


def timed(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that something takes."""
    start = clock()
    act()
    return clock() - start


def measure(rounds: int) -> dict[str, object]:
    """Return medians in seconds, and ratios."""
    with tempfile.TemporaryDirectory() as place, DecoderPool() as pool:
        scratch = Path(place)
        files = slices_to_use(scratch)
        cache = VolumeCache(scratch / "volumes")
        freezing = {
            "without a cache": timed(lambda: frozen(files, scratch / "1", None, pool)),
            "cache, first time": timed(lambda: frozen(files, scratch / "2", cache, pool)),
            "cache, second train": timed(lambda: frozen(files, scratch / "3", cache, pool)),
        }
        cohort = frozen(files, scratch / "4", cache, pool)
        (path,) = (cohort.path / "images").iterdir()
        expected = by_pydicom(files)
        limits = np.array(expected.shape) - PATCH
        corners = np.random.default_rng(1).integers(0, np.maximum(limits, 1), size=(PATCHES, 3))
        if not np.array_equal(by_load_image(path), np.clip(expected, -1024, 32767)):
            raise SystemExit("the cohort's volume is not the series")
        acts: dict[str, Callable[[], object]] = {
            "DICOM, pydicom": lambda: by_pydicom(files),
            "DICOM, LoadImage": lambda: by_load_image(files[0].parent),
            "DICOM, SimpleITK": lambda: by_simpleitk(files),
            "volume, LoadImage": lambda: by_load_image(path),
            "patches, memory map": lambda: by_memory_map(path, expected.shape, corners),
        }
        seconds: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(rounds):
            for name, act in acts.items():
                seconds[name].append(timed(act, time.process_time))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        patches, volumes = medians["patches, memory map"], medians["volume, LoadImage"]
        # A folder that is read-only is not removed by its context manager.
        for sealed in sorted(scratch.rglob("*")):
            if sealed.is_dir():
                sealed.chmod(0o700)
    return {
        "slices": len(files),
        "shared": files[0].is_relative_to(SHARED),
        "seconds": medians,
        "freeze_seconds": freezing,
        "ratio_patches": round(medians[PEERS["patches"]] / patches, 1),
        "ratio_volumes": round(medians[PEERS["volumes"]] / volumes, 1),
        "all_patches": {name: round(medians[name] / patches, 1) for name in DICOM},
        "all_volumes": {name: round(medians[name] / volumes, 1) for name in DICOM},
        "target_patches": TARGET_PATCHES,
        "target_volumes": TARGET_VOLUMES,
    }


def show(found: dict[str, object], console: Console) -> None:
    """Print a table and the ratios."""
    table = Table("what", "seconds")
    for part in ("seconds", "freeze_seconds"):
        rows = found[part]
        if isinstance(rows, dict):
            for name, value in rows.items():
                table.add_row(name if part == "seconds" else f"freeze, {name}", f"{value:.4f}")
    console.print(table)
    for what, peer in PEERS.items():
        console.print(
            f"{what}: {found[f'ratio_{what}']}x of {peer} (target {found[f'target_{what}']}x); all: {found[f'all_{what}']}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # MONAI's own imports
    console = Console(highlight=False)
    found = measure(choices.rounds)
    show(found, console)
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
