"""Holds what is about to leave against everything that the same requester was told before, and keeps what left.

    judge (outside any transaction: it may take seconds) -> settle_in and note_in (in the one that records the release)

Invariant: of two releases that are made at once, the one recorded second is compared with the first before it is recorded: `judge`
remembers how far it has seen, and `settle_in` looks at what came since, in the transaction that makes the release.

What is stored says who (by number) was counted and how they lay in the cells, nothing of what was counted but what a sum was of.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from policies.refusals import Reason, RefusalCode, Refused
from station.egress.differencing.comparing import Told, Verdict, problem_between
from station.egress.differencing.requesters import same_requester
from station.egress.differencing.storing import pack_content, pack_patients, unpack, unpack_patients
from station.egress.differencing.tables import DifferenceRow, DifferenceSetRow, NumberedPatientRow
from station.storage.database import Database

MOST_COMPARED: Final = 20_000
"""Tables and metrics of earlier releases that a new one is held against; with more, it is refused."""
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Asker:
    """Who is told, under which order.

    Attributes:
        key: the requester's signing key, as the policy has it.
        organisation: likewise.
        order_digest: whose release it is.
    """

    key: str
    organisation: str
    order_digest: str


class Differences:
    """The guard against differences.

    Args:
        database: the station's compute database.
        clock: tells the time.
        everyone: whether releases to every requester count, as if all were one.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], *, everyone: bool = False) -> None:
        self._database = database
        self._clock = clock
        self._everyone = everyone

    def numbers(self, patients: Iterable[str]) -> NDArray[np.int64]:
        """Return each patient's number, in the same order; who has none gets one.

        Raises:
            StorageError: it cannot be stored.
        """
        wanted = list(patients)
        known = self._known(wanted)
        if fresh := sorted(set(wanted) - known.keys()):
            with self._database.write() as session:
                taken = set(session.scalars(select(NumberedPatientRow.patient)))
                rows = [{"patient": patient} for patient in fresh if patient not in taken]
                if rows:
                    session.execute(insert(NumberedPatientRow), rows)
            known = self._known(wanted)
        return np.array([known[patient] for patient in wanted], np.int64)

    def _known(self, wanted: list[str]) -> dict[str, int]:
        asked = select(NumberedPatientRow.patient, NumberedPatientRow.number).where(
            # One parameter, however many patients.
            NumberedPatientRow.patient.in_(select(func.json_each(json.dumps(wanted)).table_valued("value").c.value))
        )  # fmt: skip
        with self._database.read() as session:
            return {patient: number for patient, number in session.execute(asked) if patient is not None}

    def judge(self, asker: Asker, told: Iterable[Told]) -> Verdict:
        """Compare what a release would tell with all that the requester was told, and with each other.

        Raises:
            StorageError, StateError: the records cannot be read.
        """
        good: list[Told] = []
        left_out: dict[str, str] = {}
        with self._database.read() as session:
            seen = session.scalar(select(func.max(DifferenceRow.number))) or 0
            earlier = self._rows(session, asker, 0)
            for one in told:
                if len(earlier) > MOST_COMPARED:
                    left_out[one.what] = f"more than {MOST_COMPARED} earlier figures to compare with"
                    continue
                why = next((found for other in good if (found := problem_between(one, other))), None)
                if why := why or self._problem(session, one, earlier):
                    left_out[one.what] = why
                else:
                    good.append(one)
        return Verdict(tuple(good), left_out, seen)

    def settle_in(self, session: Session, asker: Asker, verdict: Verdict) -> Refused | None:
        """Compare with what was recorded since the verdict, in the transaction that records the release."""
        later = self._rows(session, asker, verdict.seen)
        for one in verdict.told:
            if why := self._problem(session, one, later):
                return Refused((Reason(RefusalCode.RELEASE_DIFFERENCE, f"{one.what}: {why}"),))
        return None

    def note_in(self, session: Session, asker: Asker, verdict: Verdict) -> None:
        """Keep what is told, in the transaction that records the release."""
        now = self._clock()
        for one in verdict.told:
            patients, content = pack_patients(one), pack_content(one)
            for digest, data in (patients, content):
                if session.get(DifferenceSetRow, digest) is None:
                    session.add(DifferenceSetRow(digest=digest, content=data))
                    session.flush()
            same = session.scalars(
                select(DifferenceRow).where(
                    DifferenceRow.requester_key == asker.key,
                    DifferenceRow.organisation == asker.organisation,
                    DifferenceRow.measure == one.measure,
                    DifferenceRow.minimum == one.minimum,
                    DifferenceRow.patients == patients[0],
                    DifferenceRow.content == content[0],
                )
            ).first()
            if same is not None:
                same.last_told = max(same.last_told, now)
                continue
            session.add(
                DifferenceRow(
                    requester_key=asker.key,
                    organisation=asker.organisation,
                    order_digest=asker.order_digest,
                    what=one.what,
                    measure=one.measure,
                    minimum=one.minimum,
                    patients=patients[0],
                    content=content[0],
                    last_told=now,
                )
            )
            session.flush()

    def forget(
        self,
        before: datetime | None,
        usable: Callable[[Session], set[str]],
        note: Callable[[Session, int, int], None],
    ) -> tuple[int, int]:
        """Remove what is over the hospital's term, and the pseudonyms of those who may be used for nothing any more.

        Args:
            before: told last before this; None for no term.
            usable: returns the pseudonyms of whom something is still there.
            note: puts on record how many figures and pseudonyms go, in the same transaction.

        Returns:
            How many figures went, and how many pseudonyms.
        """
        with self._database.write() as session:
            gone = 0
            if before is not None:
                result = session.execute(delete(DifferenceRow).where(DifferenceRow.last_told < before))
                gone = int(getattr(result, "rowcount", 0))
            if gone:
                _drop_unnamed(session)
            named = {one for one in session.scalars(select(NumberedPatientRow.patient)) if one is not None}
            over = sorted(named - usable(session)) if named else []
            for start in range(0, len(over), _PAGE):
                session.execute(
                    update(NumberedPatientRow)
                    .where(NumberedPatientRow.patient.in_(over[start : start + _PAGE]))
                    .values(patient=None)
                )
            if gone or over:
                note(session, gone, len(over))
        return gone, len(over)

    def _rows(self, session: Session, asker: Asker, after: int) -> list[int]:
        """Return the numbers of the rows that count, oldest first."""
        query = (
            select(DifferenceRow.number).where(DifferenceRow.number > after).order_by(DifferenceRow.number)
        )
        if not self._everyone:
            who = DifferenceRow.requester_key, DifferenceRow.organisation
            known = [(key, name) for key, name in session.execute(select(*who).distinct())]
            same = same_requester((asker.key, asker.organisation), known)
            query = query.where(tuple_(*who).in_(sorted(same)))
        return list(session.scalars(query))

    def _problem(self, session: Session, one: Told, rows: list[int]) -> str | None:
        for other in _stored(session, one, rows):
            if why := problem_between(one, other):
                return why
        return None


