"""The way back after a restore: what was stated and is lost counts as used, and a new epoch says so in public.

Goes by the newest statement that this station signed and that anybody still holds; where the witness names a newer one than
the orchestrator hands out, or was not heard since the restore was seen, it does not go on. One transaction: counters, orders, epoch and the audit event, or nothing.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import canonical_json
from policies.errors import NotFoundError, RefusedError, UsageError
from policies.refusals import RefusalCode
from policies.station_statement import EntryRange, Restoration, StationStatement, open_statement
from policies.trust.policy_set import PolicySet
from station.audit.events import AuditEvent, AuditRecord
from station.continuity.drafting import consent_of
from station.continuity.records import Parts, Records
from station.continuity.tables import ContinuityRow, RestoredOrderRow, StatementRow
from station.egress.privacy.ledger import take_lost_charges
from station.egress.records.releases import RELEASES_COUNTER
from station.egress.records.tables import CounterRow
from station.runs.repository import LOST_RUNS_COUNTER, RunRepository
from station.runs.states import TERMINAL, RunEvent
from station.runs.tables import OrderRow


@dataclass(frozen=True, slots=True)
class Lack:
    """What one policy had used by what was stated, and what these records hold of it."""

    policy_id: str
    runs_stated: int
    runs_here: int
    releases_stated: int
    releases_here: int
    privacy_stated: int
    privacy_here: int

    @property
    def privacy_lost(self) -> int:
        """What was charged to patients and cannot be known here any more: whom, and so it counts for everybody."""
        return max(0, self.privacy_stated - self.privacy_here)


@dataclass(frozen=True, slots=True)
class Plan:
    """What reconciling would do.

    Attributes:
        problem: what showed that the station was restored.
        stated_sequence, own_sequence: the newest statement, and the newest that these records hold.
        stated_at: when the newest was made.
        lost_audit, lost_egress: entries that these records may lack, both ends included.
        lacks: policies of which more was stated than is here.
        orders: that were stated and count as spent from now on.
        running: orders here that will be stopped.
        consent_stated, consent_here: sequences of the consent state.
    """

    problem: str
    epoch: int
    stated_sequence: int
    own_sequence: int
    stated_at: datetime
    lost_audit: EntryRange
    lost_egress: EntryRange
    lacks: tuple[Lack, ...]
    orders: tuple[str, ...]
    running: tuple[str, ...]
    consent_stated: int | None
    consent_here: int | None


class Reconciler:
    """Plans and does it."""

    def __init__(self, records: Records, parts: Parts, runs: RunRepository) -> None:
        self._records, self._parts, self._runs = records, parts, runs

    def plan(self) -> Plan:
        """Return what reconciling would do.

        Raises:
            UsageError: there is nothing to reconcile.
            NotFoundError: the newest statement is not here yet.
            RefusedError: the witness names a newer one than is here, or was not heard since the restore was seen.
        """
        with self._parts.database.read() as session:
            row = self._records.row_in(session)
            return self._plan(session, row, self._evidence(row))

    def reconcile(self, policies: PolicySet, actor: str) -> Plan:
        """Take over what was stated, begin a new epoch, and say what was done.

        1. The board's repository is at least what it was stated to be.
        2. Counters become the greater of both; every order stated or under way is spent.
        3. The epoch, and the wish for a consent state that is read after the restore was seen.

        Args:
            policies: asked of the mirror just now.
            actor: who does it, as the audit names actors.

        Raises:
            UsageError, NotFoundError: as for `plan`.
            RefusedError: as for `plan`, or the mirror is older than what was stated.
        """
        parts = self._parts
        self._records.note_trust(policies)
        with parts.database.write() as session:
            row = self._records.row_in(session)
            evidence = self._evidence(row)
            plan = self._plan(session, row, evidence)
            # 1
            _require_trust(row, evidence)
            # 2
            now = parts.clock()
            # No order issued before what is known to have been may run, whatever this machine's clock says.
            reconciled = max(now, evidence.time, row.heads_time or evidence.time)
            self._take_counters(session, plan)
            self._spend_orders(session, plan, evidence, now)
            # 3
            row.epoch = max(row.epoch, evidence.epoch) + 1
            epoch, sequence, digest = _newest(session, evidence)
            row.restoration = canonical_json(
                Restoration(
                    epoch=epoch,
                    sequence=sequence,
                    statement=digest,
                    lost_audit=plan.lost_audit,
                    lost_egress=plan.lost_egress,
                    reconciled=reconciled,
                )
            )
            row.restored, row.problem, row.evidence, row.reconciled = False, "", None, reconciled
            # The witness still names a statement of the epoch before; it has as long as ever for the next one.
            row.witnessed_made = now
            parts.audit.append_in(session, _event(plan, row.epoch, actor))
        self._records.refresh()
        return plan

    def _evidence(self, row: ContinuityRow) -> StationStatement:
        if not row.restored:
            raise UsageError(
                "there is nothing to reconcile: these records are the newest that are known",
                hint="`pht-station audit heads` shows what was countersigned.",
            )
        if row.evidence is None:
            raise NotFoundError(
                "the newest statement of this station is not here yet",
                hint="The orchestrator must be reached: it hands out what this station stated before.",
            )
        statement = open_statement(row.evidence, self._parts.signer.public_hex)
        if (statement.epoch, statement.sequence) < (row.witnessed_epoch, row.witnessed_sequence):
            raise RefusedError(
                RefusalCode.STATION_RESTORED.value,
                "the witness has seen a newer statement than the orchestrator hands out",
                hint="Ask the orchestrator's operator and the board: it is withheld, or both were restored.",
            )
        if _is_unheard(row):
            raise RefusedError(
                RefusalCode.STATION_UNCONFIRMED.value,
                "the witness was not heard since the restore was seen",
                hint="It signs every few minutes: reconcile again then. If it stays away, ask the board.",
            )
        return statement

    def _plan(self, session: Session, row: ContinuityRow, stated: StationStatement) -> Plan:
        own = session.scalars(select(StatementRow).order_by(StatementRow.sequence.desc()).limit(1)).first()
        audit, egress = (0, 0) if own is None else (own.audit_seq, own.egress_seq)
        lacks = []
        for use in stated.policies:
            runs = self._parts.usage.runs_used(session, use.policy_id)
            releases = self._parts.usage.releases_used(session, use.policy_id)
            privacy = self._parts.usage.privacy_spent(session, use.policy_id)
            if runs < use.runs or releases < use.releases or privacy < use.privacy:
                lacks.append(
                    Lack(use.policy_id, use.runs, runs, use.releases, releases, use.privacy, privacy)
                )
        running = session.scalars(
            select(OrderRow.order_digest)
            .where(OrderRow.state.not_in([state.value for state in TERMINAL]))
            .order_by(OrderRow.order_digest)
        )
        return Plan(
            problem=row.problem,
            epoch=stated.epoch,
            stated_sequence=stated.sequence,
            own_sequence=0 if own is None else own.sequence,
            stated_at=stated.time,
            lost_audit=EntryRange(first=audit + 1, last=max(audit, stated.audit.seq)),
            lost_egress=EntryRange(first=egress + 1, last=max(egress, stated.egress.seq)),
            lacks=tuple(lacks),
            orders=tuple(use.order for use in stated.orders),
            running=tuple(running),
            consent_stated=stated.consent_sequence,
            consent_here=consent_of(session)[0],
        )

    @staticmethod
    def _take_counters(session: Session, plan: Plan) -> None:
        for lack in plan.lacks:
            _raise_counter(session, RELEASES_COUNTER, lack.policy_id, lack.releases_stated)
            missing = max(0, lack.runs_stated - lack.runs_here)
            if missing:
                lost = session.get(CounterRow, (LOST_RUNS_COUNTER, lack.policy_id))
                before = 0 if lost is None else lost.value
                _raise_counter(session, LOST_RUNS_COUNTER, lack.policy_id, before + missing)
            if lack.privacy_lost:
                take_lost_charges(session, lack.policy_id, lack.privacy_lost)

    def _spend_orders(self, session: Session, plan: Plan, stated: StationStatement, now: datetime) -> None:
        releases = {use.order: use.releases for use in stated.orders}
        for order in plan.orders:
            if session.get(RestoredOrderRow, order) is None:
                session.add(RestoredOrderRow(order_digest=order, releases=releases[order], reconciled=now))
        session.flush()
        for order in plan.running:
            self._runs.transition_in(
                session,
                order,
                RunEvent.STOP,
                code=RefusalCode.STATION_RESTORED,
                detail="the station was restored",
            )


def _newest(session: Session, evidence: StationStatement) -> tuple[int, int, str]:
    """Return epoch, sequence and digest of the newest statement: of the evidence and of what these records hold.

    Records that stated something of their own, after a backup was put back, may be beyond what they are reconciled with.
    """
    own = session.scalars(select(StatementRow).order_by(StatementRow.sequence.desc()).limit(1)).first()
    if own is not None and (own.epoch, own.sequence) > (evidence.epoch, evidence.sequence):
        return own.epoch, own.sequence, own.digest
    return evidence.epoch, evidence.sequence, evidence.digest


def _is_unheard(row: ContinuityRow) -> bool:
    """Whether all that these records hold of the witness may have come with the backup."""
    if row.heads_time is None or row.detected is None:
        return False
    # The witness writes whole seconds.
    return row.heads_time < row.detected.replace(microsecond=0)


def _raise_counter(session: Session, name: str, scope: str, value: int) -> None:
    row = session.get(CounterRow, (name, scope))
    if row is None:
        session.add(CounterRow(name=name, scope=scope, value=value))
    else:
        row.value = max(row.value, value)
    session.flush()


def _require_trust(row: ContinuityRow, stated: StationStatement) -> None:
    have, want = (
        (row.trust_root, row.trust_timestamp, row.trust_targets, row.trust_register),
        (
            stated.trust.root,
            stated.trust.timestamp,
            stated.trust.targets,
            stated.trust.register_version,
        ),
    )
    if any(mine < theirs for mine, theirs in zip(have, want, strict=True)):
        raise RefusedError(
            RefusalCode.TRUST_ROLLBACK.value,
            "the mirror offers an older state of the board's repository than this station had seen before it was restored",
            hint="Ask the board's secretary and the orchestrator's operator; then reconcile again.",
        )


def _event(plan: Plan, epoch: int, actor: str) -> AuditRecord:
    return AuditRecord(
        event=AuditEvent.RECORDS_RECONCILED,
        actor=actor,
        codes=(RefusalCode.STATION_RESTORED.value,),
        numbers={
            "epoch": epoch,
            "stated_sequence": plan.stated_sequence,
            "own_sequence": plan.own_sequence,
            "lost_audit_from": plan.lost_audit.first,
            "lost_audit_to": plan.lost_audit.last,
            "lost_egress_from": plan.lost_egress.first,
            "lost_egress_to": plan.lost_egress.last,
            "orders_spent": len(plan.orders),
            "orders_stopped": len(plan.running),
        },
        detail="; ".join(
            f"{lack.policy_id}: runs {lack.runs_here} -> {lack.runs_stated}, "
            f"releases {lack.releases_here} -> {lack.releases_stated}"
            + (f", {lack.privacy_lost} of privacy charged to everybody" if lack.privacy_lost else "")
            for lack in plan.lacks
        )
        or "no policy had used more than is on record",
    )
