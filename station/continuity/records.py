"""The station's own view of its records: what it stated, what was countersigned, and whether anything may run on them.

    normal ──a statement of ours that these records lack──> restored ──reconcile──> awaiting consent ──import──> normal

Invariants: a statement is durable, audited and in the egress ledger before it is sent (I1, I6); once restored, a station
stays so over any number of starts until its operator reconciles it; what reconciling grants is taken from a statement that
this station signed, never from what the orchestrator says. `reason` and `spent` ask memory only: they are asked in the
transaction that makes a release.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import TrustError
from policies.refusals import Reason, RefusalCode, Refused
from policies.signing import Signer
from policies.station_heads import StationHeads, WitnessedStation
from policies.station_statement import (
    MAX_ORDERS,
    StatementAnswer,
    open_receipt,
    open_statement,
    sign_statement,
)
from policies.trust.policy_set import PolicySet
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.continuity.comparing import Claim, setback
from station.continuity.drafting import Usage, consent_of, draft, restoration_of
from station.continuity.events import (
    refused_trust_event,
    settings_event,
    trust_event,
    trust_of,
    versions_of,
    what_is_permitted,
)
from station.continuity.tables import SINGLE_ROW, ContinuityRow, RestoredOrderRow, StatementRow, fresh_row
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType
from station.storage.database import Database

ACTOR: Final = "station:compute"
KEPT_STATEMENTS: Final = 500
_AHEAD: Final = timedelta(minutes=5)
"""How far the witness's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the records are kept in.

    Attributes:
        station: its name in the register.
        signer: the identity key.
        limit: how old what was witnessed may be once anything was.
    """

    station: str
    database: Database
    audit: AuditLog
    ledger: EgressLedger
    usage: Usage
    signer: Signer
    clock: Callable[[], datetime]
    limit: timedelta


@dataclass(frozen=True, slots=True)
class _Known:
    """What `reason` and `spent` go by."""

    problem: str | None
    awaits_consent: bool
    heads_time: datetime | None
    witnessed_made: datetime | None
    reconciled: datetime | None
    spent: frozenset[str]


class Records:
    """Whether this station's records are the newest there were."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        with parts.database.write() as session:
            if session.get(ContinuityRow, SINGLE_ROW) is None:
                session.add(fresh_row())
        self._known_lock = threading.Lock()
        self.refresh()

    # -- what admission and releases ask ---------------------------------------------------------------------

    def reason(self) -> Reason | None:
        """Return why nothing may run on these records now, or None."""
        known = self._known
        if known.problem is not None:
            return Reason(RefusalCode.STATION_RESTORED, known.problem)
        if known.awaits_consent:
            return Reason(
                RefusalCode.STATION_RESTORED, "reconciled; the consent register is not imported anew yet"
            )
        if known.heads_time is None:
            return None
        oldest = self._parts.clock() - self._parts.limit
        if known.heads_time < oldest:
            return Reason(RefusalCode.STATION_UNCONFIRMED, "the witness's newest document is too old")
        if known.witnessed_made is None or known.witnessed_made < oldest:
            return Reason(
                RefusalCode.STATION_UNCONFIRMED,
                "the witness's document names too old a statement of this station",
            )
        return None

    def spent(self, order_digest: str, issued: datetime) -> Reason | None:
        """Return why an order cannot run any more because of a restoration, or None.

        What an order that was given before did is not on record here any more, whatever was stated of it.
        """
        known = self._known
        if order_digest in known.spent:
            return Reason(RefusalCode.ORDER_SPENT, "it was under way before the station was restored")
        if known.reconciled is not None and issued <= known.reconciled:
            return Reason(RefusalCode.ORDER_SPENT, "it was issued before the station was restored")
        return None

    @property
    def restored(self) -> bool:
        """Whether the records have to be reconciled."""
        return self._known.problem is not None

    def look(self) -> None:
        """Look at what changed beside this object: the consent state; cheap."""
        if self._known.awaits_consent:
            with self._parts.database.write() as session:
                _settle_consent(session, self.row_in(session))
            self.refresh()

    # -- stating ---------------------------------------------------------------------------------------------

    def note_trust(self, policies: PolicySet) -> None:
        """Remember the versions of the board's repository that were verified."""
        found = versions_of(policies)
        with self._parts.database.read() as session:
            if trust_of(self.row_in(session)) == found:
                return
        with self._parts.database.write() as session:
            row = self.row_in(session)
            if what_is_permitted(found) != what_is_permitted(trust_of(row)):
                self._parts.audit.append_in(session, trust_event(policies, found))
            row.trust_root = max(row.trust_root, found.root)
            row.trust_timestamp = max(row.trust_timestamp, found.timestamp)
            row.trust_targets = max(row.trust_targets, found.targets)
            row.trust_register = max(row.trust_register, found.register_version)

    def note_refused_trust(self, refused: Refused) -> None:
        """Put on record that the board's repository cannot be verified now."""
        self._parts.audit.thinned.append(refused_trust_event(refused))

    def note_settings(self, settings: bytes) -> None:
        """Put on record that the hospital's settings are others than in the life before; before they take effect."""
        digest = digest_of(settings)
        with self._parts.database.write() as session:
            row = self.row_in(session)
            if row.settings_digest == digest:
                return
            self._parts.audit.append_in(session, settings_event(row.settings_digest, digest))
            row.settings_digest = digest

    def state(self) -> bytes:
        """Make the next statement, durably, with its entries in audit and ledger; return its envelope.

        Raises:
            StorageError: it could not be made durable; nothing may be sent.
        """
        parts = self._parts
        with self._lock, parts.database.write() as session:
            row = self.row_in(session)
            statement = draft(
                session, parts.station, row, _last_sequence(session, row) + 1, parts.usage, parts.clock()
            )
            envelope = sign_statement(statement, parts.signer)
            parts.audit.append_in(
                session,
                AuditRecord(
                    event=AuditEvent.AUDIT_HEAD_SIGNED,
                    actor=ACTOR,
                    object=statement.digest,
                    numbers={
                        "epoch": statement.epoch,
                        "sequence": statement.sequence,
                        "audit": statement.audit.seq,
                        "egress": statement.egress.seq,
                    },
                ),
            )
            parts.ledger.append_in(
                session,
                LedgerEntry(type=MessageType.AUDIT_HEAD, digest=digest_of(envelope), size=len(envelope)),
            )
            session.add(
                StatementRow(
                    sequence=statement.sequence,
                    epoch=statement.epoch,
                    digest=statement.digest,
                    envelope=envelope,
                    audit_seq=statement.audit.seq,
                    egress_seq=statement.egress.seq,
                    made=statement.time,
                )
            )
            session.execute(
                delete(StatementRow).where(StatementRow.sequence <= statement.sequence - KEPT_STATEMENTS)
            )
        return envelope

    def keep_receipt(self, answer: StatementAnswer) -> None:
        """Keep the orchestrator's receipt of one of our statements.

        Raises:
            TrustError: it is not of one of ours, or not signed with the key that came with it.
            DocumentError: it is no receipt.
        """
        receipt = open_receipt(answer.receipt.encode(), answer.notary_key)
        with self._parts.database.write() as session:
            statement = session.get(StatementRow, receipt.sequence)
            if statement is None or statement.digest != receipt.statement:
                raise TrustError("the orchestrator's receipt is of no statement of this station")
            statement.receipt = answer.receipt.encode()
            row = self.row_in(session)
            if row.notary_key and row.notary_key != answer.notary_key:
                self._parts.audit.append_in(
                    session,
                    AuditRecord(
                        event=AuditEvent.NOTARY_CHANGED,
                        actor=ACTOR,
                        detail=f"the orchestrator countersigns with {answer.notary_key} now",
                    ),
                )
            row.notary_key = answer.notary_key

    # -- evidence --------------------------------------------------------------------------------------------

    def consider_statement(self, envelope: bytes) -> bool:
        """Hold the records against a statement that may be ours; return whether they fall short of it.

        Raises:
            TrustError: this station did not sign it.
            DocumentError: it is no statement.
        """
        parts = self._parts
        statement = open_statement(envelope, parts.signer.public_hex)
        if statement.station != parts.station:
            raise TrustError("the statement is of another station")
        with self._lock, parts.database.write() as session:
            row = self.row_in(session)
            now = draft(
                session, parts.station, row, _last_sequence(session, row) + 1, parts.usage, parts.clock()
            )
            problem = setback(session, row.epoch, restoration_of(row), Claim.of(statement), (statement, now))
            if problem is not None:
                self._mark(session, row, problem, Claim.of(statement))
                before = (
                    None if row.evidence is None else open_statement(row.evidence, parts.signer.public_hex)
                )
                if before is None or (before.epoch, before.sequence) < (statement.epoch, statement.sequence):
                    row.evidence = envelope
        self.refresh()
        return problem is not None

    def consider_heads(self, envelope: bytes, heads: StationHeads) -> bool:
        """Hold the records against what the witness saw of this station; return whether they fall short of it.

        Args:
            envelope: the document as it came, to keep.
            heads: verified.

        Raises:
            TrustError: it is dated in the future; kept, it would stand above every later one, also of another key.
        """
        if heads.time > self._parts.clock() + _AHEAD:
            raise TrustError("the witness's document is dated in the future")
        entry = heads.find(self._parts.station)
        if entry is None:
            return False
        with self._lock, self._parts.database.write() as session:
            row = self.row_in(session)
            if row.heads_time is not None and heads.time < row.heads_time:
                return row.restored
            claim = Claim.witnessed(entry)
            problem = setback(session, row.epoch, restoration_of(row), claim)
            if problem is not None:
                self._mark(session, row, problem, claim)
            elif row.restored and row.evidence is None and row.heads_time != heads.time:
                self._take_back(session, row, claim)
            row.heads, row.heads_time = envelope, heads.time
            self._note_witnessed(session, row, entry)
        self.refresh()
        return problem is not None

    @staticmethod
    def _note_witnessed(session: Session, row: ContinuityRow, entry: WitnessedStation) -> None:
        row.witnessed_epoch, row.witnessed_sequence = entry.epoch, entry.sequence
        own = session.get(StatementRow, entry.sequence)
        if own is not None and own.digest == entry.statement:
            row.witnessed_made = own.made

    def _mark(self, session: Session, row: ContinuityRow, problem: str, claim: Claim) -> None:
        if row.restored:
            return
        row.restored, row.problem, row.detected = True, problem, self._parts.clock()
        row.consent_floor = consent_of(session)[0] or 0
        self._parts.audit.append_in(
            session,
            AuditRecord(
                event=AuditEvent.RESTORE_DETECTED,
                actor=ACTOR,
                outcome="refused",
                object=claim.digest,
                codes=(RefusalCode.STATION_RESTORED.value,),
                numbers={"epoch": claim.epoch, "sequence": claim.sequence},
                detail=problem,
            ),
        )

    def _take_back(self, session: Session, row: ContinuityRow, claim: Claim) -> None:
        """Let go of a mark that only a witness's word made, on its newer word: no signature of ours stands behind it."""
        row.restored, row.problem = False, ""
        if row.reconciled is None:
            row.detected = row.consent_floor = None
        # After a reconciliation the wish for a consent state may be older than the mark, and stays.
        self._parts.audit.append_in(
            session,
            AuditRecord(
                event=AuditEvent.RESTORE_TAKEN_BACK,
                actor=ACTOR,
                object=claim.digest,
                numbers={"epoch": claim.epoch, "sequence": claim.sequence},
                detail="the witness's newer document shows nothing that these records lack",
            ),
        )

    # -- rows ------------------------------------------------------------------------------------------------

    def row_in(self, session: Session) -> ContinuityRow:
        """Return the one row."""
        return session.get_one(ContinuityRow, SINGLE_ROW)

    def refresh(self) -> None:
        """Read again what stands, after it was changed.

        Reading and keeping are one step: of two at a time, the one that read what is older must not be the last to keep it.
        """
        with self._known_lock:
            self._known = self._read()

    def _read(self) -> _Known:
        with self._parts.database.read() as session:
            row = self.row_in(session)
            spent = session.scalars(select(RestoredOrderRow.order_digest).limit(100 * MAX_ORDERS))
            return _Known(
                problem=row.problem if row.restored else None,
                awaits_consent=not row.restored and row.consent_floor is not None,
                heads_time=row.heads_time,
                witnessed_made=row.witnessed_made,
                reconciled=row.reconciled,
                spent=frozenset(spent),
            )


def _last_sequence(session: Session, row: ContinuityRow) -> int:
    own = session.scalar(select(func.max(StatementRow.sequence))) or 0
    # After a restoration the numbers go on after those that were lost.
    restoration = restoration_of(row)
    return max(own, 0 if restoration is None else restoration.sequence)


def _settle_consent(session: Session, row: ContinuityRow) -> None:
    """Let go of the wish for a new consent state once one is in force that was read after the restore was seen."""
    sequence, source_date = consent_of(session)
    if row.consent_floor is None or row.detected is None or sequence is None or source_date is None:
        return
    if sequence > row.consent_floor and source_date >= row.detected.replace(microsecond=0):
        row.consent_floor = None
