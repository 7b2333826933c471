"""Stations' statements about their own records: kept, countersigned, and held against what came before.

Invariants: a statement counts with the identity key of the board's register only; the newest stands durably before its
receipt leaves; one that contradicts what stands is refused, and both are kept as evidence, for good. A receipt says that
we hold a statement; what a station believes of itself it takes from the board's witness, not from us (I4).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.trust import verified_policies
from orchestrator.settings import Home
from orchestrator.storage import Database, ForkRow, RestorationRow, StatementRow, StationRow
from policies.errors import NotFoundError, RefusedError, TrustError, UnavailableError
from policies.files import exclusive_lock, write_atomically
from policies.refusal_texts import text_of
from policies.refusals import RefusalCode, Refused
from policies.rules.statement_rules import held_against
from policies.signing import Signer, generate_key, load_signer
from policies.station_heads import StationHeads, open_heads
from policies.station_statement import (
    StatedEntry,
    StatedList,
    StatementAnswer,
    StationStatement,
    open_statement,
    sign_receipt,
)

MAX_FORKS_KEPT = 100
"""Of one station: the evidence is complete with one, and nobody may fill our disk with more."""
MAX_RESTORATIONS_KEPT = 100
"""Of one station under one key: the oldest, since evidence is never deleted; the newest is in the statement that stands."""
MAX_HEADS_KEPT_BYTES = 8 << 20

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StatementView:
    """A station's newest statement, and what went wrong before.

    Attributes:
        forks: statements that contradicted one that stood; the evidence is kept.
        restorations: how often it said that it was restored; `MAX_RESTORATIONS_KEPT` means at least so often.
    """

    station: str
    epoch: int
    sequence: int
    statement: str
    audit: int
    egress: int
    received: datetime
    forks: int
    last_fork: str | None
    restorations: int


class Statements:
    """What stations stated.

    Args:
        home: holds the notary's key, made when it is first needed.
        database: where statements and evidence stand.
        clock: returns the moment it is.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        audit: Audit | None = None,
    ) -> None:
        self._home, self._database, self._clock = home, database, clock
        self._audit = audit or Audit(database)
        self._notary_key: Signer | None = None

    def take(self, station: str, envelope: bytes) -> StatementAnswer:
        """Take up a station's statement and countersign it; the same again gets the same receipt.

        Raises:
            TrustError: not signed with the station's identity key, or of another station.
            DocumentError: no statement.
            RefusedError: it contradicts the one that stands (`STATEMENT_FORK`, `STATEMENT_ROLLBACK`).
        """
        refused: Refused | None = None
        with self._database.transaction() as session:
            key = _identity_of(session, station)
            offered = open_statement(envelope, key)
            if offered.station != station:
                raise TrustError("the statement is of another station")
            row = session.get(StatementRow, (station, key))
            if row is not None:
                refused = held_against(open_statement(row.envelope, key), offered)
                if refused is not None:
                    _keep_fork(session, row, envelope, offered, refused, self._clock())
                elif row.statement == offered.digest:
                    return self._answer(row)
            if refused is None:
                row = self._accept(session, row, key, envelope, offered)
                event = AuditEvent(
                    action=Action.STATEMENT_TAKEN, who=f"station:{station}", about=offered.digest
                )
                self._audit.append_in(session, event)
                return self._answer(row)
        code = refused.code
        self._audit.append_thinned(
            AuditEvent(
                action=Action.STATEMENT_REFUSED,
                who=f"station:{station}",
                about=offered.digest,
                outcome="refused",
                code=code.value,
            )
        )
        _LOG.error("statement_refused", extra={"station": station, "code": code.value})
        text = text_of(code)
        raise RefusedError(code.value, f"{text.means} ({refused.reasons[0].detail})", hint=text.do)

    def newest(self, station: str) -> StatementAnswer:
        """Return the newest statement of a station in the register.

        Raises:
            NotFoundError: it has stated nothing.
        """
        with self._database.reading() as session:
            row = session.get(StatementRow, (station, _identity_of(session, station)))
            if row is None:
                raise NotFoundError("this station has stated nothing yet")
            return self._answer(row)

    def stated(self) -> StatedList:
        """Return which statement of each registered station is the newest."""
        with self._database.reading() as session:
            return StatedList(
                stations=tuple(
                    StatedEntry(
                        station=row.station, epoch=row.epoch, sequence=row.sequence, statement=row.statement
                    )
                    for row in _registered(session)
                )
            )

    def views(self) -> list[StatementView]:
        """Return what the operator sees of every registered station that stated anything."""
        with self._database.reading() as session:
            return [_view(session, row) for row in _registered(session)]

    def take_heads(self, envelope: bytes) -> StationHeads:
        """Keep the witness's document, which stations fetch.

        Raises:
            TrustError: not signed by the board's witness, or older than the one that is kept.
            DocumentError: signed, but not the document.
        """
        heads = open_heads(envelope, verified_policies(self._home).witness_keys)
        with exclusive_lock(self._home.run / "heads.lock"):
            try:
                before = open_heads(self.heads(), verified_policies(self._home).witness_keys)
            except (NotFoundError, TrustError):
                before = None
            if before is not None and heads.time < before.time:
                raise TrustError("an older document of the witness than the one that is kept")
            write_atomically(self._home.station_heads, envelope)
        return heads

    def heads(self) -> bytes:
        """Return the witness's newest document as it came.

        Raises:
            NotFoundError: the witness has sent none.
        """
        try:
            return self._home.station_heads.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("the board's witness has sent no heads of stations yet") from error

    def _accept(
        self,
        session: Session,
        row: StatementRow | None,
        key: str,
        envelope: bytes,
        offered: StationStatement,
    ) -> StatementRow:
        now = self._clock()
        new_epoch = row is None or row.epoch < offered.epoch
        if row is None:
            row = StatementRow(station=offered.station, identity_key=key)
            session.add(row)
        row.epoch, row.sequence, row.statement = offered.epoch, offered.sequence, offered.digest
        row.envelope, row.receipt = envelope, sign_receipt(offered, self._notary(), now)
        row.audit_seq, row.egress_seq, row.received = offered.audit.seq, offered.egress.seq, now
        if offered.restored is not None and new_epoch:
            _keep_restoration(session, key, envelope, offered, now)
            _LOG.warning("station_restored", extra={"station": offered.station})
        session.flush()
        return row

    def _answer(self, row: StatementRow) -> StatementAnswer:
        return StatementAnswer(
            statement=row.envelope.decode(),
            receipt=row.receipt.decode(),
            notary_key=self._notary().public_hex,
        )

    def _notary(self) -> Signer:
        if self._notary_key is None:
            path = self._home.notary_key
            with exclusive_lock(self._home.run / "notary.lock"):
                if not path.is_file():
                    generate_key(path)
            self._notary_key = load_signer(path)
        return self._notary_key


