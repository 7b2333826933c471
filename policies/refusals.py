"""The catalogue of refusals: every "no" of the system, by code, with the text people outside may read.

A refusal that leaves a station is its code and nothing else; `Reason.detail` is for the hospital's own screen and
audit. An unknown code cannot be made: the catalogue is tested to be complete.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar


class RefusalCode(StrEnum):
    """Every refusal, in the order in which rules are asked."""

    # What the orchestrator sent
    INSTRUCTION_INVALID = "INSTRUCTION_INVALID"
    INSTRUCTION_UNKNOWN_ORDER = "INSTRUCTION_UNKNOWN_ORDER"
    # The policy repository
    TRUST_UNREACHABLE = "TRUST_UNREACHABLE"
    TRUST_EXPIRED = "TRUST_EXPIRED"
    TRUST_ROLLBACK = "TRUST_ROLLBACK"
    TRUST_UNVERIFIED = "TRUST_UNVERIFIED"
    # The policy
    POLICY_MISSING = "POLICY_MISSING"
    POLICY_REVOKED = "POLICY_REVOKED"
    POLICY_INVALID = "POLICY_INVALID"
    POLICY_DIGEST = "POLICY_DIGEST"
    POLICY_SIGNATURES_TOO_FEW = "POLICY_SIGNATURES_TOO_FEW"
    POLICY_SIGNER_ROLE_MISSING = "POLICY_SIGNER_ROLE_MISSING"
    POLICY_SIGNER_IS_REQUESTER = "POLICY_SIGNER_IS_REQUESTER"
    POLICY_NOT_YET_VALID = "POLICY_NOT_YET_VALID"
    POLICY_EXPIRED = "POLICY_EXPIRED"
    AGREEMENT_EXPIRED = "AGREEMENT_EXPIRED"
    REQUESTER_REVOKED = "REQUESTER_REVOKED"
    PURPOSE_TABLE_MISSING = "PURPOSE_TABLE_MISSING"
    PURPOSE_NOT_PERMITTED = "PURPOSE_NOT_PERMITTED"
    PURPOSE_CONSENTS_TOO_FEW = "PURPOSE_CONSENTS_TOO_FEW"
    STATION_NOT_REGISTERED = "STATION_NOT_REGISTERED"
    STATION_REVOKED = "STATION_REVOKED"
    SECURE_AGGREGATION_UNSUPPORTED = "SECURE_AGGREGATION_UNSUPPORTED"
    DIFFERENTIAL_PRIVACY_UNSUPPORTED = "DIFFERENTIAL_PRIVACY_UNSUPPORTED"
    REVIEW_UNSUPPORTED = "REVIEW_UNSUPPORTED"
    INTERFACE_UNSUPPORTED = "INTERFACE_UNSUPPORTED"
    # The run order
    ORDER_INVALID = "ORDER_INVALID"
    ORDER_SIGNATURE = "ORDER_SIGNATURE"
    ORDER_NOT_YET_VALID = "ORDER_NOT_YET_VALID"
    ORDER_EXPIRED = "ORDER_EXPIRED"
    ORDER_SPENT = "ORDER_SPENT"
    ORDER_STATION = "ORDER_STATION"
    ORDER_BEYOND_POLICY = "ORDER_BEYOND_POLICY"
    ORDER_ROUND = "ORDER_ROUND"
    ORDER_KIND = "ORDER_KIND"
    ORDER_CONFIG = "ORDER_CONFIG"
    ORDER_WEIGHTS = "ORDER_WEIGHTS"
    # The train
    MANIFEST_DIGEST = "MANIFEST_DIGEST"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    IMAGE_DIGEST = "IMAGE_DIGEST"
    IMAGE_UNAVAILABLE = "IMAGE_UNAVAILABLE"
    IMAGE_CONFIG = "IMAGE_CONFIG"
    # The hospital
    HOSPITAL_COLLECTION = "HOSPITAL_COLLECTION"
    HOSPITAL_PURPOSE = "HOSPITAL_PURPOSE"
    HOSPITAL_REQUESTER_CLASS = "HOSPITAL_REQUESTER_CLASS"
    HOSPITAL_COUNTRY = "HOSPITAL_COUNTRY"
    HOSPITAL_RESOURCES = "HOSPITAL_RESOURCES"
    HOSPITAL_QUIET_HOURS = "HOSPITAL_QUIET_HOURS"
    HOSPITAL_HELD = "HOSPITAL_HELD"
    OPERATOR_PENDING = "OPERATOR_PENDING"
    # Consent and data
    CONSENT_STALE = "CONSENT_STALE"
    CONSENT_UNKNOWN = "CONSENT_UNKNOWN"
    CONSENT_WITHDRAWN = "CONSENT_WITHDRAWN"
    DATA_MODALITY = "DATA_MODALITY"
    DATA_FIELDS = "DATA_FIELDS"
    DATA_TOO_FEW_PATIENTS = "DATA_TOO_FEW_PATIENTS"
    DATA_NOT_READY = "DATA_NOT_READY"
    DATA_ANONYMITY = "DATA_ANONYMITY"
    # Budgets and resources
    BUDGET_RUNS = "BUDGET_RUNS"
    BUDGET_RELEASES = "BUDGET_RELEASES"
    RESOURCES_BUSY = "RESOURCES_BUSY"
    NETWORK_UNAVAILABLE = "NETWORK_UNAVAILABLE"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"
    ENGINE_UNFIT = "ENGINE_UNFIT"
    SANDBOX_ARGUMENT = "SANDBOX_ARGUMENT"
    STATE_UNCERTAIN = "STATE_UNCERTAIN"
    # The train's behaviour
    TRAIN_CRASHED = "TRAIN_CRASHED"
    TRAIN_TIMEOUT = "TRAIN_TIMEOUT"
    TRAIN_OUT_OF_MEMORY = "TRAIN_OUT_OF_MEMORY"
    TRAIN_PROTOCOL = "TRAIN_PROTOCOL"
    TRAIN_DECLARED_ERROR = "TRAIN_DECLARED_ERROR"
    TRAIN_FAILED_TOO_OFTEN = "TRAIN_FAILED_TOO_OFTEN"
    RUN_STOPPED = "RUN_STOPPED"
    # The egress guard
    RELEASE_UNPARSEABLE = "RELEASE_UNPARSEABLE"
    RELEASE_TOO_LARGE = "RELEASE_TOO_LARGE"
    RELEASE_TENSOR_EXTRA = "RELEASE_TENSOR_EXTRA"
    RELEASE_TENSOR_MISSING = "RELEASE_TENSOR_MISSING"
    RELEASE_TENSOR_SHAPE = "RELEASE_TENSOR_SHAPE"
    RELEASE_TENSOR_DTYPE = "RELEASE_TENSOR_DTYPE"
    RELEASE_TENSOR_NOT_FINITE = "RELEASE_TENSOR_NOT_FINITE"
    RELEASE_TENSOR_RANGE = "RELEASE_TENSOR_RANGE"
    RELEASE_METRIC_EXTRA = "RELEASE_METRIC_EXTRA"
    RELEASE_METRIC_MISSING = "RELEASE_METRIC_MISSING"
    RELEASE_METRIC_RANGE = "RELEASE_METRIC_RANGE"
    RELEASE_TABLE_EXTRA = "RELEASE_TABLE_EXTRA"
    RELEASE_TABLE_MISSING = "RELEASE_TABLE_MISSING"
    RELEASE_TABLE_SHAPE = "RELEASE_TABLE_SHAPE"
    RELEASE_CELL_TOO_SMALL = "RELEASE_CELL_TOO_SMALL"
    RELEASE_TOO_FEW_PATIENTS = "RELEASE_TOO_FEW_PATIENTS"
    RELEASE_NOT_PERMITTED = "RELEASE_NOT_PERMITTED"
    # Faults of the station itself
    STATION_FAULT = "STATION_FAULT"
    STATION_STORAGE = "STATION_STORAGE"
    # A station's records, held against what was countersigned
    STATION_RESTORED = "STATION_RESTORED"
    STATION_UNCONFIRMED = "STATION_UNCONFIRMED"
    STATEMENT_FORK = "STATEMENT_FORK"
    STATEMENT_ROLLBACK = "STATEMENT_ROLLBACK"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rule refused.

    Attributes:
        code: the only part that may leave a station.
        detail: for the hospital's own screen and audit; never a patient's value, never a train's text.
    """

    code: RefusalCode
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A rule said no.

    Raises:
        ValueError: without a reason; a refusal always names its rule.
    """

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("a refusal names its rule")

    @property
    def code(self) -> RefusalCode:
        """The first reason's code: what an outside party is told."""
        return self.reasons[0].code

    @classmethod
    def because(cls, code: RefusalCode, detail: str = "") -> "Refused":
        """Refuse for one reason."""
        return cls((Reason(code, detail),))


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Permitted(Generic[_T]):
    """Every rule said yes; `value` is what may be done."""

    value: _T


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What a person outside reads about a refusal."""

    means: str
    do: str
