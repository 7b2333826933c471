"""Clinical rows in intake's database: versions that are only added to.

Each function works within the caller's transaction. An export says what is known now of the rows it names, in the fields it
covers: an empty cell there is an answer too (nothing is known any more). Rows that it does not name stay as they are, unless it
is said to be complete; then those that are linked as its rows are lose the fields it covers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.profiles import ClinicalValue
from station.intake.clinical.export import ClinicalEntry, RowKey
from station.intake.clinical.mapping import ByDate, ExportMapping
from station.intake.clinical.tables import ClinicalImportRow, ClinicalRowRow, ClinicalVersionRow


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an export comes from."""

    collection: str
    mapping: ExportMapping
    mapping_digest: str | None
    source_digest: str
    complete: bool
    imported_at: datetime
    imported_by: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What an export changed, in rows."""

    added: int = 0
    corrected: int = 0
    emptied: int = 0
    unchanged: int = 0

    @property
    def any(self) -> bool:
        """Whether anything did."""
        return bool(self.added or self.corrected or self.emptied)


@dataclass(frozen=True, slots=True)
class _Change:
    """A row and what it says from now on."""

    row: ClinicalRowRow
    fields: dict[str, ClinicalValue]
    dates: dict[str, str]


def store(session: Session, provenance: Provenance, entries: Iterable[ClinicalEntry]) -> Changes:
    """Take an export's rows over; the same export again changes nothing."""
    mapping, counts = provenance.mapping, Counter[str]()
    known = current_rows(session, provenance.collection, mapping.profile)
    changes: list[_Change] = []
    named: set[RowKey] = set()
    for entry in entries:
        found = known.get(entry.key)
        row = found[0] if found else _new_row(provenance, entry.key)
        _set_link(row, mapping)
        named.add(entry.key)
        old = found[1] if found else None
        fields, dates = _merged(old, entry, mapping)
        if old is not None and (dict(old.fields), dict(old.dates)) == (fields, dates):
            counts["unchanged"] += 1
        else:
            counts["corrected" if found else "added"] += 1
            changes.append(_Change(row, fields, dates))
    if provenance.complete:
        emptied = list(_empty_others(known, mapping, named))
        counts["emptied"] = len(emptied)
        changes += emptied
    _write(session, provenance, changes)
    return Changes(**counts)


def _write(session: Session, provenance: Provenance, changes: list[_Change]) -> None:
    """Add a version to each changed row, and the import that brought them."""
    if changes:
        source = ClinicalImportRow(
            collection=provenance.collection,
            profile=provenance.mapping.profile,
            mapping=provenance.mapping.name,
            mapping_digest=provenance.mapping_digest,
            source_digest=provenance.source_digest,
            complete=provenance.complete,
            imported_at=provenance.imported_at,
            imported_by=provenance.imported_by,
        )
        for change in changes:
            change.row.version += 1
        # One statement for all: an id for each new row, then its version.
        session.add_all([source, *(change.row for change in changes)])
        session.flush()
        session.add_all(
            ClinicalVersionRow(
                row=change.row.id,
                version=change.row.version,
                import_id=source.id,
                fields=change.fields,
                dates=change.dates,
            )
            for change in changes
        )
    session.flush()


def current_rows(
    session: Session, collection: str, profile: str
) -> dict[RowKey, tuple[ClinicalRowRow, ClinicalVersionRow]]:
    """Return the rows of a collection under a profile, each with its current version."""
    found = session.execute(
        select(ClinicalRowRow, ClinicalVersionRow)
        .join(
            ClinicalVersionRow,
            (ClinicalVersionRow.row == ClinicalRowRow.id)
            & (ClinicalVersionRow.version == ClinicalRowRow.version),
        )
        .where(ClinicalRowRow.collection == collection, ClinicalRowRow.profile == profile)
    )
    return {
        RowKey(row.issuer, row.patient_id, row.accession, row.day): (row, version) for row, version in found
    }


def _new_row(provenance: Provenance, key: RowKey) -> ClinicalRowRow:
    return ClinicalRowRow(
        collection=provenance.collection,
        profile=provenance.mapping.profile,
        issuer=key.issuer,
        patient_id=key.patient_id,
        accession=key.accession,
        day=key.day,
        link=provenance.mapping.study.by,
        days_before=0,
        days_after=0,
        every=False,
        version=0,
    )


def _set_link(row: ClinicalRowRow, mapping: ExportMapping) -> None:
    """Let a row find its studies as the newest mapping says."""
    if isinstance(mapping.study, ByDate):
        row.days_before, row.days_after = mapping.study.days_before, mapping.study.days_after
        row.every = mapping.study.choose == "every"


def _merged(
    old: ClinicalVersionRow | None, entry: ClinicalEntry, mapping: ExportMapping
) -> tuple[dict[str, ClinicalValue], dict[str, str]]:
    fields = dict(old.fields) if old else {}
    dates = {name: day for name, day in (old.dates if old else {}).items() if name not in mapping.fields}
    return {**fields, **entry.values}, {**dates, **entry.dates}


def _empty_others(
    known: dict[RowKey, tuple[ClinicalRowRow, ClinicalVersionRow]], mapping: ExportMapping, named: set[RowKey]
) -> Iterator[_Change]:
    """Yield the rows that a complete export does not name, without the fields that it covers."""
    for key, (row, version) in known.items():
        if key in named or row.link != mapping.study.by:
            continue
        fields = {name: None if name in mapping.fields else value for name, value in version.fields.items()}
        dates = {name: day for name, day in version.dates.items() if name not in mapping.fields}
        if (fields, dates) != (dict(version.fields), dict(version.dates)):
            yield _Change(row, fields, dates)
