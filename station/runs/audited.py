"""What the audit says of something that the station does for a run: for whom, to what purpose, under which order and policy."""

from policies.refusals import RefusalCode
from station.audit.events import AuditEvent, AuditRecord
from station.runs.repository import STATION_ACTOR, Run


def entry_of(
    run: Run,
    event: AuditEvent,
    about: str,
    numbers: dict[str, int],
    *,
    why: RefusalCode | None = None,
    words: str = "",
) -> AuditRecord:
    """Return the entry.

    Args:
        run: for which.
        event: what happens.
        about: the digest of what it happens to.
        numbers: counts of ours, never a train's.
        why: the code of what made it happen.
        words: of ours, behind order and policy.
    """
    return AuditRecord(
        event=event,
        actor=STATION_ACTOR,
        on_behalf_of=run.requester,
        purpose=run.purpose,
        object=about,
        codes=() if why is None else (why.value,),
        numbers=numbers,
        detail=f"order {run.order_digest} policy {run.policy_id} v{run.policy_version} {words}".rstrip(),
    )
