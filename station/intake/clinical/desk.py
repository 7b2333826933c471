"""The use cases of clinical data: mappings, a trial reading, an import, the history of one patient.

An import is one transaction: what an export says is taken over whole or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import DataError, NotFoundError, UsageError
from policies.profiles import DEFAULT_PROFILE, load_profile
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.clinical import handing, history, register
from station.intake.clinical.export import Reading, read_export
from station.intake.clinical.mapping import ExportMapping, plain_mapping, read_mapping
from station.intake.clinical.report import ExportRefusedError, ValidationReport
from station.intake.clinical.tables import MappingRow
from station.pseudonymisation.keys import ProjectKeys


@dataclass(frozen=True, slots=True)
class MappingCard:
    """A mapping that intake knows."""

    digest: str
    name: str
    source: str
    profile: str


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """How an export is to be imported.

    Attributes:
        profile: read under the built-in mapping of this profile, where no mapping is named.
        mapping: digest of a mapping that intake knows.
        skip_wrong_rows: leave out the rows that are wrong; otherwise one of them refuses the export.
        complete: the export names all rows there are; the others lose what it covers.
        by: who asks.
    """

    profile: str = DEFAULT_PROFILE
    mapping: str | None = None
    skip_wrong_rows: bool = False
    complete: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True)
class ClinicalReport:
    """What an import of an eCRF export did.

    Attributes:
        rows: rows of the export.
        refused: rows that are wrong and were left out.
        skipped: rows that the mapping leaves out.
        added, corrected, emptied, unchanged: what the rows did; `emptied` are those a complete export does not name.
        linked: rows of the collection whose study is here; the others wait for it.
        handed_over: studies of which compute was told something new.
        validation: what was found in the file.
    """

    rows: int
    refused: int
    skipped: int
    added: int
    corrected: int
    emptied: int
    unchanged: int
    linked: int
    handed_over: int
    validation: ValidationReport


class ClinicalDesk:
    """Clinical data in intake.

    Args:
        books: intake's books.
        keys: the project's.
        keeps_dates: whether a collection keeps shifted dates.
    """

    def __init__(
        self,
        books: Books,
        keys: ProjectKeys,
        *,
        keeps_dates: Callable[[str], bool] = lambda _collection: True,
    ) -> None:
        self._books = books
        self._keys = keys
        self._keeps_dates = keeps_dates

    def add_mapping(self, data: bytes) -> MappingCard:
        """Take a mapping file in, to be named by its digest; the same file again is the same mapping.

        Raises:
            DocumentError: it is not a mapping, or does not fit its profile; naming the key and the line.
            NotFoundError: its profile is not known.
        """
        mapping, digest = read_mapping(data), digest_of(data)
        with self._books.lock, self._books.database.write() as session:
            if session.get(MappingRow, digest) is None:
                session.add(MappingRow(digest=digest, name=mapping.name, document=data))
        return MappingCard(digest, mapping.name, mapping.source, mapping.profile)

    def validate(self, data: bytes, order: ImportOrder) -> ValidationReport:
        """Read an export without taking anything from it.

        Raises:
            CsvError: the file is not a table with the mapping's columns.
            NotFoundError: the mapping or the profile is not known.
        """
        return self._read(data, self._mapping(order)).report

    def import_export(self, data: bytes, collection: str, order: ImportOrder) -> ClinicalReport:
        """Take an export over; rows whose study is not here yet wait for it.

        Raises:
            ExportRefusedError: rows are wrong; nothing is taken over.
            CsvError: the file is not a table with the mapping's columns.
            DataError: the export is said to be complete and has no rows.
            NotFoundError: the mapping or the profile is not known.
        """
        mapping = self._mapping(order)
        reading = self._read(data, mapping)
        report = reading.report
        if report.refused and not order.skip_wrong_rows:
            raise ExportRefusedError("ecrf.csv", report)
        if order.complete and (report.refused or not reading.entries):
            raise DataError(
                "an export that is said to be complete has no rows, or rows that are wrong",
                hint="It would take away what the others say. Correct it, or import it without --complete.",
            )
        now = self._books.clock()
        source = register.Provenance(
            collection, mapping, order.mapping, digest_of(data), order.complete, now, order.by[:64]
        )
        with self._books.decide() as session:
            changes = register.store(session, source, reading.entries)
            fields: dict[str, str | int] = {
                "collection": collection, "profile": mapping.profile, "mapping": mapping.name,
                "source": source.source_digest, "rows": report.rows, "refused": report.refused,
                "added": changes.added, "corrected": changes.corrected, "emptied": changes.emptied, "by": source.imported_by,
            }  # fmt: skip
            record(session, IntakeEvent.CLINICAL_IMPORTED, fields, now=now)
            handed = self.hand_over(session)
        return ClinicalReport(
            rows=report.rows,
            refused=report.refused,
            skipped=report.skipped,
            added=changes.added,
            corrected=changes.corrected,
            emptied=changes.emptied,
            unchanged=changes.unchanged,
            linked=handed.linked.get(collection, 0),
            handed_over=handed.studies,
            validation=report,
        )

    def history(self, patient_id: str, issuer: str | None, *, by: str) -> list[history.RowHistory]:
        """Return what is on record of one patient, by the hospital's own id; that somebody asked is audited first.

        Raises:
            UsageError: who asks is not said.
            NotFoundError: nothing is on record.
        """
        if not by:
            raise UsageError("who asks for a patient's history must be said")
        with self._books.lock, self._books.database.write() as session:
            found = history.of_patient(session, issuer, patient_id)
            patients = handing.pseudonyms_by_id(session).get(patient_id, {})
            named = patients.values() if issuer is None else [patients.get(issuer, "")]
            fields: dict[str, str | int] = {
                "by": by[:64],
                "patients": " ".join(sorted(set(named))),
                "rows": len(found),
            }
            record(session, IntakeEvent.CLINICAL_HISTORY_READ, fields, now=self._books.clock())
        if not found:
            raise NotFoundError("there are no clinical data of this patient")
        return found

    def hand_over(self, session: Session) -> handing.Handed:
        """Put in the outbox what new studies and corrected rows make due, within the caller's transaction."""
        return handing.hand_over(session, self._keys, keeps_dates=self._keeps_dates, now=self._books.clock())

    def mappings(self) -> list[MappingCard]:
        """Return the mappings that were taken in."""
        with self._books.database.read() as session:
            rows = session.execute(select(MappingRow.digest, MappingRow.document).order_by(MappingRow.name))
            found = [(digest, read_mapping(document)) for digest, document in rows]
        return [
            MappingCard(digest, mapping.name, mapping.source, mapping.profile) for digest, mapping in found
        ]

    def _mapping(self, order: ImportOrder) -> ExportMapping:
        if order.mapping is None:
            return plain_mapping(load_profile(order.profile))
        with self._books.database.read() as session:
            row = session.get(MappingRow, order.mapping)
            document = row.document if row else None
        if document is None:
            raise NotFoundError("there is no such mapping", hint="Take the mapping file in first.")
        return read_mapping(document)

    @staticmethod
    def _read(data: bytes, mapping: ExportMapping) -> Reading:
        return read_export(data, load_profile(mapping.profile), mapping)
