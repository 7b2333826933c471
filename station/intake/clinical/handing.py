"""What compute gets of the clinical rows: of each study that is here, every field of the profile, when any of it changed.

Works within the caller's transaction. What compute was told of a study is remembered by what it was made of (rows, versions, the
study's patient), so that nothing is told twice and nothing that changed is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from policies.profiles import ClinicalValue, Profile, load_profile
from station.handover import ClinicalContent, ClinicalRow
from station.intake import outbox
from station.intake.clinical.linking import KnownStudy, StoredRow, patient_of, studies_of, values_at
from station.intake.clinical.tables import ClinicalHandedRow, ClinicalRowRow, ClinicalVersionRow
from station.intake.merges.register import known_patients
from station.intake.schema import PatientRow, StudyRow
from station.pseudonymisation.keys import ProjectKeys

_ROWS_PER_ENTRY = 2000
_ROWS_PER_QUERY = 5000
_NOTHING = "sha256:" + "0" * 64
"""What a study is made of that no row belongs to any more."""

_DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of the rows: by collection, how many belong to a study that is here; and of how many studies compute was told."""

    linked: dict[str, int]
    studies: int


@dataclass(frozen=True, slots=True)
class _Linked:
    """A study with the rows that belong to it."""

    study: KnownStudy
    rows: list[StoredRow]


def hand_over(
    session: Session, keys: ProjectKeys, *, keeps_dates: Callable[[str], bool], now: datetime
) -> Handed:
    """Put in the outbox what is new or changed of the studies that are here.

    Args:
        session: the caller's transaction.
        keys: the project's, for shifts.
        keeps_dates: whether a collection keeps shifted dates.
        now: for the audit.
    """
    linked: Counter[str] = Counter()
    told_of = 0
    pairs = select(ClinicalRowRow.collection, ClinicalRowRow.profile).distinct()
    for collection, profile in session.execute(pairs.order_by("collection", "profile")).all():
        rows = list(_rows(session, collection, profile))
        by_study = _by_study(session, rows)
        linked[collection] += len({row.id for found in by_study.values() for row in found.rows})
        shifts = _Shifts(session, keys, kept=keeps_dates(collection))
        told = list(_due(session, (collection, load_profile(profile)), by_study, shifts))
        told_of += len(told)
        for start in range(0, len(told), _ROWS_PER_ENTRY):
            part = tuple(told[start : start + _ROWS_PER_ENTRY])
            content = ClinicalContent(collection=collection, profile=profile, rows=part)
            outbox.enqueue(session, content, len(part), now=now)
    return Handed(dict(linked), told_of)


def _due(
    session: Session, where: tuple[str, Profile], by_study: dict[str, _Linked], shifts: "_Shifts"
) -> Iterator[ClinicalRow]:
    """Yield what compute must be told, and note it as told."""
    collection, profile = where
    handed = _handed(session, collection, profile.id)
    made_of = {uid: _made_of(by_study.get(uid), shifts) for uid in by_study.keys() | handed.keys()}
    changed = sorted(uid for uid, made in made_of.items() if uid not in handed or handed[uid].made_of != made)
    said = _said(session, {row.id for uid in changed if uid in by_study for row in by_study[uid].rows})
    for study_uid in changed:
        found, before = by_study.get(study_uid), handed.get(study_uid)
        values: dict[str, ClinicalValue] = dict.fromkeys(field.name for field in profile.fields)
        patient = before.patient if before else ""
        if found is not None:
            patient = found.study.patient
            rows = [replace(row, fields=said[row.id][0], dates=said[row.id][1]) for row in found.rows]
            values = values_at(rows, profile, found.study, shifts.of(patient))
        row = ClinicalRow(patient=patient, study_uid=study_uid, values=values)
        digest = digest_of(canonical_json(row.model_dump(mode="json")))
        if before is None:
            before = ClinicalHandedRow(
                collection=collection, profile=profile.id, study_uid=study_uid, digest=""
            )
            session.add(before)
        told = before.digest
        before.made_of, before.digest, before.patient = made_of[study_uid], digest, patient
        if told != digest:
            yield row
    session.flush()


