"""What the hospital's operator reads of the privacy budget: how much is spent of it, by how many, and under which policies.

Numbers of patients, no pseudonyms; for the hospital's own screen.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import Moment, StrictModel
from policies.privacy import Spent, epsilon, spendable
from station.egress.privacy.ledger import PRIVACY_LOST_COUNTER
from station.egress.privacy.tables import PrivacyDrawRow, PrivacyPatientRow, PrivacySpentRow
from station.egress.records.tables import CounterRow, ReleaseRow
from station.storage.database import Database

_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


class SpentBin(StrictModel):
    """So many patients were charged up to this epsilon, and more than the bin before."""

    up_to: float
    patients: int


class PolicySpending(StrictModel):
    """What one policy's noise cost, over all its versions.

    Attributes:
        draws: charged.
        released: of those, answers that were recorded.
        patients: who were charged.
        most: epsilon of the patient who was charged most, at the hospital's delta.
        last: when noise was charged last.
    """

    policy: str
    draws: int
    released: int
    patients: int
    most: float
    last: Moment


class SpendingView(StrictModel):
    """The hospital's budget, and what is spent of it.

    Attributes:
        epsilon, delta: what the hospital grants each patient.
        patients: who were charged at all.
        most: epsilon of the one who was charged most.
        lost: epsilon that counts for everybody since a restore, because nobody knows any more who was charged.
        spent: how many patients, by how much.
        policies: by name.
    """

    epsilon: float
    delta: float
    patients: int
    most: float
    lost: float
    spent: list[SpentBin]
    policies: list[PolicySpending]


@dataclass(frozen=True, slots=True)
class SpendingDesk:
    """Reads what was spent.

    Attributes:
        epsilon, delta: the hospital's budget.
    """

    database: Database
    epsilon: float
    delta: float

    def view(self) -> SpendingView:
        """Return what is spent now."""
        with self.database.read() as session:
            lost = session.scalar(
                select(func.coalesce(func.sum(CounterRow.value), 0)).where(
                    CounterRow.name == PRIVACY_LOST_COUNTER
                )
            )
            patients, most = session.execute(
                select(func.count(), func.coalesce(func.max(PrivacyPatientRow.spent), 0))
            ).one()
            return SpendingView(
                epsilon=self.epsilon,
                delta=self.delta,
                patients=patients,
                most=self._epsilon(most + int(lost or 0)),
                lost=self._epsilon(int(lost or 0)),
                spent=self._bins(session, int(lost or 0)),
                policies=[self._policy(session, name) for name in _policies(session)],
            )

    def _bins(self, session: Session, lost: int) -> list[SpentBin]:
        found, before = [], 0
        for share in _SHARES:
            most = spendable(share * self.epsilon, self.delta).units - lost
            within = session.scalar(
                select(func.count()).select_from(PrivacyPatientRow).where(PrivacyPatientRow.spent <= most)
            )
            found.append(SpentBin(up_to=share * self.epsilon, patients=(within or 0) - before))
            before = within or 0
        return found

    def _policy(self, session: Session, name: str) -> PolicySpending:
        draws, last = session.execute(
            select(func.count(), func.max(PrivacyDrawRow.charged)).where(PrivacyDrawRow.policy_id == name)
        ).one()
        patients, most = session.execute(
            select(func.count(), func.max(PrivacySpentRow.spent)).where(PrivacySpentRow.policy_id == name)
        ).one()
        released = session.scalar(
            select(func.count())
            .select_from(ReleaseRow)
            .where(
                ReleaseRow.policy_id == name,
                select(PrivacyDrawRow.number)
                .where(
                    PrivacyDrawRow.order_digest == ReleaseRow.order_digest,
                    PrivacyDrawRow.round == ReleaseRow.round,
                    PrivacyDrawRow.stage == ReleaseRow.stage,
                )
                .exists(),
            )
        )
        moment: datetime = last
        return PolicySpending(
            policy=name,
            draws=draws,
            released=released or 0,
            patients=patients,
            most=self._epsilon(most),
            last=moment,
        )

    def _epsilon(self, units: int) -> float:
        return epsilon(Spent(units), self.delta)


def _policies(session: Session) -> list[str]:
    return list(
        session.scalars(select(PrivacyDrawRow.policy_id).distinct().order_by(PrivacyDrawRow.policy_id))
    )
