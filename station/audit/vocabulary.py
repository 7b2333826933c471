"""What our events are called in the standard audit trail: DICOM PS3.15 A.5 (which extends RFC 3881), code per code.

Each event has an EventID of DICOM's context group 400, an EventActionCode (C create, R read, U update, D delete, E execute) and,
where DICOM has one, an EventTypeCode of context group 401. Our own name goes along as a further EventTypeCode of the scheme
``PHT``, so that nothing is lost in translation. A test holds that every event has its line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from station.audit.events import AuditEvent as E

Action = Literal["C", "R", "U", "D", "E"]

EVENT_IDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "110100": "Application Activity",
        "110101": "Audit Log Used",
        "110103": "DICOM Instances Accessed",
        "110106": "Export",
        "110107": "Import",
        "110112": "Query",
        "110113": "Security Alert",
    }
)
EVENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "110120": "Application Start",
        "110121": "Application Stop",
        "110126": "Node Authentication",
        "110129": "Security Configuration",
        "110131": "Software Configuration",
        "110132": "Use of Restricted Function",
        "110135": "Object Security Attributes Changed",
    }
)


@dataclass(frozen=True, slots=True)
class StandardName:
    """How the standard calls an event.

    Attributes:
        event_id: of context group 400.
        action: the EventActionCode.
        event_type: of context group 401, where it has one that fits.
    """

    event_id: str
    action: Action
    event_type: str | None = None


_ACTIVITY, _AUDIT, _DATA, _EXPORT, _IMPORT, _QUERY, _SECURITY = EVENT_IDS

STANDARD_NAMES: Final[Mapping[E, StandardName]] = MappingProxyType(
    {
        E.STATION_STARTED: StandardName(_ACTIVITY, "E", "110120"),
        E.STATION_STOPPED: StandardName(_ACTIVITY, "E", "110121"),
        E.SETTINGS_CHANGED: StandardName(_SECURITY, "U", "110129"),
        E.HANDOVER_TAKEN_UP: StandardName(_IMPORT, "C"),
        E.HANDOVER_REFUSED: StandardName(_SECURITY, "E", "110126"),
        E.CONSENT_UPDATED: StandardName(_SECURITY, "U", "110135"),
        E.CONSENT_WITHDRAWN: StandardName(_SECURITY, "U", "110135"),
        E.DATA_WITHDRAWN: StandardName(_DATA, "D"),
        E.TRUST_REFRESHED: StandardName(_SECURITY, "U", "110129"),
        E.TRUST_REFUSED: StandardName(_SECURITY, "E", "110126"),
        E.ORDER_SEEN: StandardName(_ACTIVITY, "E"),
        E.ORDER_ADMITTED: StandardName(_SECURITY, "E", "110132"),
        E.ORDER_REFUSED: StandardName(_SECURITY, "E", "110132"),
        E.OPERATOR_APPROVED: StandardName(_SECURITY, "E", "110132"),
        E.OPERATOR_HELD: StandardName(_SECURITY, "E", "110132"),
        E.OPERATOR_STOPPED: StandardName(_SECURITY, "E", "110132"),
        E.RUN_CHANGED: StandardName(_ACTIVITY, "E"),
        E.IMAGE_FETCHED: StandardName(_ACTIVITY, "U", "110131"),
        E.IMAGE_REMOVED: StandardName(_ACTIVITY, "U", "110131"),
        E.COHORT_FROZEN: StandardName(_DATA, "C"),
        E.COHORT_WIPED: StandardName(_DATA, "D"),
        E.VOLUMES_PURGED: StandardName(_DATA, "D"),
        E.RETENTION_ENFORCED: StandardName(_DATA, "D"),
        E.CONTAINER_STARTED: StandardName(_ACTIVITY, "E", "110120"),
        E.COUNTING_STARTED: StandardName(_ACTIVITY, "E", "110120"),
        E.CONTAINER_ENDED: StandardName(_ACTIVITY, "E", "110121"),
        E.GPU_GIVEN_BACK: StandardName(_ACTIVITY, "E", "110121"),
        E.INSTRUCTION_REFUSED: StandardName(_SECURITY, "E", "110132"),
        E.DATA_USED: StandardName(_DATA, "R"),
        E.MEMBERSHIP_SCORED: StandardName(_DATA, "R"),
        E.READINESS_LOOKED: StandardName(_DATA, "R"),
        E.TRAIN_FAILED: StandardName(_ACTIVITY, "E"),
        E.RELEASE_RECORDED: StandardName(_EXPORT, "R"),
        E.RELEASE_REPEATED: StandardName(_EXPORT, "R"),
        E.RELEASE_WITHHELD: StandardName(_EXPORT, "R"),
        E.RELEASE_REFUSED: StandardName(_EXPORT, "R"),
        E.RELEASE_PARKED: StandardName(_DATA, "C"),
        E.REVIEW_SHOWN: StandardName(_QUERY, "E"),
        E.REVIEW_WORD: StandardName(_SECURITY, "E", "110132"),
        E.REVIEW_LAPSED: StandardName(_DATA, "D"),
        E.PREDICTIONS_KEPT: StandardName(_DATA, "C"),
        E.PREDICTIONS_REMOVED: StandardName(_DATA, "D"),
        E.PRIVACY_CHARGED: StandardName(_EXPORT, "R"),
        E.PRIVACY_REFUSED: StandardName(_EXPORT, "R"),
        E.AUDIT_EXPORTED: StandardName(_AUDIT, "R"),
        E.ACCESSES_SHOWN: StandardName(_AUDIT, "R"),
        E.LOGS_SHOWN: StandardName(_QUERY, "E"),
        E.COUNTS_EXPORTED: StandardName(_EXPORT, "R"),
        E.USAGE_EXPORTED: StandardName(_EXPORT, "R"),
        E.EVIDENCE_EXPORTED: StandardName(_EXPORT, "R"),
        E.AUDIT_HEAD_SIGNED: StandardName(_EXPORT, "R"),
        E.NOTARY_CHANGED: StandardName(_SECURITY, "U", "110129"),
        E.RESTORE_DETECTED: StandardName(_SECURITY, "E", "110135"),
        E.RESTORE_TAKEN_BACK: StandardName(_SECURITY, "E", "110135"),
        E.RECORDS_RECONCILED: StandardName(_SECURITY, "U", "110129"),
        E.SELFTEST_RAN: StandardName(_SECURITY, "E", "110132"),
    }
)

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType({"success": "0", "refused": "4", "failed": "8"})
"""EventOutcomeIndicator: a refusal is a minor failure of what was asked, and works as it should."""
