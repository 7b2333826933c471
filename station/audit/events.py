"""What is audited: a closed list of events, each with the fields that NEN 7513:2024 asks of a log of access.

NEN 7513 wants to know when, what, who, on whose behalf, why, about which object and with which outcome. Objects here are
orders, policies, collections and releases, never a patient's identity: compute does not know one. Patients appear as
counts and, where one is withdrawn, as the catalogue's pseudonym.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from policies.documents import Sequence, StrictModel

Outcome = Literal["success", "refused", "failed"]
Actor = Annotated[
    str, Field(pattern=r"^(station|operator|orchestrator|board|requester|train):[A-Za-z0-9_.@-]{1,100}$")
]
"""Who did it: a role and a name, for example ``operator:j.smit`` or ``station:compute``."""

Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@-]{1,160}$")]
Code = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")]
MAX_DETAIL = 2000


def _plain(value: object) -> object:
    """Make a text one bounded line: a log that refused a long or odd text would let its sender stop the station."""
    if not isinstance(value, str):
        return value
    printable = "".join(character if character.isprintable() else "?" for character in value[:MAX_DETAIL])
    return printable.encode("utf-8", "replace").decode()


Detail = Annotated[str, BeforeValidator(_plain), Field(max_length=MAX_DETAIL)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


def requester_actor(organisation: str) -> str:
    """Return how the audit names a requester.

    >>> requester_actor("UMC A")
    'requester:UMC_A'
    """
    return f"requester:{re.sub('[^A-Za-z0-9_.@-]', '_', organisation)[:100] or 'unnamed'}"


class AuditEvent(StrEnum):
    """Everything that is audited; an event that is not here cannot be written."""

    STATION_STARTED = "station-started"
    STATION_STOPPED = "station-stopped"
    SETTINGS_CHANGED = "settings-changed"
    HANDOVER_TAKEN_UP = "handover-taken-up"
    HANDOVER_REFUSED = "handover-refused"
    CONSENT_UPDATED = "consent-updated"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    DATA_WITHDRAWN = "data-withdrawn"
    TRUST_REFRESHED = "trust-refreshed"
    TRUST_REFUSED = "trust-refused"
    ORDER_SEEN = "order-seen"
    ORDER_ADMITTED = "order-admitted"
    ORDER_REFUSED = "order-refused"
    OPERATOR_APPROVED = "operator-approved"
    OPERATOR_HELD = "operator-held"
    OPERATOR_STOPPED = "operator-stopped"
    RUN_CHANGED = "run-changed"
    IMAGE_FETCHED = "image-fetched"
    IMAGE_REMOVED = "image-removed"
    COHORT_FROZEN = "cohort-frozen"
    COHORT_WIPED = "cohort-wiped"
    VOLUMES_PURGED = "volumes-purged"
    RETENTION_ENFORCED = "retention-enforced"
    CONTAINER_STARTED = "container-started"
    COUNTING_STARTED = "counting-started"
    CONTAINER_ENDED = "container-ended"
    GPU_GIVEN_BACK = "gpu-given-back"
    INSTRUCTION_REFUSED = "instruction-refused"
    DATA_USED = "data-used"
    MEMBERSHIP_SCORED = "membership-scored"
    READINESS_LOOKED = "readiness-looked"
    TRAIN_FAILED = "train-failed"
    RELEASE_RECORDED = "release-recorded"
    RELEASE_REPEATED = "release-repeated"
    RELEASE_WITHHELD = "release-withheld"
    RELEASE_REFUSED = "release-refused"
    RELEASE_PARKED = "release-parked"
    REVIEW_SHOWN = "review-shown"
    REVIEW_WORD = "review-word"
    REVIEW_LAPSED = "review-lapsed"
    PREDICTIONS_KEPT = "predictions-kept"
    PREDICTIONS_REMOVED = "predictions-removed"
    PRIVACY_CHARGED = "privacy-charged"
    PRIVACY_REFUSED = "privacy-refused"
    AUDIT_EXPORTED = "audit-exported"
    ACCESSES_SHOWN = "accesses-shown"
    LOGS_SHOWN = "logs-shown"
    COUNTS_EXPORTED = "counts-exported"
    USAGE_EXPORTED = "usage-exported"
    EVIDENCE_EXPORTED = "evidence-exported"
    AUDIT_HEAD_SIGNED = "audit-head-signed"
    NOTARY_CHANGED = "notary-changed"
    RESTORE_DETECTED = "restore-detected"
    RESTORE_TAKEN_BACK = "restore-taken-back"
    RECORDS_RECONCILED = "records-reconciled"
    SELFTEST_RAN = "selftest-ran"


class AuditRecord(StrictModel):
    """One event as a caller states it; the log adds its place, its time and its links.

    Attributes:
        event: what happened.
        actor: who did it.
        outcome: how it ended.
        on_behalf_of: for whom, for example ``requester:umc-demo``.
        purpose: the policy's purpose code.
        object: what it was about, for example an order's digest.
        codes: refusal or error codes.
        numbers: counts, rounds, sequences.
        detail: a sentence for the hospital's own reader; made one printable line of at most 2000 characters.
    """

    event: AuditEvent
    actor: Actor
    outcome: Outcome = "success"
    on_behalf_of: Actor | None = None
    purpose: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    object: Reference | None = None
    codes: Sequence[Code] = Field(default=(), max_length=64)
    numbers: dict[Label, int] = Field(default_factory=dict, max_length=32)
    detail: Detail = ""
