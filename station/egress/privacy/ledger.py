"""What noisy releases have cost each patient: charged, durable and audited before any noise is drawn.

    may everybody be charged? -> charge everybody, put the draw on record, audit -> (commit) -> noise -> release

One transaction each. Costs are whole numbers of `policies.privacy`'s unit: with Gaussian noise what a patient loses over several
releases is the sum of what each cost (zero-concentrated differential privacy: Bun and Steinke 2016), so that one number per
patient and policy is the whole state, and nothing is lost by adding up instead of remembering every query.

Invariants: nobody is charged beyond a limit, and where one patient would be, nobody is charged and nothing is drawn; charges
only grow, over trains, orders, versions, withdrawals and restores; whoever is charged twice for one answer, because the station
died in between, is charged twice on record.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from policies.order import Stage
from policies.refusals import RefusalCode, Refused
from policies.rules.privacy_rules import Shortage
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog, system_clock
from station.egress.privacy.tables import PrivacyDrawRow
from station.egress.records.tables import CounterRow, ReleaseRow
from station.storage.database import Database

PRIVACY_COUNTER: Final = "privacy"
"""What all draws under a policy cost together: no patient can have been charged more under it."""
PRIVACY_LOST_COUNTER: Final = "privacy-lost"
"""What was charged under a policy and is lost with the records of before a restore: counts for every patient."""
_ACTOR: Final = "station:compute"
_FULL: Final = 1 << 62
"""Far above every limit, and what a statement can say."""

# A patient whom another one was merged into brings along what both were charged, under whichever of the names it is asked, and
# the catalogue takes no name away again (`station.catalogue.takeup`). That both stood in one answer cannot be
# ruled out any more; for a group of n the bound is n times the sum (Bun and Steinke 2016, proposition 1.9, by Cauchy-Schwarz).
_SPENT: Final = """
    WITH asked AS (SELECT value AS patient FROM json_each(:patients)),
    stands AS (
        SELECT asked.patient, COALESCE(merged."into", asked.patient) AS remaining
        FROM asked LEFT JOIN catalogue_merged AS merged ON merged.patient = asked.patient
    ),
    kin AS (
        SELECT patient, remaining AS known_as FROM stands
        UNION ALL
        SELECT stands.patient, merged.patient FROM stands JOIN catalogue_merged AS merged ON merged."into" = stands.remaining
    ),
    spent AS (
        SELECT kin.patient,
               COALESCE(SUM(rows.spent), 0) AS spent,
               SUM(rows.spent IS NOT NULL OR kin.patient = kin.known_as) AS people
        FROM kin LEFT JOIN {rows} AS rows ON rows.patient = kin.known_as {where}
        GROUP BY kin.patient
    )
