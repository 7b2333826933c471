"""That a selftest ran, and with which verdict, in the station's audit: by compute where it runs, else by its own user."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from policies.documents import Digest, StrictModel, canonical_json, digest_of, load_json
from policies.errors import StorageError, UnavailableError
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.layout import StationPaths
from station.selftest.report import Report
from station.storage import open_database
from station.web.client import LocalApi

_TIMEOUT_S: Final = 120
_MAX_BYTES: Final = 64 * 1024


class SelftestRan(StrictModel):
    """What the audit keeps of a selftest.

    Attributes:
        actor: who typed it.
        report: the digest of the whole report.
        not_stopped_lines: numbers of the table's lines that were not stopped; the first of them.
    """

    actor: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,100}$")
    report: Digest
    complete: bool
    stopped: Annotated[int, Field(ge=0)]
    not_stopped: Annotated[int, Field(ge=0)]
    not_applicable: Annotated[int, Field(ge=0)]
    not_stopped_lines: str = Field(default="", pattern=r"^[0-9, ]{0,500}$")


class SelftestDesk:
    """Compute's side: writes the entry."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def selftest_ran(self, ran: SelftestRan) -> int:
        """Write the entry; durable on return.

        Raises:
            StorageError: it cannot be written.
        """
        return self._audit.append(
            AuditRecord(
                event=AuditEvent.SELFTEST_RAN,
                actor=f"operator:{ran.actor}",
                outcome="success" if not ran.not_stopped else "failed",
                object=ran.report,
                numbers={
                    "complete": int(ran.complete),
                    "stopped": ran.stopped,
                    "not_stopped": ran.not_stopped,
                    "not_applicable": ran.not_applicable,
                },
                detail=f"not stopped: lines {ran.not_stopped_lines}" if ran.not_stopped else "",
            )
        )


def record(paths: StationPaths, report: Report, actor: str) -> None:
    """Have the audit say that this selftest ran.

    Raises:
        UnavailableError, StorageError: the entry could not be written.
    """
    open_lines = [line.number for line in report.lines if line.verdict == "NOT STOPPED"]
    ran = SelftestRan(
        actor=actor,
        report=digest_of(canonical_json(report)),
        complete=report.complete,
        stopped=report.stopped,
        not_stopped=report.not_stopped,
        not_applicable=report.not_applicable,
        not_stopped_lines=", ".join(map(str, open_lines[:100])),
    )
    try:
        LocalApi(paths.api_socket, paths.api_token).post("/v1/selftest", ran.model_dump(mode="json"))
    except UnavailableError:
        _by_its_own_user(paths, ran)


def _by_its_own_user(paths: StationPaths, ran: SelftestRan) -> None:
    """Write the entry while compute does not run, as the user whose database it is: it could not open what root made."""
    try:
        owner = paths.compute.stat()
        as_root = os.geteuid() == 0
        done = subprocess.run(
            [sys.executable, "-m", "station.selftest.recording", str(paths.home)],
            input=canonical_json(ran),
            capture_output=True,
            user=owner.st_uid if as_root else None,
            group=owner.st_gid if as_root else None,
            extra_groups=[] if as_root else None,
            cwd="/",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StorageError("the audit cannot say that a selftest ran", hint="Run this as root.") from error
    if done.returncode:
        raise StorageError("the audit cannot say that a selftest ran", hint="Run this as root.")


def main() -> int:
    """Write the entry that stands on the input; run by `record` as the database's own user."""
    paths = StationPaths(Path(sys.argv[1]))
    ran = load_json(SelftestRan, sys.stdin.buffer.read(_MAX_BYTES), what="selftest", max_bytes=_MAX_BYTES)
    SelftestDesk(AuditLog(open_database(paths.database))).selftest_ran(ran)
    return 0


if __name__ == "__main__":
    sys.exit(main())
