"""Clinical rows in intake's database: versions that are only added to.

Each function works within the caller's transaction. An export says what is known now of the rows it names, in the fields it
covers: an empty cell there is an answer too (nothing is known any more). Rows that it does not name stay as they are, unless it
is said to be complete; then those that are linked as its rows are lose the fields it covers.
"""

from collections import Counter
from collections.abc import Iterable
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


class _Writer:
    """Writes versions; the import's own row with the first of them."""

    def __init__(self, session: Session, provenance: Provenance) -> None:
        self._session = session
        self._from = provenance
        self._import: int | None = None

    def add(self, row: ClinicalRowRow, fields: dict[str, ClinicalValue], dates: dict[str, str]) -> None:
        row.version = (row.version or 0) + 1
        self._session.flush()
        self._session.add(
            ClinicalVersionRow(
                row=row.id, version=row.version, import_id=self._import_id(), fields=fields, dates=dates
            )
        )

    def _import_id(self) -> int:
        if self._import is None:
            source = self._from
            entry = ClinicalImportRow(
                collection=source.collection,
                profile=source.mapping.profile,
                mapping=source.mapping.name,
                mapping_digest=source.mapping_digest,
                source_digest=source.source_digest,
                complete=source.complete,
                imported_at=source.imported_at,
                imported_by=source.imported_by,
            )
            self._session.add(entry)
            self._session.flush()
            self._import = entry.id
        return self._import


def store(session: Session, provenance: Provenance, entries: Iterable[ClinicalEntry]) -> Changes:
    """Take an export's rows over; the same export again changes nothing."""
    mapping, counts, named = provenance.mapping, Counter[str](), set[int]()
    known = current_rows(session, provenance.collection, mapping.profile)
    writer = _Writer(session, provenance)
    for entry in entries:
        found = known.get(entry.key)
        row = found[0] if found else _new_row(session, provenance, entry.key)
        _set_link(row, mapping)
        old = found[1] if found else None
        fields, dates = _merged(old, entry, mapping)
        if old is not None and (dict(old.fields), dict(old.dates)) == (fields, dates):
            counts["unchanged"] += 1
        else:
            counts["corrected" if found else "added"] += 1
            writer.add(row, fields, dates)
        session.flush()
        named.add(row.id)
    if provenance.complete:
        counts["emptied"] = _empty_others(writer, known.values(), mapping, named)
    session.flush()
    return Changes(**counts)


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


def _new_row(session: Session, provenance: Provenance, key: RowKey) -> ClinicalRowRow:
    row = ClinicalRowRow(
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
    session.add(row)
    return row


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
    writer: _Writer,
    known: Iterable[tuple[ClinicalRowRow, ClinicalVersionRow]],
    mapping: ExportMapping,
    named: set[int],
) -> int:
    emptied = 0
    for row, version in known:
        if row.id in named or row.link != mapping.study.by:
            continue
        fields = {name: None if name in mapping.fields else value for name, value in version.fields.items()}
        dates = {name: day for name, day in version.dates.items() if name not in mapping.fields}
        if (fields, dates) != (dict(version.fields), dict(version.dates)):
            writer.add(row, fields, dates)
            emptied += 1
    return emptied
