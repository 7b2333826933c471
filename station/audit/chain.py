"""A hash chain over the rows of one table: the one mechanism behind the audit log and the egress ledger.

How entries are linked and checked is `policies.chains`; here they are rows ``(seq, body, digest)``.
"""

from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue
from sqlalchemy import LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from policies.chains import (
    EMPTY,
    GENESIS,
    LINK_KEYS,
    MAX_BODY_BYTES,
    ChainBreak,
    ChainHead,
    Link,
    next_link,
    read_body,
    verify_links,
)
from policies.refusals import Permitted
from station.storage.schema import Base

__all__ = [
    "EMPTY",
    "GENESIS",
    "LINK_KEYS",
    "MAX_BODY_BYTES",
    "Chain",
    "ChainBreak",
    "ChainHead",
    "ChainedRow",
    "Link",
    "read_body",
    "verify_links",
]

_PAGE: Final = 500


class ChainedRow(Base):
    """A row of a chained table; a table derives from it and adds its name."""

    __abstract__ = True

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(String(71))


class Chain:
    """Appends to one chained table and reads it.

    Args:
        name: stands in every body, so that an entry of one chain is not one of another.
        row: the mapped class.
    """

    def __init__(self, name: str, row: type[ChainedRow]) -> None:
        self.name = name
        self._row = row

    def head(self, session: Session) -> ChainHead:
        """Return the last entry's place and digest."""
        row = self._row
        last = session.execute(select(row.seq, row.digest).order_by(row.seq.desc()).limit(1)).first()
        return EMPTY if last is None else ChainHead(last[0], last[1])

    def append(self, session: Session, content: dict[str, JsonValue]) -> ChainHead:
        """Add one entry within the caller's write transaction.

        Raises:
            StateError: the content uses a key of the chain, or is too large.
        """
        link = next_link(self.name, content, self.head(session))
        session.add(self._row(seq=link.seq, body=link.body, digest=link.digest))
        session.flush()
        return ChainHead(link.seq, link.digest)

    def digest_at(self, session: Session, seq: int) -> str | None:
        """Return the digest of one entry, or None where the chain does not reach it."""
        return session.scalar(select(self._row.digest).where(self._row.seq == seq))

    def links(self, session: Session, after: int = 0) -> Iterator[Link]:
        """Yield entries in order, a page at a time."""
        row = self._row
        while True:
            query = (
                select(row.seq, row.body, row.digest).where(row.seq > after).order_by(row.seq).limit(_PAGE)
            )
            page = session.execute(query).all()
            for seq, body, digest in page:
                yield Link(seq, body, digest)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def verify(self, session: Session, known: ChainHead | None = None) -> Permitted[ChainHead] | ChainBreak:
        """Check the whole stored chain, see `verify_links`."""
        return verify_links(self.name, self.links(session), known)
