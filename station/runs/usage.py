"""Whose data were used in which study, by pseudonym: written before a container starts, kept when its cohort is wiped.

Compute knows no patient; the list leaves its station in the operator's hands only, for intake to say who they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ForeignKeyConstraint, String, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from policies.documents import digest_of
from policies.policy import Policy
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.cohorts import FrozenCohort
from station.storage.database import Database
from station.storage.schema import Base, UtcTime
from station.usage_list import Usage, UsageList, sign_usage_list


class CohortUsageRow(Base):
    """A cohort that a container was started on under an order; never removed (a trigger holds that)."""

    __tablename__ = "cohort_usage"

    order_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    cohort_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    policy_id: Mapped[str] = mapped_column(String(64))
    policy_version: Mapped[int]
    title: Mapped[str] = mapped_column(String(4000))
    requester: Mapped[str] = mapped_column(String(4000))
    purpose: Mapped[str] = mapped_column(String(64))
    first_use: Mapped[datetime] = mapped_column(UtcTime)
    last_use: Mapped[datetime] = mapped_column(UtcTime)


class CohortUsagePatientRow(Base):
    """A patient in such a cohort, by the pseudonym of the moment; never removed or changed."""

    __tablename__ = "cohort_usage_patients"
    __table_args__ = (
        ForeignKeyConstraint(
            ["order_digest", "cohort_digest"], ["cohort_usage.order_digest", "cohort_usage.cohort_digest"]
        ),
    )

    order_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    cohort_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    patient: Mapped[str] = mapped_column(String(32), primary_key=True, index=True)


def note_use(
    session: Session, order_digest: str, policy: Policy, cohort: FrozenCohort, now: datetime
) -> None:
    """Put on record that a cohort is about to be used, within the caller's write transaction.

    Args:
        session: the transaction that audits the start or the message.
        order_digest: under which order.
        policy: in force.
        cohort: what the container is given.
        now: the moment.
    """
    row = session.get(CohortUsageRow, (order_digest, cohort.digest))
    if row is not None:
        row.last_use = max(row.last_use, now)
        return
    session.add(
        CohortUsageRow(
            order_digest=order_digest,
            cohort_digest=cohort.digest,
            policy_id=policy.id,
            policy_version=policy.version,
            title=policy.title,
            requester=policy.requester.organisation,
            purpose=policy.purpose.code.value,
            first_use=now,
            last_use=now,
        )
    )
    session.flush()
    patients = [
        {"order_digest": order_digest, "cohort_digest": cohort.digest, "patient": patient}
        for patient in sorted(cohort.patients)
    ]
    if patients:
        session.execute(insert(CohortUsagePatientRow), patients)


@dataclass(frozen=True, slots=True)
class UsageRecords:
    """What was used at this station, for export."""

    station: str
    database: Database
    audit: AuditLog
    identity: Ed25519PrivateKey
    clock: Callable[[], datetime]

    def export(self, policy_id: str | None = None) -> bytes:
        """Return the signed list of all uses, or of one policy's; audited first.

        Raises:
            StateError: it is too long for one list.
        """
        with self.database.read() as session:
            uses = tuple(self._uses(session, policy_id))
        data = sign_usage_list(
            UsageList(station=self.station, written_at=self.clock(), uses=uses), self.identity
        )
        self.audit.append(
            AuditRecord(
                event=AuditEvent.USAGE_EXPORTED,
                actor="operator:desk",
                object=digest_of(data),
                numbers={"uses": len(uses), "patients": len({one for use in uses for one in use.patients})},
            )
        )
        return data

    @staticmethod
    def _uses(session: Session, policy_id: str | None) -> list[Usage]:
        patients: dict[tuple[str, str], list[str]] = {}
        who = select(
            CohortUsagePatientRow.order_digest,
            CohortUsagePatientRow.cohort_digest,
            CohortUsagePatientRow.patient,
        )
        for order, cohort, patient in session.execute(who.order_by(CohortUsagePatientRow.patient)):
            patients.setdefault((order, cohort), []).append(patient)
        query = select(CohortUsageRow).order_by(CohortUsageRow.first_use, CohortUsageRow.order_digest)
        if policy_id is not None:
            query = query.where(CohortUsageRow.policy_id == policy_id)
        return [
            Usage(
                policy_id=row.policy_id,
                policy_version=row.policy_version,
                title=row.title,
                requester=row.requester,
                purpose=row.purpose,
                order=row.order_digest,
                cohort=row.cohort_digest,
                first_use=row.first_use,
                last_use=row.last_use,
                patients=tuple(patients.get((row.order_digest, row.cohort_digest), ())),
            )
            for row in session.scalars(query)
        ]