def _rows(session: Session, collection: str, profile: str) -> Iterator[StoredRow]:
    """Yield the rows of a collection under a profile, without what they say: most have nothing new to say."""
    table = ClinicalRowRow
    columns = select(
        table.id, table.version, table.issuer, table.patient_id, table.accession, table.day, table.link,
        table.days_before, table.days_after, table.every,
    )  # fmt: skip
    for found in session.execute(columns.where(table.collection == collection, table.profile == profile)):
        number, version, issuer, patient_id, accession, day, link, before, after, every = found
        when = date.fromisoformat(day) if day else None
        yield StoredRow(
            number, version, issuer, patient_id, accession, when, link, before, after, every, {}, {}
        )


def _said(session: Session, rows: set[int]) -> dict[int, tuple[dict[str, ClinicalValue], dict[str, str]]]:
    """Return what rows say now: their fields, and dates from which others are computed."""
    found: dict[int, tuple[dict[str, ClinicalValue], dict[str, str]]] = {}
    ordered = sorted(rows)
    for start in range(0, len(ordered), _ROWS_PER_QUERY):
        part = ordered[start : start + _ROWS_PER_QUERY]
        current = (
            select(ClinicalVersionRow.row, ClinicalVersionRow.fields, ClinicalVersionRow.dates)
            .join(
                ClinicalRowRow,
                (ClinicalRowRow.id == ClinicalVersionRow.row)
                & (ClinicalRowRow.version == ClinicalVersionRow.version),
            )
            .where(ClinicalVersionRow.row.in_(part))
        )
        found |= {row: (fields, dates) for row, fields, dates in session.execute(current)}
    return found


def _by_study(session: Session, rows: list[StoredRow]) -> dict[str, _Linked]:
    bearers = pseudonyms_by_id(session)
    studies: defaultdict[str, list[KnownStudy]] = defaultdict(list)
    for study in _studies(session):
        studies[study.patient].append(study)
    found: dict[str, _Linked] = {}
    for row in rows:
        patient = patient_of(row, bearers)
        if patient is None or patient not in studies:
            continue
        for study in studies_of(row, studies[patient]):
            found.setdefault(study.study_uid, _Linked(study, [])).rows.append(row)
    return found


def pseudonyms_by_id(session: Session) -> dict[str, dict[str, str]]:
    """Return the pseudonyms of everybody whose images are here, by id and issuer, also by ids they had before a merge."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for patient in known_patients(session):
        found[patient.patient_id][patient.issuer] = patient.pseudonym
    return dict(found)


def _studies(session: Session) -> Iterator[KnownStudy]:
    # Whose a disputed study is, nobody knows yet.
    columns = select(StudyRow.study_uid, StudyRow.patient, StudyRow.accession, StudyRow.study_date)
    for study_uid, patient, accession, day in session.execute(
        columns.where(StudyRow.standing != _DISPUTED).order_by(StudyRow.study_uid)
    ):
        yield KnownStudy(study_uid, patient, accession, _study_day(day))


def _study_day(text: str) -> date | None:
    """Read a Study Date as it stands in the images: YYYYMMDD."""
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if len(text) == 8 else None
    except ValueError:
        return None


class _Shifts:
    """By how many days each patient's dates are shifted, as in their images."""

    def __init__(self, session: Session, keys: ProjectKeys, *, kept: bool) -> None:
        self._session, self._keys, self.kept = session, keys, kept
        self._patients: dict[str, tuple[str, str]] | None = None

    def of(self, pseudonym: str) -> int | None:
        if not self.kept:
            return None
        if self._patients is None:
            columns = select(PatientRow.pseudonym, PatientRow.issuer, PatientRow.patient_id)
            self._patients = {row: (issuer, key) for row, issuer, key in self._session.execute(columns)}
        patient = self._patients.get(pseudonym)
        return self._keys.shift(*patient).days if patient else None


def _handed(session: Session, collection: str, profile: str) -> dict[str, ClinicalHandedRow]:
    rows = session.scalars(
        select(ClinicalHandedRow).where(
            ClinicalHandedRow.collection == collection, ClinicalHandedRow.profile == profile
        )
    )
    return {row.study_uid: row for row in rows}


def _made_of(found: _Linked | None, shifts: _Shifts) -> str:
    if found is None:
        return _NOTHING
    rows = sorted([row.id, row.version, row.days_before, row.days_after, row.every] for row in found.rows)
    return digest_of(canonical_json([found.study.patient, str(found.study.day), shifts.kept, rows]))
