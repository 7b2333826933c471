"""A cohort of people who do not exist, without a dry run: what a train would find under /train/data, for trying its code outside a container.

Laid out by a station's own code, from the same made-up images as in a dry run, by the grant that the board's draft would begin with.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import RefusedError, StorageError, UsageError
from policies.manifest import ImageVariant
from policies.refusals import Refused
from station.cohorts import CohortKey, define, freeze
from train_images.tool.dry_cohort import DryImages, make_cases
from train_images.tool.dry_terms import draft_for
from train_images.tool.folders import MANIFEST, TrainFolder
from train_images.tool.packing import with_image

DEFAULT_PATIENTS: Final = 24
_NO_IMAGE: Final = ImageVariant(variant="cpu", config_digest="sha256:" + "0" * 64)


@dataclass(frozen=True, slots=True)
class LoneCohort:
    """A cohort that was laid out.

    Attributes:
        path: the folder.
        patients: by split.
        images: likewise.
    """

    path: Path
    patients: Mapping[str, int]
    images: Mapping[str, int]


def lay_cohort(
    folder: TrainFolder,
    out: Path,
    *,
    patients: int = DEFAULT_PATIENTS,
    seed: int = 1,
    pixels: int | None = None,
    slices: int | None = None,
) -> LoneCohort:
    """Make up a cohort in the shape that a train asks for.

    Args:
        folder: the train's.
        out: the folder to make.
        patients: how many to make up.
        seed: equal seeds give equal cohorts.
        pixels: rows and columns of the images; None for small ones.
        slices: of a CT; likewise.

    Raises:
        UsageError: `out` is there already, or too few patients were asked for.
        RefusedError: no such cohort can be laid out, and why.
        StorageError: the disk.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already", hint="Name a folder that is not there yet.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pht-cohort-", dir=out.parent) as made:
            return _lay(folder, out, Path(made), DryImages(patients, seed, pixels, slices))
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error


def _lay(folder: TrainFolder, out: Path, work: Path, images: DryImages) -> LoneCohort:
    # The draft is of a packed train, whose manifest names an image: any will do, since none runs.
    (work / MANIFEST).write_bytes(with_image(folder.text, _NO_IMAGE))
    definition = define(draft_for(work / MANIFEST), folder.manifest)
    if isinstance(definition, Refused):
        raise _refused(definition)
    definition = definition.model_copy(update={"minimum_patients": 1})
    cases = make_cases(folder.manifest, work / "phantoms", images)
    key = CohortKey(hashlib.sha256(f"made up {images.seed}".encode()).digest())
    frozen = freeze(definition, cases.cases, work / "cohorts", key)
    if isinstance(frozen, Refused):
        raise _refused(frozen)
    splits = {split.value: len(found) for split, found in frozen.patients_by_split.items()}
    empty = [split.value for split in definition.splits if not splits[split.value]]
    if empty:
        raise UsageError(f"no patient fell into {' and '.join(empty)}", hint="Make up more: --patients.")
    for inner in (frozen.path, *(path for path in frozen.path.rglob("*") if path.is_dir())):
        # A station's cohorts are wiped by the station; this one is the researcher's to remove.
        inner.chmod(0o755)
    frozen.path.rename(out)
    return LoneCohort(
        out, splits, {split.value: count for split, count in frozen.images_by_split.items() if count}
    )


def _refused(found: Refused) -> RefusedError:
    reason = found.reasons[0]
    return RefusedError(reason.code, "; ".join(each.detail or each.code.value for each in found.reasons))