def _stored(session: Session, besides: Told, rows: list[int]) -> Iterator[Told]:
    """Yield what rows say, but for those that say the very same."""
    patients, content = aliased(DifferenceSetRow), aliased(DifferenceSetRow)
    mine = pack_patients(besides)[0], pack_content(besides)[0]
    for start in range(0, len(rows), _PAGE):
        query = (
            select(DifferenceRow, patients.content, content.content)
            .join(patients, patients.digest == DifferenceRow.patients)
            .join(content, content.digest == DifferenceRow.content)
            .where(DifferenceRow.number.in_(rows[start : start + _PAGE]))
            .order_by(DifferenceRow.number)
        )
        for row, who, cells in session.execute(query):
            if (row.patients, row.content) != mine:
                yield unpack((f"{row.what} of an earlier release", row.measure, row.minimum), who, cells)


def _drop_unnamed(session: Session) -> None:
    """Remove the sets that no row names, and the patients who are in none that is left."""
    named = select(DifferenceRow.patients).union(select(DifferenceRow.content))
    session.execute(delete(DifferenceSetRow).where(DifferenceSetRow.digest.not_in(named)))
    query = select(DifferenceSetRow.content).where(
        DifferenceSetRow.digest.in_(select(DifferenceRow.patients))
    )
    left: set[int] = set()
    for data in session.scalars(query):
        left |= set(unpack_patients(data).tolist())
    for number in session.scalars(select(NumberedPatientRow.number)).all():
        if number not in left:
            session.execute(delete(NumberedPatientRow).where(NumberedPatientRow.number == number))
