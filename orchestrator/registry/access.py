"""Who is asking, and which blobs they may read: tokens, registered stations, grants.

Does not parse HTTP. Invariants: default deny; a token is stored as its hash only, ends, and a revoked one is out at its next
request (each is looked up in the database); a blob is readable through a grant
(`bundle`, `order:<digest>`, `owner:<who>`), and a grant is made only for bytes that the granting party could read or
has sent in full, so naming a digest opens nothing.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.noting import Moments
from orchestrator.storage import BlobGrant, Database, OrderRow, OrderStationRow, StationRow, TokenRow
from orchestrator.storage.dialects import insert_missing
from policies.documents import Digest, digest_of
from policies.errors import NotFoundError, TrustError

TOKEN_PREFIX = "pht_"  # noqa: S105 - marks our tokens for secret scanners
BUNDLE_SCOPE = "bundle"
OWNER_PREFIX = "owner:"


class Role(StrEnum):
    """What a party is to the orchestrator."""

    RESEARCHER = "researcher"
    BOARD = "board"
    WITNESS = "witness"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    STATION = "station"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, after their token or signature was checked; made in this module only."""

    role: Role
    name: str

    @property
    def id(self) -> str:
        """How rows name a principal."""
        return f"{self.role}:{self.name}"

    @property
    def sees_all_runs(self) -> bool:
        """Whether runs of others are shown: progress and results are the requester's."""
        return self.role in {Role.BOARD, Role.OPERATOR, Role.AUDITOR}


OPERATOR_HERE = Principal(Role.OPERATOR, "command line")
"""Who may run our command line on the orchestrator's own home."""


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token, without what it is."""

    id: int
    role: Role
    name: str
    created: datetime
    expires: datetime | None
    last_used: datetime | None
    revoked: datetime | None

    def state(self, now: datetime) -> str:
        """Whether it opens anything."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "in use"


