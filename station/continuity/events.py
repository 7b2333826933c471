"""What the audit says of the board's repository and of the hospital's settings, and the versions that were seen."""

from policies.refusals import Refused
from policies.station_statement import TrustVersions
from policies.trust.policy_set import PolicySet
from station.audit.events import AuditEvent, AuditRecord
from station.continuity.tables import ContinuityRow

ACTOR = "station:compute"


def versions_of(policies: PolicySet) -> TrustVersions:
    """Return the versions of a verified state."""
    state, register = policies.state, policies.register
    return TrustVersions(
        root=state.root_version,
        timestamp=state.timestamp_version,
        targets=state.targets_version,
        register_version=0 if register is None else register.version,
    )


def trust_of(row: ContinuityRow) -> TrustVersions:
    """Return the highest versions seen."""
    return TrustVersions(
        root=row.trust_root,
        timestamp=row.trust_timestamp,
        targets=row.trust_targets,
        register_version=row.trust_register,
    )


def what_is_permitted(versions: TrustVersions) -> tuple[int, int, int]:
    """Return what an event is about; the witness signs every few minutes, and its signature changes nothing of it."""
    return versions.root, versions.targets, versions.register_version


def trust_event(policies: PolicySet, found: TrustVersions) -> AuditRecord:
    """Say that the board's repository is another one, and what is in force now."""
    in_force = ", ".join(f"{name} v{version}" for name, version in sorted(policies.policies))
    return AuditRecord(
        event=AuditEvent.TRUST_REFRESHED,
        actor=ACTOR,
        numbers={
            "root": found.root,
            "timestamp": found.timestamp,
            "targets": found.targets,
            "register": found.register_version,
        },
        detail=f"in force: {in_force or 'nothing'}",
    )


def refused_trust_event(refused: Refused) -> AuditRecord:
    """Say that the board's repository cannot be verified."""
    return AuditRecord(
        event=AuditEvent.TRUST_REFUSED,
        actor=ACTOR,
        outcome="refused",
        codes=tuple(dict.fromkeys(reason.code.value for reason in refused.reasons)),
        detail="; ".join(reason.detail for reason in refused.reasons),
    )


def settings_event(before: str, digest: str) -> AuditRecord:
    """Say that the hospital's settings are others than in the life before."""
    return AuditRecord(
        event=AuditEvent.SETTINGS_CHANGED,
        actor="operator:settings",
        object=digest,
        detail=f"before: {before}" if before else "first settings",
    )
