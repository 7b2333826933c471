"""Freeze a cohort: decode, assign splits and the train's pseudonyms, lay out, hash, and put in place at once.

Knows no settings and no database: consent and collections were decided by whoever chose the cases. Invariants: the
same inputs give the same digest; a case that cannot be used is left out and counted by reason, never quoted; what
stands under its final name is whole; a cohort with too few patients is not written.
"""

import math
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from policies.documents import canonical_json
from policies.errors import StorageError
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from station.cohorts.cache import VolumeCache
from station.cohorts.clinical import shown_fields
from station.cohorts.decoding import DecoderPool
from station.cohorts.definition import CohortDefinition, unsupported
from station.cohorts.frozen import (
    DATA,
    RECEIPT,
    TEMPORARY_PREFIX,
    FrozenCohort,
    Receipt,
    digest_folder,
    load,
    remove_tree,
)
from station.cohorts.keys import CohortKey
from station.cohorts.laying import LaidImage, Layer
from station.cohorts.layout import (
    LaidCase,
    seal,
    subfolders,
    sync_folder,
    write_documents,
    write_file,
)
from station.cohorts.source import CaseSource
from station.cohorts.unusable import Unusable


@dataclass(slots=True)
class _Making:
    """A cohort while it is being made."""

    definition: CohortDefinition
    key: CohortKey
    folder: Path
    laid: list[LaidCase] = field(default_factory=list)
    patients: dict[Split, set[str]] = field(default_factory=lambda: {split: set() for split in Split})
    left_out: Counter[Unusable] = field(default_factory=Counter)


def freeze(
    definition: CohortDefinition,
    cases: Sequence[CaseSource],
    out_root: Path,
    key: CohortKey,
    *,
    pool: DecoderPool | None = None,
    cache: VolumeCache | None = None,
) -> FrozenCohort | Refused:
    """Write the cohort that `definition` asks for from `cases`.

    1. A kind of cohort that this version cannot lay out is refused.
    2. Cases of splits that this kind of train is not given are dropped, before anything of them is read.
    3. A case without what the definition needs is left out and counted.
    4. Each file is verified and read in a process apart, and its image written under the train's pseudonym: one volume
       at a time, its slices as they come.
    5. Fewer patients than the policy's minimum: refused, and nothing stays on disk.
    6. Documents are written, everything is synced, made read-only, hashed and renamed into place.

    Args:
        definition: what the policy grants and the train asks for.
        cases: of patients whose consent was checked just now.
        out_root: the folder for cohorts; made when missing.
        key: the station's cohort key.
        pool: decoder processes to use; None starts some for this freeze.
        cache: volumes made before; None makes each anew.

    Raises:
        StorageError: the disk is full or cannot be written; nothing stays.
        UnavailableError: no decoder process can be started.
    """
    if refused := unsupported(definition):
        return refused
    temporary = out_root / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        # 0711: a container's user reaches the folder that is mounted for it, and can list no other.
        out_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        for name in subfolders(definition):
            (temporary / DATA / name).mkdir(parents=True, mode=0o755)
        try:
            making = _Making(definition, key, temporary / DATA)
            usable = _select(making, cases)
            if definition.images:
                with nullcontext(pool) if pool else DecoderPool() as decoders:
                    _lay_images(making, Layer(definition, key, making.folder, decoders, cache).lay(usable))
            else:
                # A train without a program reads no image, so none is decoded.
                _lay_images(making, ((case, LaidImage("")) for case in usable))
            found = sum(len(patients) for patients in making.patients.values())
            if found < definition.minimum_patients:
                return Refused.because(
                    RefusalCode.DATA_TOO_FEW_PATIENTS,
                    f"{found} patients can be used, the policy asks for {definition.minimum_patients}",
                )
            return _put_in_place(making, out_root)
        finally:
            if temporary.exists():
                remove_tree(temporary)
    except OSError as error:
        raise StorageError(
            f"a cohort cannot be written ({error.strerror})", hint="Free disk space."
        ) from error


def _select(making: _Making, cases: Sequence[CaseSource]) -> list[CaseSource]:
    """Return the cases to decode, sorted by case; count what is missing something."""
    usable: list[CaseSource] = []
    seen: set[str] = set()
    for case in sorted(cases, key=lambda source: source.case):
        if making.key.split_of(case.patient) not in making.definition.splits:
            continue
        if case.case in seen:
            making.left_out[Unusable.DUPLICATE] += 1
        elif reason := _missing(making.definition, case):
            making.left_out[reason] += 1
        else:
            seen.add(case.case)
            usable.append(case)
    return usable


def _missing(definition: CohortDefinition, case: CaseSource) -> Unusable | None:
    if case.modality not in definition.modalities:
        return Unusable.MODALITY
    if case.recognizable_face:
        return Unusable.RECOGNIZABLE_FACE
    if definition.view_positions and case.view_position not in definition.view_positions:
        return Unusable.VIEW_POSITION
    if not case.files or (len(case.files) > 1 and not definition.volumes):
        return Unusable.UNREADABLE
    if not set(definition.masks) <= {name for mask in case.masks for name in mask.names}:
        return Unusable.MASK_MISSING
    if definition.label is not None:
        if case.label is None:
            return Unusable.LABEL_MISSING
        if not isinstance(case.label, int | float) or not math.isfinite(case.label):
            return Unusable.LABEL_INVALID
    for name in definition.clinical_fields:
        value = case.clinical.get(name)
        if not isinstance(value, str | int | float | None) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            return Unusable.CLINICAL_INVALID
    return None


def _lay_images(making: _Making, laid: Iterable[tuple[CaseSource, LaidImage | Unusable]]) -> None:
    scope, key, definition = making.definition.scope, making.key, making.definition
    for case, image in laid:
        if isinstance(image, Unusable):
            making.left_out[image] += 1
            continue
        split = key.split_of(case.patient)
        making.laid.append(
            LaidCase(
                case=key.case_id(scope, case.case),
                patient=key.patient_id(scope, case.patient),
                image=image.image,
                mask=image.mask,
                split=split,
                label=int(case.label) if isinstance(case.label, bool) else case.label,
                clinical=shown_fields(definition, case, key.shift_s(scope, case.patient)),
            )
        )
        making.patients[split].add(case.patient)


def _put_in_place(making: _Making, out_root: Path) -> FrozenCohort:
    # By the train's pseudonym: the order of the project's keys, which is another train's order too, must not show.
    laid = sorted(making.laid, key=lambda case: case.case)
    write_documents(making.folder, making.definition, laid)
    seal(making.folder)
    digest = digest_folder(making.folder)
    receipt = Receipt(
        digest=digest,
        patients={split: tuple(sorted(patients)) for split, patients in making.patients.items()},
        images={split: sum(case.split is split for case in laid) for split in Split},
        most_images_of_one={split: _most_of_one(laid, split) for split in Split},
        left_out=dict(making.left_out),
    )
    temporary = making.folder.parent
    write_file(temporary / RECEIPT, canonical_json(receipt), mode=0o600)
    sync_folder(temporary)
    temporary.chmod(0o711)
    # Two runs may freeze the same cohort: each owns, and wipes, its own folder.
    final = out_root / f"{digest.removeprefix('sha256:')[:16]}-{secrets.token_hex(4)}"
    os.rename(temporary, final)  # noqa: PTH104 - must fail, not merge, when the name is taken
    sync_folder(out_root)
    return load(final / DATA)


def _most_of_one(laid: Sequence[LaidCase], split: Split) -> int:
    return max(Counter(case.patient for case in laid if case.split is split).values(), default=0)