class Access:
    """Tokens, stations' keys and grants."""

    def __init__(self, database: Database, audit: Audit | None = None) -> None:
        self._database = database
        self._audit = audit or Audit(database)
        self._used = Moments(self._note_used)

    def new_token(
        self, role: Role, name: str, days: float | None = None, by: Principal = OPERATOR_HERE
    ) -> str:
        """Make a token; it is returned once and kept as a hash.

        Args:
            role: what it opens.
            name: who gets it.
            days: when it ends; None for one that is revoked only.
            by: who makes it.
        """
        token = TOKEN_PREFIX + secrets.token_hex(32)
        now = _now()
        with self._database.transaction() as session:
            row = TokenRow(
                secret_digest=digest_of(token.encode()),
                role=role,
                name=name,
                created=now,
                revoked=None,
                expires=None if days is None else now + timedelta(days=days),
                last_used=None,
            )
            session.add(row)
            session.flush()
            about = f"token {row.id} of {role}:{name}"
            self._audit.append_in(session, AuditEvent(action=Action.TOKEN_MADE, who=by.id, about=about))
        return token

    def revoke_tokens(
        self, role: Role, name: str, by: Principal = OPERATOR_HERE, token_id: int | None = None
    ) -> int:
        """Withdraw all tokens of a party, or one of them; return how many.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.transaction() as session:
            query = select(TokenRow).where(
                TokenRow.role == role, TokenRow.name == name, TokenRow.revoked.is_(None)
            )
            if token_id is not None:
                query = query.where(TokenRow.id == token_id)
            rows = session.scalars(query).all()
            if not rows:
                raise NotFoundError(f"there is no {role} token of the name {name}")
            for row in rows:
                row.revoked = _now()
                about = f"token {row.id} of {role}:{name}"
                self._audit.append_in(
                    session, AuditEvent(action=Action.TOKEN_REVOKED, who=by.id, about=about)
                )
            return len(rows)

    def tokens(self) -> list[TokenView]:
        """All tokens that were ever made, the newest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(TokenRow).order_by(TokenRow.id.desc())).all()
        return [
            TokenView(
                row.id,
                Role(row.role),
                row.name,
                row.created,
                row.expires,
                self._used.newest(str(row.id), row.last_used),
                row.revoked,
            )
            for row in rows
        ]

    def by_token(self, token: str) -> Principal:
        """Return whose token this is.

        Raises:
            TrustError: unknown, withdrawn, or over.
        """
        # A lookup by hash: its time says nothing about the token itself.
        with self._database.reading() as session:
            row = session.scalar(
                select(TokenRow).where(
                    TokenRow.secret_digest == digest_of(token.encode()), TokenRow.revoked.is_(None)
                )
            )
        # One answer for all: who holds an old token learns nothing from it.
        if row is None or (row.expires is not None and row.expires <= _now()):
            raise TrustError(
                "the token is unknown, was withdrawn, or is over", hint="Ask the orchestrator's operator."
            )
        self._used.note(str(row.id))
        return Principal(Role(row.role), row.name)

    def by_station_key(self, fingerprint: Digest) -> Principal:
        """Return the registered station with this node key.

        Raises:
            TrustError: no registered station has it.
        """
        with self._database.reading() as session:
            name = session.scalar(select(StationRow.name).where(StationRow.key_fingerprint == fingerprint))
        if name is None:
            raise TrustError("the key is not of a station in the board's register")
        return Principal(Role.STATION, name)

    def orders_of(self, principal: Principal) -> Sequence[Digest]:
        """The orders that a party gave, or that name it; the newest first."""
        query = select(OrderRow.digest).order_by(OrderRow.accepted.desc())
        if principal.role is Role.STATION:
            query = query.join(OrderStationRow).where(OrderStationRow.station == principal.name)
        else:
            query = query.where(OrderRow.requester == principal.id)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def may_read_blob(self, principal: Principal, digest: Digest) -> bool:
        """Whether one of the blob's grants covers the principal."""
        with self._database.reading() as session:
            return _readable(session, principal, digest)

    def is_party(self, principal: Principal, order_digest: Digest) -> bool:
        """Whether the principal is the requester of an order or a station it names."""
        with self._database.reading() as session:
            return _is_party(session, principal, order_digest)

    def grant(self, digest: Digest, scope: str) -> None:
        """Let a scope read a blob; the caller has seen to it that the granting party holds the bytes."""
        with self._database.transaction() as session:
            owner = scope.removeprefix(OWNER_PREFIX)
            if owner != scope and session.get(BlobGrant, (digest, scope)) is None:
                self._audit.append_in(session, AuditEvent(action=Action.BLOB_STORED, who=owner, about=digest))
            add_grants(session, [digest], scope)

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what was noted of tokens' use."""
        self._used.flush(all_of_it=all_of_it)

    def _note_used(self, moments: Mapping[str, datetime]) -> None:
        with self._database.transaction() as session:
            for key, moment in moments.items():
                row = session.get(TokenRow, int(key))
                if row is not None:
                    row.last_used = moment

    def grant_to_order(self, digest: Digest, order_digest: Digest) -> None:
        """Let the parties of an order read a blob (the run worker calls this for the weights it publishes)."""
        self.grant(digest, order_scope(order_digest))


def order_scope(order_digest: Digest) -> str:
    """The scope of one order's parties."""
    return f"order:{order_digest}"


def owner_scope(principal: Principal) -> str:
    """The scope of one party."""
    return f"{OWNER_PREFIX}{principal.id}"


def add_grants(session: Session, digests: Iterable[Digest], scope: str) -> None:
    """Add grants within a transaction; one that is there already stays."""
    for digest in digests:
        insert_missing(session, BlobGrant, digest=digest, scope=scope)


def unreadable(session: Session, principal: Principal, digests: Iterable[Digest]) -> list[Digest]:
    """Return those of `digests` that the principal may not read."""
    return [digest for digest in digests if not _readable(session, principal, digest)]


def _readable(session: Session, principal: Principal, digest: Digest) -> bool:
    scopes = session.scalars(select(BlobGrant.scope).where(BlobGrant.digest == digest)).all()
    for scope in scopes:
        if scope == owner_scope(principal):
            return True
        if scope == BUNDLE_SCOPE and principal.role not in {Role.WITNESS, Role.AUDITOR}:
            return True
        if scope.startswith("order:") and _is_party(session, principal, scope.removeprefix("order:")):
            return True
    return False


def _is_party(session: Session, principal: Principal, order_digest: Digest) -> bool:
    if principal.role is Role.STATION:
        return session.get(OrderStationRow, (order_digest, principal.name)) is not None
    order = session.get(OrderRow, order_digest)
    return order is not None and order.requester == principal.id


def _now() -> datetime:
    return datetime.now(UTC)
