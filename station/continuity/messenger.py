"""Carries statements out and countersigned heads in, over the orchestrator's own HTTPS API.

Decides when to ask; what an answer means, `station.continuity.records` decides. Nothing that arrives is believed for who
brings it: a statement is ours by our own signature, the witness's document by the key in the verified root.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import func, select

from policies.errors import NotFoundError, PhtError, RefusedError, TrustError
from policies.refusals import Permitted, RefusalCode, Refused
from policies.station_heads import open_heads
from policies.station_statement import StatementAnswer
from policies.trust.policy_set import PolicySet
from station.continuity.records import Records
from station.continuity.tables import StatementRow
from station.egress.records.tables import ReleaseRow
from station.settings.statements import StatementSettings
from station.storage.database import Database

log = logging.getLogger(__name__)

_CONTRADICTED = frozenset({RefusalCode.STATEMENT_FORK.value, RefusalCode.STATEMENT_ROLLBACK.value})
_HEADS_EVERY_S = 60.0
_ANXIOUS_S = 3.0
"""While nothing may run until the witness's document, or the newest statement, is here."""
_FIRST_RETRY_S = 10.0
_REFUSED_FOR_S = 10.0


class Registry(Protocol):
    """The orchestrator's API as far as statements go; `policies.wire.registry_client.RegistryClient` is one."""

    def put_statement(self, station: str, envelope: bytes) -> StatementAnswer:
        """State what our records are."""

    def get_statement(self, station: str) -> StatementAnswer:
        """The newest statement of a station."""

    def get_heads(self) -> bytes:
        """The witness's newest document."""


@dataclass(frozen=True, slots=True)
class Post:
    """Who writes to whom.

    Attributes:
        policies: the verified policy set, asked of the mirror when it is due.
        announce: called before anything is asked; statements have entries of their own.
    """

    station: str
    registry: Registry
    policies: Callable[[], Permitted[PolicySet] | Refused]
    settings: StatementSettings
    announce: Callable[[], None]


class Messenger:
    """One look after the other, from one thread at a time."""

    def __init__(self, records: Records, database: Database, post: Post) -> None:
        self._records, self._database, self._post = records, database, post
        self._stated_at: float | None = None
        self._heads_at: float | None = None
        self._evidence_at: float | None = None
        self._asked = False
        self._refused: tuple[Refused | None, float] = (None, 0.0)
        self._failures = 0
        self._turn = threading.RLock()

    def look(self) -> None:
        """Send what is due, fetch what is due; a network that fails is tried again at a later look.

        Raises:
            StorageError: a statement could not be made durable.
        """
        with self._turn:
            self._look()

    def _look(self) -> None:
        policies = self._policies()
        self._records.look()
        wanted = self._records.restored or not self._asked
        if wanted and (self._evidence_at is None or _past(self._evidence_at, _ANXIOUS_S)):
            self.fetch_evidence()
        if not self._records.restored and self._is_due():
            self._send()
        anxious = self._records.reason() is not None
        wait_s = _ANXIOUS_S if anxious else min(_HEADS_EVERY_S, self._post.settings.every_s)
        if isinstance(policies, Permitted) and (self._heads_at is None or _past(self._heads_at, wait_s)):
            self._fetch_heads(policies.value)

    def _policies(self) -> Permitted[PolicySet] | Refused:
        """Ask for the policy set; where it was refused, not at every look: each would ask the mirror."""
        refused, at = self._refused
        if refused is not None and not _past(at, _REFUSED_FOR_S):
            return refused
        policies = self._post.policies()
        if isinstance(policies, Permitted):
            self._refused = (None, 0.0)
            self._records.note_trust(policies.value)
        else:
            self._refused = (policies, time.monotonic())
            self._records.note_refused_trust(policies)
        return policies

    def fetch_evidence(self) -> None:
        """Ask the orchestrator for our newest statement: one that our records lack shows that they are not the newest."""
        self._evidence_at = time.monotonic()
        try:
            with self._turn:
                self._post.announce()
                answer = self._post.registry.get_statement(self._post.station)
                self._records.consider_statement(answer.statement.encode())
        except NotFoundError:
            self._asked = True
        except PhtError as error:
            log.warning("statement.not_fetched", extra={"reason": type(error).__name__})
        else:
            self._asked = True

    def fetch_heads(self) -> None:
        """Ask for the witness's newest document now, whatever is due."""
        with self._turn:
            policies = self._policies()
            if isinstance(policies, Permitted):
                self._fetch_heads(policies.value)

    def _is_due(self) -> bool:
        if self._stated_at is None:
            return True
        settings = self._post.settings
        retry_s = min(settings.every_s, _FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 20))
        if self._failures:
            return _past(self._stated_at, retry_s)
        if _past(self._stated_at, settings.every_s):
            return True
        return _past(self._stated_at, settings.after_release_s) and self._released_since()

    def _released_since(self) -> bool:
        with self._database.read() as session:
            stated = session.scalar(select(func.max(StatementRow.egress_seq))) or 0
            released = session.scalar(select(func.max(ReleaseRow.ledger_seq))) or 0
            return released > stated

    def _send(self) -> None:
        envelope = self._records.state()
        self._stated_at = time.monotonic()
        try:
            answer = self._post.registry.put_statement(self._post.station, envelope)
            self._records.keep_receipt(answer)
        except RefusedError as error:
            self._failures += 1
            log.error("statement.refused", extra={"code": error.code})  # noqa: TRY400 - no text of others
            if error.code in _CONTRADICTED:
                self.fetch_evidence()
        except PhtError as error:
            self._failures += 1
            log.warning("statement.not_sent", extra={"reason": type(error).__name__})
        else:
            self._failures = 0

    def _fetch_heads(self, policies: PolicySet) -> None:
        self._heads_at = time.monotonic()
        try:
            self._post.announce()
            envelope = self._post.registry.get_heads()
            heads = open_heads(envelope, policies.witness_keys)
        except NotFoundError:
            return
        except PhtError as error:
            log.warning("heads.not_fetched", extra={"reason": type(error).__name__})
            return
        try:
            lacking = self._records.consider_heads(envelope, heads)
        except TrustError as error:
            log.warning("heads.not_taken", extra={"reason": type(error).__name__})
            return
        if lacking:
            self.fetch_evidence()


def _past(since: float, seconds: float) -> bool:
    return time.monotonic() - since >= seconds