"""
_OF_POLICY: Final = _SPENT.format(rows="privacy_spent", where="AND rows.policy_id = :policy_id")
_OF_ALL: Final = _SPENT.format(rows="privacy_patients", where="")
_SHORT: Final = "SELECT COUNT(*) FROM spent WHERE (spent + :cost) * people + :lost > :limit"


@dataclass(frozen=True, slots=True)
class PrivacyCharge:
    """What one answer is about to cost, and whom.

    Attributes:
        order_digest, round, stage: the answer.
        policy_id, policy_version: under which it is given; what counts is the policy, over all its versions.
        outputs: what of it gets noise: one query each.
        cost: of all of them together.
        limit: what the policy grants each patient.
        patients: everybody whom the answer may have been computed on.
        on_behalf_of, purpose: as the audit names them.
    """

    order_digest: str
    round: int
    stage: Stage
    policy_id: str
    policy_version: int
    outputs: tuple[str, ...]
    cost: int
    limit: int
    patients: frozenset[str]
    on_behalf_of: str | None = None
    purpose: str | None = None


class PrivacyLedger:
    """Charges patients, and refuses before anybody would be overspent.

    Args:
        database: the station's compute database.
        audit: over the same database.
        hospital_limit: returns what the hospital grants each patient over everything, in units of cost; asked when first needed,
            because working it out brings half of scipy along.
        clock: returns the moment it is.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        hospital_limit: Callable[[], int],
        clock: Callable[[], datetime] = system_clock,
    ) -> None:
        self._database = database
        self._audit = audit
        self._hospital_limit = hospital_limit
        self._clock = clock

    def charge(self, charge: PrivacyCharge) -> Refused | None:
        """Charge everybody for one draw, durably; or nobody, and say why.

        Args:
            charge: what is about to be drawn.

        Returns:
            None once everybody is charged and noise may be drawn, once.

        Raises:
            StorageError: nobody was charged; nothing may be drawn.
        """
        with self._database.write() as session:
            refused = self._refusal(session, charge)
            if refused is None:
                self._book(session, charge)
            self._audit.append_in(session, _event(charge, refused))
        return refused

    def shortage(self, policy_id: str, limit: int, cost: int, patients: Collection[str]) -> Shortage:
        """Return how many of these patients could not be charged so much more.

        Args:
            policy_id: the policy, over all its versions.
            limit: what it grants each patient.
            cost: what is to come.
            patients: by the project's pseudonym.
        """
        with self._database.read() as session:
            return self._shortage(session, policy_id, limit, cost, patients)

    def draws(self, order_digest: str | None = None) -> list[PrivacyDrawRow]:
        """Return the draws that were charged, oldest first; of one order, or of all."""
        query = select(PrivacyDrawRow).order_by(PrivacyDrawRow.number)
        if order_digest is not None:
            query = query.where(PrivacyDrawRow.order_digest == order_digest)
        with self._database.read() as session:
            return list(session.scalars(query))

    def _refusal(self, session: Session, charge: PrivacyCharge) -> Refused | None:
        if not charge.patients or charge.cost <= 0 or not charge.outputs:
            # Noise that costs nobody anything is a mistake of ours: it must not be drawn.
            return Refused.because(RefusalCode.BUDGET_PRIVACY, "there is nobody, or nothing, to charge")
        if session.get(ReleaseRow, (charge.order_digest, charge.round, charge.stage)) is not None:
            # It is sent again as it was recorded; nothing may be drawn for it a second time (invariant I8).
            return Refused.because(RefusalCode.BUDGET_PRIVACY, "this answer is recorded already")
        short = self._shortage(session, charge.policy_id, charge.limit, charge.cost, charge.patients)
        return Refused.because(RefusalCode.BUDGET_PRIVACY, short.in_words()) if short else None

    def _shortage(
        self, session: Session, policy_id: str, limit: int, cost: int, patients: Collection[str]
    ) -> Shortage:
        asked = json.dumps(sorted(patients))
        lost_here, lost = _lost(session, policy_id), _lost(session, None)
        of_policy = session.scalar(
            text(_OF_POLICY + _SHORT),
            {"patients": asked, "policy_id": policy_id, "cost": cost, "lost": lost_here, "limit": limit},
        )
        of_hospital = session.scalar(
            text(_OF_ALL + _SHORT),
            {"patients": asked, "cost": cost, "lost": lost, "limit": self._hospital_limit()},
        )
        return Shortage(int(of_policy or 0), int(of_hospital or 0), len(patients))

    def _book(self, session: Session, charge: PrivacyCharge) -> None:
        values = {"patients": json.dumps(sorted(charge.patients)), "cost": charge.cost}
        session.execute(
            text(
                "INSERT INTO privacy_spent (policy_id, patient, spent) "
                "SELECT :policy_id, value, :cost FROM json_each(:patients) WHERE true "
                "ON CONFLICT (policy_id, patient) DO UPDATE SET spent = spent + excluded.spent"
            ),
            {**values, "policy_id": charge.policy_id},
        )
        session.execute(
            text(
                "INSERT INTO privacy_patients (patient, spent) SELECT value, :cost FROM json_each(:patients) WHERE true "
                "ON CONFLICT (patient) DO UPDATE SET spent = spent + excluded.spent"
            ),
            values,
        )
        _add(session, PRIVACY_COUNTER, charge.policy_id, charge.cost)
        session.add(
            PrivacyDrawRow(
                order_digest=charge.order_digest,
                round=charge.round,
                stage=charge.stage,
                policy_id=charge.policy_id,
                policy_version=charge.policy_version,
                outputs=json.dumps(charge.outputs),
                cost=charge.cost,
                patients=len(charge.patients),
                charged=self._clock(),
            )
        )
        session.flush()


def charged_in(session: Session, answer: tuple[str, int, Stage]) -> bool:
    """Tell whether patients were charged for an answer, named by its order, round and stage."""
    order_digest, round_, stage = answer
    query = select(PrivacyDrawRow.number).where(
        PrivacyDrawRow.order_digest == order_digest,
        PrivacyDrawRow.round == round_,
        PrivacyDrawRow.stage == stage,
    )
    return session.scalar(query.limit(1)) is not None


def privacy_spent_in(session: Session, policy_id: str) -> int:
    """Return what all draws under a policy cost together, inside the caller's transaction; it only grows."""
    row = session.get(CounterRow, (PRIVACY_COUNTER, policy_id))
    return 0 if row is None else row.value


def take_lost_charges(session: Session, policy_id: str, cost: int) -> None:
    """Charge everybody who is here or ever comes for draws that are known to have been, but not of whom (after a restore)."""
    _add(session, PRIVACY_COUNTER, policy_id, cost)
    _add(session, PRIVACY_LOST_COUNTER, policy_id, cost)


def _add(session: Session, name: str, policy_id: str, cost: int) -> None:
    row = session.get(CounterRow, (name, policy_id))
    if row is None:
        session.add(CounterRow(name=name, scope=policy_id, value=cost))
    else:
        row.value = min(row.value + cost, _FULL)
    session.flush()


def _lost(session: Session, policy_id: str | None) -> int:
    query = select(func.coalesce(func.sum(CounterRow.value), 0)).where(
        CounterRow.name == PRIVACY_LOST_COUNTER
    )
    if policy_id is not None:
        query = query.where(CounterRow.scope == policy_id)
    return int(session.scalar(query) or 0)


def _event(charge: PrivacyCharge, refused: Refused | None) -> AuditRecord:
    return AuditRecord(
        event=AuditEvent.PRIVACY_CHARGED if refused is None else AuditEvent.PRIVACY_REFUSED,
        actor=_ACTOR,
        outcome="success" if refused is None else "refused",
        on_behalf_of=charge.on_behalf_of,
        purpose=charge.purpose,
        object=charge.order_digest,
        codes=() if refused is None else (refused.code.value,),
        numbers={
            "round": charge.round,
            "queries": len(charge.outputs),
            "cost": charge.cost,
            "patients": len(charge.patients),
        },
        detail=f"stage {charge.stage} under policy {charge.policy_id}"
        if refused is None
        else refused.reasons[0].detail,
    )
