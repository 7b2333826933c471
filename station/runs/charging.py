"""Who pays for the noise of an answer: every patient of the cohort that the train was given, under the policy of the run.

Of the whole cohort, not only of the split that a stage is about: a train may remember, and nobody trusts it not to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from policies.order import Stage
from policies.policy import Policy
from policies.privacy import Query, cost_of, spendable
from policies.refusals import RefusalCode, Refused
from policies.rules.privacy_rules import granted
from station.audit.log import AuditLog, system_clock
from station.egress.privacy.blurring import nobody_charges
from station.egress.privacy.drawing import Charge
from station.egress.privacy.ledger import PrivacyCharge, PrivacyLedger, charged_in
from station.egress.release import Release
from station.runs.repository import Run
from station.settings import StationSettings
from station.storage.database import Database


def privacy_ledger(
    settings: StationSettings,
    database: Database,
    audit: AuditLog,
    clock: Callable[[], datetime] = system_clock,
) -> PrivacyLedger:
    """Return the ledger that holds every patient to what the hospital grants."""
    budget = settings.privacy
    return PrivacyLedger(database, audit, lambda: spendable(budget.epsilon, budget.delta).units, clock)


def unpaid_in(session: Session, policy: Policy, release: Release) -> Refused | None:
    """Refuse to record numbers under a policy with noise for which nobody was charged: they would have none.

    The guard draws nothing uncharged; this holds whatever it did, in the transaction that makes the release.
    """
    has_numbers = bool(release.metrics or release.tables or release.arrays)
    if policy.release.differential_privacy is None or not has_numbers:
        return None
    answer = (release.order_digest, release.round, release.stage)
    if charged_in(session, answer):
        return None
    return Refused.because(RefusalCode.BUDGET_PRIVACY, "nobody was charged for this answer")


@dataclass(frozen=True, slots=True)
class Charging:
    """Puts answers on the patients' accounts."""

    ledger: PrivacyLedger

    def of(self, run: Run, policy: Policy, answer: tuple[int, Stage], patients: frozenset[str]) -> Charge:
        """Return what charges for one answer.

        Args:
            run: whose answer it is.
            policy: in force.
            answer: round and stage.
            patients: of the cohort that the train was given, by the project's pseudonym.
        """
        privacy = policy.release.differential_privacy
        if privacy is None:
            return nobody_charges
        round_, stage = answer

        def charge(queries: tuple[Query, ...]) -> Refused | None:
            return self.ledger.charge(
                PrivacyCharge(
                    order_digest=run.order_digest,
                    round=round_,
                    stage=stage,
                    policy_id=policy.id,
                    policy_version=policy.version,
                    outputs=tuple(str(query) for query in queries),
                    cost=cost_of(privacy, queries).units,
                    limit=granted(privacy).units,
                    patients=patients,
                    on_behalf_of=run.requester,
                    purpose=run.purpose,
                )
            )

        return charge
