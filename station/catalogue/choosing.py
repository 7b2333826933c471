"""The choice of a cohort's cases: by consent, collection, modality and body part, with their clinical rows."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.policy import ConsentMode
from station.catalogue.consent import ConsentState, consenting
from station.catalogue.tables import Clinical, Instance
from station.cohorts import CaseSource, CohortDefinition, JsonScalar, SourceFile
from station.handover import instance_path


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
    query = select(Instance).where(
        Instance.collection.in_(usable),
        Instance.modality.in_([str(modality) for modality in definition.modalities]),
        Instance.body_part == definition.body_part,
    )
    chosen: dict[str, CaseSource] = {}
    for instance in session.scalars(query.order_by(Instance.sop_instance_uid, Instance.collection)):
        decisions = consent.decisions.get(instance.patient, ())
        if not consenting(decisions, definition.consent_purposes, usable[instance.collection]):
            continue
        clinical = fields.get((instance.collection, instance.patient, instance.study_uid), {})
        label = clinical.get(definition.label) if definition.label else None
        # One image may stand in two collections; it is one case.
        chosen.setdefault(
            instance.sop_instance_uid,
            CaseSource(
                case=instance.sop_instance_uid,
                patient=instance.patient,
                study=instance.study_uid,
                files=(SourceFile(instance_path(handover, instance.file), instance.file),),
                label=None if isinstance(label, str) else label,
                clinical={name: clinical.get(name) for name in definition.clinical_fields},
                modality=instance.modality,
                view_position=instance.view_position,
            ),
        )
    return tuple(chosen.values())


def _clinical_fields(
    session: Session, definition: CohortDefinition, usable: Mapping[str, ConsentMode]
) -> dict[tuple[str, str, str], Mapping[str, JsonScalar]]:
    """Return the clinical row of each (collection, patient, study) under the definition's profile."""
    query = select(Clinical).where(Clinical.collection.in_(usable), Clinical.profile == definition.profile)
    return {(row.collection, row.patient, row.study_uid): row.fields for row in session.scalars(query)}
