"""What the operator sees of the station's records, and the way to reconcile them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select

from policies.documents import Moment, StrictModel
from policies.errors import RefusedError, TrustError
from policies.refusal_texts import text_of
from policies.refusals import Refused
from policies.station_statement import EntryRange, open_receipt
from station.admission.gatekeeper import Gatekeeper
from station.continuity.messenger import Messenger
from station.continuity.reconciling import Plan, Reconciler
from station.continuity.records import Records
from station.continuity.tables import ContinuityRow, StatementRow
from station.storage.database import Database


class HeadsView(StrictModel):
    """What was countersigned last, and how old it is.

    Attributes:
        standing: `good`, or the code of why nothing runs now.
        why: in words.
        stated, countersigned: the newest statement, and the newest that the orchestrator gave a receipt for.
        witnessed: the one that the witness's newest document names; `witness_signed` is when that was signed.
    """

    standing: str
    why: str
    epoch: int
    stated: int | None
    stated_at: Moment | None
    audit: int | None
    egress: int | None
    countersigned: int | None
    countersigned_at: Moment | None
    witnessed: int | None
    witness_signed: Moment | None
    reconciled_at: Moment | None


class LackView(StrictModel):
    """One policy of which more was stated than is on record."""

    policy: str
    runs_stated: int
    runs_here: int
    releases_stated: int
    releases_here: int
    privacy_lost: int = 0


class PlanView(StrictModel):
    """What reconciling would do, or did."""

    problem: str
    epoch: int
    stated_sequence: int
    own_sequence: int
    stated_at: Moment
    lost_audit: EntryRange
    lost_egress: EntryRange
    lacks: list[LackView]
    orders_spent: list[str]
    orders_stopped: list[str]
    consent_stated: int | None
    consent_here: int | None


@dataclass(frozen=True, slots=True)
class ContinuityDesk:
    """The use cases of `pht-station audit heads` and `pht-station reconcile`."""

    database: Database
    records: Records
    messenger: Messenger
    reconciler: Reconciler
    gatekeeper: Gatekeeper

    def heads(self) -> HeadsView:
        """Return what was countersigned last."""
        reason = self.records.reason()
        with self.database.read() as session:
            row = self.records.row_in(session)
            newest = session.scalars(_newest()).first()
            receipted = session.scalars(_newest().where(StatementRow.receipt.is_not(None))).first()
        return HeadsView(
            standing="good" if reason is None else reason.code.value,
            why="" if reason is None else reason.detail,
            epoch=row.epoch,
            stated=None if newest is None else newest.sequence,
            stated_at=None if newest is None else newest.made,
            audit=None if newest is None else newest.audit_seq,
            egress=None if newest is None else newest.egress_seq,
            countersigned=None if receipted is None else receipted.sequence,
            countersigned_at=_received(receipted, row),
            witnessed=row.witnessed_sequence or None,
            witness_signed=row.heads_time,
            reconciled_at=row.reconciled,
        )

    def plan(self) -> PlanView:
        """Return what reconciling would do, by the newest statement that can be had."""
        self._ask()
        return _view(self.reconciler.plan())

    def reconcile(self, actor: str) -> PlanView:
        """Do it.

        Raises:
            RefusedError: the board's repository cannot be verified, or is older than what was stated; or the witness was not
                heard since the restore was seen.
        """
        self._ask()
        policies = self.gatekeeper.policy_set(fresh=True)
        if isinstance(policies, Refused):
            text = text_of(policies.code)
            raise RefusedError(policies.code.value, text.means, hint=text.do)
        return _view(self.reconciler.reconcile(policies.value, actor))

    def _ask(self) -> None:
        # The witness first: what these records hold of it is as old as they are.
        self.messenger.fetch_heads()
        self.messenger.fetch_evidence()


def _newest() -> Select[StatementRow]:
    return select(StatementRow).order_by(StatementRow.sequence.desc()).limit(1)


def _received(statement: StatementRow | None, row: ContinuityRow) -> datetime | None:
    if statement is None or statement.receipt is None:
        return None
    try:
        return open_receipt(statement.receipt, row.notary_key).received
    except TrustError:
        # Countersigned with a key that the orchestrator had before.
        return None


def _view(plan: Plan) -> PlanView:
    return PlanView(
        problem=plan.problem,
        epoch=plan.epoch,
        stated_sequence=plan.stated_sequence,
        own_sequence=plan.own_sequence,
        stated_at=plan.stated_at,
        lost_audit=plan.lost_audit,
        lost_egress=plan.lost_egress,
        lacks=[
            LackView(
                policy=lack.policy_id,
                runs_stated=lack.runs_stated,
                runs_here=lack.runs_here,
                releases_stated=lack.releases_stated,
                releases_here=lack.releases_here,
                privacy_lost=lack.privacy_lost,
            )
            for lack in plan.lacks
        ],
        orders_spent=list(plan.orders),
        orders_stopped=list(plan.running),
        consent_stated=plan.consent_stated,
        consent_here=plan.consent_here,
    )
