"""What compute gets of the clinical rows: of each study that is here, every field of the profile, when any of it changed.

Works within the caller's transaction. What compute was told of a study is remembered by what it was made of (rows, versions, the
study's patient), so that nothing is told twice and nothing that changed is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from policies.profiles import ClinicalValue, Profile, load_profile
from station.handover import ClinicalContent, ClinicalRow
from station.intake import outbox
from station.intake.clinical.linking import KnownStudy, StoredRow, patient_of, studies_of, values_at
from station.intake.clinical.register import current_rows
from station.intake.clinical.tables import ClinicalHandedRow, ClinicalRowRow, ClinicalVersionRow
from station.intake.schema import MergeRow, PatientRow, StudyRow
from station.pseudonymisation.keys import ProjectKeys

_ROWS_PER_ENTRY = 2000
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
        keys: the project's, for pseudonyms of merged patients and for shifts.
        keeps_dates: whether a collection keeps shifted dates.
        now: for the audit.
    """
    linked: Counter[str] = Counter()
    told_of = 0
    pairs = select(ClinicalRowRow.collection, ClinicalRowRow.profile).distinct()
    for collection, profile in session.execute(pairs.order_by("collection", "profile")).all():
        rows = [_stored(row, version) for row, version in current_rows(session, collection, profile).values()]
        by_study = _by_study(session, rows, keys)
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
    for study_uid in sorted(by_study.keys() | handed.keys()):
        found, before = by_study.get(study_uid), handed.get(study_uid)
        made_of = _made_of(found, shifts)
        if before is not None and before.made_of == made_of:
            continue
        values: dict[str, ClinicalValue] = dict.fromkeys(field.name for field in profile.fields)
        patient = before.patient if before else ""
        if found is not None:
            patient = found.study.patient
            values = values_at(found.rows, profile, found.study, shifts.of(patient))
        row = ClinicalRow(patient=patient, study_uid=study_uid, values=values)
        digest = digest_of(canonical_json(row.model_dump(mode="json")))
        if before is None:
            session.add(
                ClinicalHandedRow(
                    collection=collection,
                    profile=profile.id,
                    study_uid=study_uid,
                    patient=patient,
                    made_of=made_of,
                    digest=digest,
                )
            )
            yield row
            continue
        changed = before.digest != digest
        before.made_of, before.digest, before.patient = made_of, digest, patient
        if changed:
            yield row


def _stored(row: ClinicalRowRow, version: ClinicalVersionRow) -> StoredRow:
    return StoredRow(
        id=row.id,
        version=row.version,
        issuer=row.issuer,
        patient_id=row.patient_id,
        accession=row.accession,
        day=date.fromisoformat(row.day) if row.day else None,
        link=row.link,
        days_before=row.days_before,
        days_after=row.days_after,
        every=row.every,
        fields=version.fields,
        dates=version.dates,
    )


def _by_study(session: Session, rows: list[StoredRow], keys: ProjectKeys) -> dict[str, _Linked]:
    bearers = pseudonyms_by_id(session, keys)
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


def pseudonyms_by_id(session: Session, keys: ProjectKeys) -> dict[str, dict[str, str]]:
    """Return the pseudonyms of everybody whose images are here, by id and issuer, also by ids they had before a merge."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in session.scalars(select(PatientRow)):
        found[row.patient_id][row.issuer] = row.pseudonym
    merges = {
        (row.old_issuer, row.old_id): (row.new_issuer, row.new_id)
        for row in session.scalars(select(MergeRow))
    }
    for issuer, patient_id in merges:
        known_by, steps = (issuer, patient_id), 0
        while known_by in merges and steps <= len(merges):
            known_by, steps = merges[known_by], steps + 1
        found[patient_id][issuer] = keys.pseudonym(*known_by)
    return dict(found)


def _studies(session: Session) -> Iterator[KnownStudy]:
    # Whose a disputed study is, nobody knows yet.
    clear = select(StudyRow).where(StudyRow.standing != _DISPUTED).order_by(StudyRow.study_uid)
    for row in session.scalars(clear):
        yield KnownStudy(row.study_uid, row.patient, row.accession, _study_day(row.study_date))


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

    def of(self, pseudonym: str) -> int | None:
        patient = self._session.get(PatientRow, pseudonym) if self.kept else None
        return self._keys.shift(patient.issuer, patient.patient_id).days if patient else None


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
