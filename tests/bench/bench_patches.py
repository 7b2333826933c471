"""First batch of a CT cohort through the trains' own reader, against decoding the DICOM and against MONAI's stock transforms.

    python -m tests.bench.bench_patches [--rounds 5] [--output FILE]

Four patches of 96x96x48 from one series: on the image's own voxels, and on the grid of 1.5x1.5x2 mm that the segmentation train works on.
Whole volumes in C order and RAS, as a network takes them. The peers do the same by pydicom (every slice, sorted by position), by MONAI's
`LoadImage` of the DICOM folder or of the cohort's NIfTI, then `Orientation`, `Spacing` and a crop. Files warm in the page cache for all;
rounds in turn; medians of the processor's seconds (user and system), so that what else the machine does counts for little.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from station.cohorts.decoding import DecoderPool
from tests.bench.bench_cohorts import by_load_image, by_pydicom, by_simpleitk, frozen, slices_to_use, timed

TARGET_PATCHES, TARGET_VOLUMES = 10.0, 3.0
"""DESIGN section 9: against decoding the DICOM again."""
PATCH, COUNT = (96, 96, 48), 4
GRID_MM = (1.5, 1.5, 2.0)


def crops(volume: Any, starts: Sequence[Sequence[int]]) -> list[Any]:
    """Patches of a whole volume, copied, air beyond it."""
    from algorithms.volumes.grids import Grid
    from algorithms.volumes.patches import HeldSource

    whole = np.asarray(volume)
    return [HeldSource(whole, Grid(whole.shape, np.eye(4))).read(start, PATCH, -1024) for start in starts]


def measure(rounds: int) -> dict[str, Any]:
    """Return medians in seconds, and ratios."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing

    from algorithms.volumes.caching import cached
    from algorithms.volumes.mapped import open_volume
    from algorithms.volumes.patches import FileSource
    from algorithms.volumes.transforms import IMAGE, Reading, read_volume

    turn = [EnsureChannelFirst(), Orientation("RAS", labels=None)]
    onto = [*turn, Spacing(GRID_MM, mode="bilinear", padding_mode="border", align_corners=True)]
    stock = Compose([LoadImage(image_only=True), *onto])
    with tempfile.TemporaryDirectory() as place, DecoderPool() as pool:
        scratch = Path(place)
        files = slices_to_use(scratch)
        cohort = frozen(files, scratch / "cohort", None, pool)
        (path,) = (cohort.path / "images").iterdir()
        own, resampled = FileSource(open_volume(path)), FileSource(open_volume(path), GRID_MM)
        random = np.random.default_rng(1)
        starts, onto_starts = (
            [[int(random.integers(0, max(1, whole - side))) for whole, side in zip(grid.shape, PATCH, strict=True)] for _ in range(COUNT)]
            for grid in (own.grid, resampled.grid)
        )  # fmt: skip
        # The same numbers first, then the time: against MONAI on the grid, and exactly on the image's own voxels.
        whole = Compose([LoadImage(image_only=True, dtype=np.int16), *turn])(str(path))[0].numpy()
        same = all(
            np.array_equal(own.read(start, PATCH, -1024), crop)
            for start, crop in zip(starts, crops(whole, starts), strict=True)
        )
        monais = crops(stock(str(path))[0].numpy(), onto_starts)
        apart = max(
            float(np.abs(resampled.read(start, PATCH, -1024) - crop).max())
            for start, crop in zip(onto_starts, monais, strict=True)
        )
        # Ours are rounded to whole Hounsfield units; MONAI's affines are of float32's precision.
        if not same or apart > 2.0:
            raise SystemExit(
                f"the reader does not give what MONAI gives: exact {same}, {apart} HU apart on the grid"
            )
        item = {"image": str(path)}
        only_image = Reading({"image": IMAGE}, GRID_MM)
        held = only_image.source("image", cached([item], only_image, 1 << 40)[0]["image"])
        acts: dict[str, Callable[[], object]] = {
            "patches: DICOM, pydicom": lambda: crops(by_pydicom(files), starts),
            "patches: DICOM, LoadImage": lambda: crops(by_load_image(files[0].parent), starts),
            "patches: DICOM, SimpleITK": lambda: crops(by_simpleitk(files), starts),
            "patches: NIfTI, LoadImage": lambda: crops(by_load_image(path), starts),
            "patches: ours": lambda: [own.read(start, PATCH, -1024) for start in starts],
            "on the grid: DICOM, MONAI": lambda: crops(stock(str(files[0].parent))[0].numpy(), onto_starts),
            "on the grid: NIfTI, MONAI": lambda: crops(stock(str(path))[0].numpy(), onto_starts),
            "on the grid: ours": lambda: [resampled.read(start, PATCH, -1024) for start in onto_starts],
            "on the grid: ours, held": lambda: [held.read(start, PATCH, -1024) for start in onto_starts],
            "volume: DICOM, pydicom": lambda: by_pydicom(files),
            "volume: DICOM, LoadImage": lambda: by_load_image(files[0].parent),
            "volume: NIfTI, LoadImage": lambda: by_load_image(path),
            "volume: ours": lambda: read_volume(path),
        }
        seconds: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(rounds):
            for name, act in acts.items():
                seconds[name].append(timed(act, time.process_time))
        slices = len(files)
        for sealed in sorted(scratch.rglob("*")):
            if sealed.is_dir():
                sealed.chmod(0o700)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: round(value / medians[f"{name.partition(':')[0]}: ours"], 1)
        for name, value in medians.items()
        if not name.endswith("ours")
    }
    return {
        "slices": slices,
        "seconds": medians,
        "ratios": ratios,
        "apart_hu": apart,
        "target_patches": TARGET_PATCHES,
        "target_volumes": TARGET_VOLUMES,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # MONAI's own imports
    found = measure(choices.rounds)
    table = Table("what", "processor seconds", "times ours", title=f"one series of {found['slices']} slices")
    for name, value in found["seconds"].items():
        table.add_row(name, f"{value:.4f}", f"{found['ratios'].get(name, 1.0):.1f}")
    console = Console(highlight=False)
    console.print(table)
    patches, volumes = found["ratios"]["patches: DICOM, pydicom"], found["ratios"]["volume: DICOM, LoadImage"]
    console.print(
        f"patches {patches}x (target {TARGET_PATCHES}x), whole volumes {volumes}x (target {TARGET_VOLUMES}x)"
    )
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return int(patches < TARGET_PATCHES or volumes < TARGET_VOLUMES)


if __name__ == "__main__":
    raise SystemExit(main())
