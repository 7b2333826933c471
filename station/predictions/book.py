"""The predictions on record: kept once each, with who may be in them; and that they went.

Invariant (I6): the record is durable before an object is in its place; one that is in no record is removed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from policies.policy import ConsentPurpose
from station.audit.events import AuditRecord
from station.audit.log import AuditLog
from station.predictions.tables import PredictionRow
from station.storage.database import Database

Why = Literal["withdrawn", "term", "lost"]


@dataclass(frozen=True, slots=True)
class NewPrediction:
    """An object that is made and synced.

    Attributes:
        case, patient: the project's.
        sources: (patient, case, digest) of each file that it lies on, as `Standing` has them.
        file: its name in the folder.
    """

    order_digest: str
    round: int
    case: str
    patient: str
    name: str
    kind: str
    policy_id: str
    purposes: tuple[ConsentPurpose, ...]
    sources: frozenset[tuple[str, str, str | None]]
    file: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeptOfRun:
    """What is kept of one round of an order, in counts.

    Attributes:
        kept: objects that are there.
        removed: that were, and went.
        size_bytes: of those that are there.
    """

    order_digest: str
    round: int
    policy_id: str
    name: str
    kind: str
    kept: int
    removed: int
    size_bytes: int
    written: datetime


class PredictionBook:
    """What is on record."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        """Use the station's compute database."""
        self._database, self._audit = database, audit

    def keep(self, made: Sequence[NewPrediction], record: AuditRecord, now: datetime) -> None:
        """Put objects on record, with the audit's entry, in one transaction; they may be put in their places then.

        Raises:
            StorageError: nothing was recorded.
        """

        def write(session: Session) -> None:
            session.add_all(
                PredictionRow(
                    order_digest=each.order_digest, round=each.round, case=each.case, name=each.name, kind=each.kind,
                    policy_id=each.policy_id, patient=each.patient,
                    purposes=" ".join(sorted(purpose.value for purpose in each.purposes)),
                    sources=sorted(digest for _, _, digest in each.sources if digest is not None),
                    file=each.file, digest=each.digest, size_bytes=each.size_bytes, kept=now, removed=None, why=None,
                )
                for each in made
            )  # fmt: skip

        self._audit.append(record, write)

    def there(self) -> list[PredictionRow]:
        """Return every object that has not gone."""
        with self._database.read() as session:
            query = select(PredictionRow).where(PredictionRow.removed.is_(None))
            return list(session.scalars(query.order_by(PredictionRow.number)))

    def last(self) -> int:
        """Return the last number that was given; 0 for none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(PredictionRow.number))) or 0

    def written(self, order_digest: str, round_: int) -> bool:
        """Whether anything was kept of a round of an order, ever."""
        query = select(PredictionRow.number).where(
            PredictionRow.order_digest == order_digest, PredictionRow.round == round_
        )
        with self._database.read() as session:
            return session.scalar(query.limit(1)) is not None

    def gone(self, numbers: Collection[int], why: Why, now: datetime) -> None:
        """Say that objects went, once each.

        Raises:
            StorageError: it cannot be written.
        """
        with self._database.write() as session:
            for number in numbers:
                session.execute(
                    update(PredictionRow)
                    .where(PredictionRow.number == number, PredictionRow.removed.is_(None))
                    .values(removed=now, why=why)
                )

    def note(self, record: AuditRecord, act: Callable[[Session], None] | None = None) -> None:
        """Put something on the audit's record."""
        self._audit.append(record, act)

    def by_run(self) -> tuple[KeptOfRun, ...]:
        """Return what is kept, in counts, newest first; nobody is named."""
        with self._database.read() as session:
            rows: Iterable[PredictionRow] = session.scalars(
                select(PredictionRow).order_by(PredictionRow.number)
            )
            found: dict[tuple[str, int, str], list[PredictionRow]] = {}
            for row in rows:
                found.setdefault((row.order_digest, row.round, row.name), []).append(row)
        return tuple(
            KeptOfRun(
                order_digest=order,
                round=round_,
                policy_id=rows_[0].policy_id,
                name=name,
                kind=rows_[0].kind,
                kept=sum(row.removed is None for row in rows_),
                removed=sum(row.removed is not None for row in rows_),
                size_bytes=sum(row.size_bytes for row in rows_ if row.removed is None),
                written=rows_[0].kept,
            )
            for (order, round_, name), rows_ in reversed(found.items())
        )
