"""What is on record of one patient: every row with its versions, which import brought which, and what it changed.

For the hospital's own eyes: it names nobody, but it holds what was said of somebody. Whoever asks is audited before they see it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.profiles import ClinicalValue
from station.intake.clinical.tables import ClinicalImportRow, ClinicalRowRow, ClinicalVersionRow


@dataclass(frozen=True, slots=True)
class FieldChange:
    """What one import said anew of one field; a field that is computed from a date shows that date."""

    field: str
    before: ClinicalValue
    after: ClinicalValue


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a row.

    Attributes:
        source_digest: of the export that brought it.
    """

    version: int
    imported_at: datetime
    imported_by: str
    import_id: int
    mapping: str
    source_digest: str
    changes: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class RowHistory:
    """One row of one patient; the last version is the one that compute was told."""

    collection: str
    profile: str
    issuer: str
    link: str
    accession: str
    day: str
    versions: tuple[Version, ...] = field(default_factory=tuple)


def of_patient(session: Session, issuer: str | None, patient_id: str) -> list[RowHistory]:
    """Return the rows of a patient, by the hospital's own id; of every issuer unless one is named."""
    chosen = select(ClinicalRowRow).where(ClinicalRowRow.patient_id == patient_id)
    if issuer is not None:
        chosen = chosen.where(ClinicalRowRow.issuer == issuer)
    return [
        RowHistory(
            row.collection,
            row.profile,
            row.issuer,
            row.link,
            row.accession,
            row.day,
            tuple(_versions(session, row.id)),
        )
        for row in session.scalars(chosen.order_by(ClinicalRowRow.id))
    ]


def _versions(session: Session, row: int) -> Iterator[Version]:
    found = session.execute(
        select(ClinicalVersionRow, ClinicalImportRow)
        .join(ClinicalImportRow, ClinicalImportRow.id == ClinicalVersionRow.import_id)
        .where(ClinicalVersionRow.row == row)
        .order_by(ClinicalVersionRow.version)
    ).all()
    before: dict[str, ClinicalValue] = {}
    for version, source in found:
        after = {**version.fields, **version.dates}
        changes = tuple(
            FieldChange(name, before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        )
        yield Version(
            version.version,
            source.imported_at,
            source.imported_by,
            source.id,
            source.mapping,
            source.source_digest,
            changes,
        )
        before = after