def _identity_of(session: Session, station: str) -> str:
    row = session.get(StationRow, station)
    if row is None:
        raise NotFoundError("no such station in the board's register")
    if not row.identity_key:
        raise UnavailableError(
            "the register was read by an earlier version", hint="Run `pht-orchestrator station sync`."
        )
    return row.identity_key


def _registered(session: Session) -> list[StatementRow]:
    query = (
        select(StatementRow)
        .join(
            StationRow,
            (StationRow.name == StatementRow.station)
            & (StationRow.identity_key == StatementRow.identity_key),
        )
        .order_by(StatementRow.station)
    )
    return list(session.scalars(query))


def _keep_restoration(
    session: Session, key: str, envelope: bytes, offered: StationStatement, now: datetime
) -> None:
    kept = select(func.count()).where(
        RestorationRow.station == offered.station, RestorationRow.identity_key == key
    )
    known = session.get(RestorationRow, (offered.station, key, offered.epoch))
    if known is not None or (session.scalar(kept) or 0) >= MAX_RESTORATIONS_KEPT:
        return
    session.add(
        RestorationRow(
            station=offered.station, identity_key=key, epoch=offered.epoch, envelope=envelope, received=now
        )
    )


def _keep_fork(
    session: Session,
    row: StatementRow,
    envelope: bytes,
    offered: StationStatement,
    refused: Refused,
    now: datetime,
) -> None:
    known = select(func.count()).where(ForkRow.station == row.station, ForkRow.offered == offered.digest)
    kept = select(func.count()).where(ForkRow.station == row.station)
    if session.scalar(known) or (session.scalar(kept) or 0) >= MAX_FORKS_KEPT:
        return
    session.add(
        ForkRow(
            station=row.station,
            code=refused.code.value,
            standing_envelope=row.envelope,
            offered=offered.digest,
            offered_envelope=envelope,
            received=now,
        )
    )


def _view(session: Session, row: StatementRow) -> StatementView:
    # Never the envelopes: there may be many, and each is as large as a statement.
    forks = select(func.count()).where(ForkRow.station == row.station)
    last = session.execute(
        select(ForkRow.code, ForkRow.received)
        .where(ForkRow.station == row.station)
        .order_by(ForkRow.id.desc())
        .limit(1)
    ).first()
    restored = select(func.count()).where(
        RestorationRow.station == row.station, RestorationRow.identity_key == row.identity_key
    )
    return StatementView(
        station=row.station,
        epoch=row.epoch,
        sequence=row.sequence,
        statement=row.statement,
        audit=row.audit_seq,
        egress=row.egress_seq,
        received=row.received,
        forks=session.scalar(forks) or 0,
        last_fork=None if last is None else f"{RefusalCode(last.code)} {last.received:%Y-%m-%d %H:%M}",
        restorations=session.scalar(restored) or 0,
    )
