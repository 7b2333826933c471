"""A station's records around recorded releases, for tests; also run as a program that is killed half-way."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egress_documents import ORDER, Bench, head
from sqlalchemy.orm import Session

from policies.refusals import Refused
from policies.wire.instructions import encode
from station.audit import AuditLog
from station.egress.records.ledger import EgressLedger
from station.egress.records.releases import ChainDigests, Recorded, ReleaseStore, ReleaseTerms
from station.egress.release import Release, ReplyStamp, released_reply
from station.runs import NewOrder, RunRepository
from station.storage import Database, open_database


def permitted(_session: Session) -> Refused | None:
    """The last look, finding nothing wrong."""
    return None


@dataclass
class Records:
    """Database, audit, ledger and store in one folder, with one order seen."""

    database: Database
    audit: AuditLog
    ledger: EgressLedger
    store: ReleaseStore

    @classmethod
    def open(cls, folder: Path) -> "Records":
        database = open_database(folder / "station.db")
        audit, ledger = AuditLog(database), EgressLedger(database)
        RunRepository(database, audit).see(NewOrder(ORDER, "5" * 32, b"{}", "cxr-finding", 1))
        return cls(database, audit, ledger, ReleaseStore(database, audit, ledger, folder / "releases"))

    def record(
        self,
        release: Release,
        *,
        maximum: int = 100,
        check: Callable[[Session], Refused | None] = permitted,
        attempt: int = 1,
        make: Callable[[ChainDigests], bytes] | None = None,
    ) -> Recorded | Refused:
        terms = ReleaseTerms("cxr-finding", maximum, "requester:umc-demo", "method-development", check)
        return self.store.record(release, terms, make or reply_of(release, attempt))


def reply_of(release: Release, attempt: int = 1) -> Callable[[ChainDigests], bytes]:
    """Return what makes the reply's bytes."""

    def make(heads: ChainDigests) -> bytes:
        return encode(released_reply(release, ReplyStamp(attempt, "abc", 1.0, heads.ledger, heads.audit)))

    return make


def guarded(folder: Path, round_: int = 1, loss: float = 0.5) -> Release:
    """A release from the real guard, its arrays in `folder`."""
    bench = Bench(folder)
    outcome = bench.guard().check(bench.request(round_=round_), head(metrics={"loss": loss}), bench.answer())
    if not isinstance(outcome, Release):
        raise TypeError(outcome)
    return outcome


def _kill(*_anything: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Record a release and die: before the commit (`reply`) or after it (`done`)."""
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    records = Records.open(folder)
    release = guarded(folder)
    if moment == "reply":
        records.record(release, make=_kill)  # type: ignore[arg-type]
    records.record(release)
    _kill()


if __name__ == "__main__":
    main()
