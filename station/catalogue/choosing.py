"""The choice of a cohort's cases: by consent, collection, modality, body part and view, with clinical rows and masks.

A radiograph is a case; so is a CT series, with all its instances that count.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.acquisition import AcquisitionField
from policies.policy import ConsentMode, ConsentPurpose
from station.catalogue.consent import ConsentState, consenting
from station.catalogue.tables import Clinical, Instance, Label
from station.cohorts import CaseSource, CohortDefinition, JsonScalar, MaskSource, SourceFile
from station.handover import instance_path, label_path

# SQLite takes 32 766 values in one statement.
_AT_ONCE = 10_000


def choose(
    session: Session,
    definition: CohortDefinition,
    usable: Mapping[str, ConsentMode],
    consent: ConsentState,
    handover: Path,
) -> tuple[CaseSource, ...]:
    """Return the cases of a cohort, sorted by key.

    Args:
        session: a reading transaction.
        definition: what the policy grants and the train asks for.
        usable: the collections that count, with how their patients were asked.
        consent: the state in force, fresh enough.
        handover: the handover folder, where the files lie.
    """
    fields = _clinical_fields(session, definition, usable)
    masks = _masks(session, definition, usable, handover)
    key = Instance.series_uid if definition.volumes else Instance.sop_instance_uid
    query = select(Instance).where(
        Instance.collection.in_(usable),
        Instance.modality.in_([str(modality) for modality in definition.modalities]),
        Instance.body_part == definition.body_part,
    )
    if definition.view_positions:
        query = query.where(Instance.view_position.in_(definition.view_positions))
    ordered = session.scalars(query.order_by(key, Instance.sop_instance_uid, Instance.collection))
    chosen = []
    for case, rows in groupby(ordered, attrgetter(key.key)):
        instances = [
            row
            for row in rows
            if consenting(
                consent.decisions.get(row.patient, ()), definition.consent_purposes, usable[row.collection]
            )
        ]
        # A series of two patients is nobody's.
        if instances and len({row.patient for row in instances}) == 1:
            chosen.append(_case(case, instances, definition, fields, masks, handover))
    return tuple(chosen)


def no_longer_usable(
    session: Session,
    files: Collection[str],
    consent: ConsentState | None,
    modes: Mapping[str, ConsentMode],
    purposes: Collection[ConsentPurpose] | None = None,
) -> frozenset[str]:
    """Return which of these files no train may be given any more: removed, replaced, or withdrawn for every purpose.

    Args:
        session: a reading transaction.
        files: digests.
        consent: the state in force; None permits nothing.
        modes: per collection, how its patients were asked; a collection that is not there permits nothing.
        purposes: for all of these together instead; without them, for any.
    """
    wanted = sorted(files)
    asked = [(purpose,) for purpose in ConsentPurpose] if purposes is None else [tuple(purposes)]
    usable: set[str] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        query = select(Instance.file, Instance.patient, Instance.collection).where(
            Instance.file.in_(wanted[start : start + _AT_ONCE])
        )
        for file, patient, collection in session.execute(query):
            decisions = consent.decisions.get(patient, ()) if consent is not None else ()
            mode = modes.get(collection)
            if (
                consent is not None
                and mode is not None
                and any(consenting(decisions, together, mode) for together in asked)
            ):
                usable.add(file)
    return frozenset(files) - usable


def _case(
    case: str,
    instances: Sequence[Instance],
    definition: CohortDefinition,
    fields: Mapping[tuple[str, str, str], Mapping[str, JsonScalar]],
    masks: Mapping[tuple[str, str], tuple[MaskSource, ...]],
    handover: Path,
) -> CaseSource:
    # One image may stand in two collections; it is one file. The first collection that knows the study tells of it.
    first = instances[0]
    rows = (fields.get((each.collection, each.patient, each.study_uid)) for each in instances)
    clinical = next((row for row in rows if row is not None), {})
    label = clinical.get(definition.label) if definition.label else None
    files = {each.sop_instance_uid: each.file for each in reversed(instances)}
    looked = [each.recognizable_face for each in instances]
    return CaseSource(
        case=case,
        patient=first.patient,
        study=first.study_uid,
        files=tuple(SourceFile(instance_path(handover, files[uid]), files[uid]) for uid in sorted(files)),
        label=None if isinstance(label, str) else label,
        clinical={name: clinical.get(name) for name in definition.clinical_fields},
        modality=first.modality,
        view_position=first.view_position,
        masks=masks.get((first.patient, first.series_uid), ()),
        recognizable_face=True if any(looked) else None if None in looked else False,
        acquisition={field.value: _agreed(field, instances) for field in definition.acquisition_fields},
    )


_ACQUIRED: Final[Mapping[AcquisitionField, Callable[[Instance], str | float | int | None]]] = {
    AcquisitionField.MANUFACTURER: lambda row: row.manufacturer,
    AcquisitionField.MODALITY: lambda row: row.modality,
    AcquisitionField.VIEW_POSITION: lambda row: row.view_position,
    AcquisitionField.SLICE_THICKNESS: lambda row: row.slice_thickness_mm,
    AcquisitionField.IMAGE_ROWS: lambda row: row.rows,
    AcquisitionField.IMAGE_COLUMNS: lambda row: row.columns,
}
"""Where the catalogue has each of them; a test holds that it has all."""


def _agreed(field: AcquisitionField, instances: Sequence[Instance]) -> JsonScalar:
    """Return what the images of a case agree on; of a series whose slices differ nothing is shown."""
    found = {_ACQUIRED[field](row) for row in instances}
    return found.pop() if len(found) == 1 else None


def _clinical_fields(
    session: Session, definition: CohortDefinition, usable: Mapping[str, ConsentMode]
) -> dict[tuple[str, str, str], Mapping[str, JsonScalar]]:
    """Return the clinical row of each (collection, patient, study) under the definition's profile."""
    query = select(Clinical).where(Clinical.collection.in_(usable), Clinical.profile == definition.profile)
    return {(row.collection, row.patient, row.study_uid): row.fields for row in session.scalars(query)}


def _masks(
    session: Session, definition: CohortDefinition, usable: Mapping[str, ConsentMode], handover: Path
) -> dict[tuple[str, str], tuple[MaskSource, ...]]:
    """Return the masks of each (patient, series) that have a name the definition asks for."""
    found: dict[tuple[str, str], tuple[MaskSource, ...]] = {}
    if not definition.masks:
        return found
    query = select(Label).where(Label.collection.in_(usable))
    for row in session.scalars(query.order_by(Label.series_uid, Label.names, Label.collection)):
        names = tuple(row.names.split())
        if set(names).isdisjoint(definition.masks):
            continue
        source = MaskSource(
            SourceFile(label_path(handover, row.file), row.file),
            "nifti" if row.format == "nifti" else "dicom-seg",
            names,
        )
        series = (row.patient, row.series_uid)
        found[series] = (*found.get(series, ()), source)
    return found
