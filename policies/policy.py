"""The policy file: what the board permits, to whom, why, and what may leave.

Everything a station enforces is in it; nothing outside it is permitted. A field that no rule enforces and no page
shows does not belong here (`policies/README.md` has the table). Contradictions are errors when it is written.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from policies.acquisition import AcquisitionField
from policies.documents import Digest, Moment, Name, Sequence, StrictModel, Text
from policies.manifest import (
    MAX_ERROR_CODES,
    ErrorCode,
    HyperparameterName,
    HyperparameterSpec,
    Modality,
    TrainKind,
)
from policies.outputs import MetricName, MetricOutput
from policies.strategies import ParameterRange, StrategyName

MINIMUM_TRAINING_STATIONS = 3
"""With two, each hospital can subtract its own update from the sum and read the other's."""


def _read_date(value: object) -> object:
    return date.fromisoformat(value) if isinstance(value, str) else value


Day = Annotated[date, BeforeValidator(_read_date)]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
PublicKeyHex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""An Ed25519 public key, hex."""


class RequesterClass(StrEnum):
    """The three kinds of requester the consent text distinguishes."""

    PARTICIPANT = "participant"
    NON_PROFIT = "non-profit"
    COMMERCIAL = "commercial"


class ConsentMode(StrEnum):
    """How patients of a collection were asked."""

    OPT_IN = "opt-in"
    OPT_OUT = "opt-out"


class ConsentPurpose(StrEnum):
    """What patients were asked about, each apart."""

    RESEARCH_PARTICIPANTS = "research-participants"
    RESEARCH_THIRD_PARTIES = "research-third-parties"
    RESEARCH_COMMERCIAL = "research-commercial"


class PurposeCode(StrEnum):
    """Purposes, named as in the Data Use Ontology (DUO) classes they correspond to."""

    DISEASE_SPECIFIC_RESEARCH = "disease-specific-research"
    METHOD_DEVELOPMENT = "method-development"
    HEALTH_RESEARCH = "health-research"
    EXTERNAL_VALIDATION = "external-validation"


class PlainSummary(StrictModel):
    """What the public register shows."""

    nl: Text
    en: Text


class Requester(StrictModel):
    """Who may order runs under the policy, and with which key."""

    organisation: Text
    contact: Text
    requester_class: RequesterClass
    country: Country
    key: PublicKeyHex


class Agreement(StrictModel):
    """A data transfer (or sharing) agreement by reference."""

    reference: Text
    expires: Day


class Legal(StrictModel):
    """The legal part: shown at review, at signing and in the register; the agreement's expiry is enforced."""

    gdpr_article_6: Literal["6(1)(a)", "6(1)(c)", "6(1)(e)", "6(1)(f)"]
    gdpr_article_9: Literal["9(2)(a)", "9(2)(g)", "9(2)(i)", "9(2)(j)"]
    national_ground: Text
    controllers: Sequence[Text] = Field(min_length=1)
    dpia: Text
    ethics: Text = Field(description="METC or nWMO reference.")
    ehds_permit: Text | None = None
    agreement: Agreement
    model_status: Literal["anonymous-claimed", "personal-data", "undetermined"] = Field(
        description="Status of the resulting model under GDPR (EDPB opinion 28/2024)."
    )


class Purpose(StrictModel):
    """Why."""

    code: PurposeCode
    statement: Text
    benefit: Text


class ElsiCheck(StrictModel):
    """One line of the ethical, legal and social checklist, answered by the board."""

    question: Text
    answer: Text


class DataGrant(StrictModel):
    """Which data may be seen."""

    collections: Sequence[Name] = Field(min_length=1)
    consent_purposes: Sequence[ConsentPurpose] = Field(min_length=1)
    consent_modes: Sequence[ConsentMode] = Field(min_length=1)
    modalities: Sequence[Modality] = Field(min_length=1)
    clinical_fields: Sequence[MetricName] = ()
    acquisition_fields: Sequence[AcquisitionField] = Field(
        default=(),
        description="How images were acquired: manufacturer, view, slice thickness and the like, coarse.",
    )
    masks: Sequence[Name] = Field(default=(), description="Segmentations, by name.")
    representations: Sequence[Literal["volume", "dicom"]] = Field(
        default=("volume",),
        min_length=1,
        description="Images alone, or DICOM files with what their headers say; UIDs and dates are the train's own.",
    )
    minimum_patients: Annotated[int, Field(ge=1)]


class RunGrant(StrictModel):
    """How much may run."""

    minimum_stations: Annotated[int, Field(ge=1)]
    runs: Annotated[int, Field(ge=1, le=10_000)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    releases: Annotated[int, Field(ge=1)] = Field(description="In total, per station, over all runs.")
    hyperparameters: dict[HyperparameterName, HyperparameterSpec] = Field(default_factory=dict)
    strategies: Sequence[StrategyName] = Field(min_length=1)
    strategy_parameters: dict[StrategyName, dict[MetricName, ParameterRange]] = Field(
        default_factory=dict,
        description="What an order may choose of a strategy's parameters; one that is not named keeps its default.",
    )
    failed_patients_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1,
        description="Of a map train: when it fails for a larger share of a station's patients, nothing leaves.",
    )


class TensorRules(StrictModel):
    """Rules on the delta of training updates, each off unless set."""

    clipping_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="L2 norm over all parameter deltas together."
    )
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    maximum_absolute: Annotated[float, Field(gt=0)] = 1e6
    float_buffers: Literal["release", "withhold"] = "release"
    integer_buffers: Literal["release", "withhold"] = "withhold"


class DifferentialPrivacy(StrictModel):
    """Noise that the station adds to every number that leaves, and its promise to every patient (`policies.privacy`)."""

    noise_multiplier: Annotated[float, Field(ge=0.01, le=1000)] = Field(
        description="Of every released query: standard deviation of its noise over its sensitivity when one patient is "
        "replaced by another, which for an update is twice the clipping norm."
    )
    epsilon: Annotated[float, Field(gt=0)] = Field(
        description="What no patient's loss passes at one station, over all runs and versions of the policy; nothing leaves "
        "that would take anybody further."
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The probability at which epsilon may not hold: below one by the number of patients."
    )


class DominanceRules(StrictModel):
    """When a sum tells what single patients add to it: the (n, k) rule and the p% rule of statistical disclosure control."""

    largest: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2, description="n: of so many patients together."
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.85, description="k: the largest share of a sum that they may be."
    )
    p_percent: Annotated[float, Field(gt=0, le=100)] = Field(
        default=10.0,
        description="No patient could work out another's value to within this percentage of it.",
    )


class ReleaseRules(StrictModel):
    """What may leave a station, and how coarsely (DESIGN section 8)."""

    tensors: TensorRules | None = None
    metrics: Sequence[MetricName] = ()
    tables: Sequence[MetricName] = ()
    station_results: bool = Field(
        default=False,
        description="Whether the requester is shown what single stations released; else pooled values of three stations or more.",
    )
    error_codes: Sequence[ErrorCode] = Field(
        default=(),
        max_length=MAX_ERROR_CODES,
        description="Of the codes that the train declares, those that may leave; any other failure leaves as its class.",
    )
    minimum_cell_count: Annotated[int, Field(ge=1)] = 10
    count_rounding: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Counts in tables leave as the nearest multiple of this."
    )
    minimum_patients_per_metric: Annotated[int, Field(ge=1)] = 10
    metric_decimals: Annotated[int, Field(ge=0, le=9)] | None = Field(
        default=None,
        description="The most decimals that a metric leaves with, whatever the train declares; left out: as it declares.",
    )
    dominance: DominanceRules = Field(
        default_factory=DominanceRules, description="Of sums and means in tables."
    )
    membership_limit: Annotated[float, Field(ge=0.5, le=1)] | None = Field(
        default=None,
        description="Training: how well, as an area under the ROC curve, an update may tell the station's own patients that "
        "it was trained on from those held back; 0.5 is not at all. The score stays inside.",
    )
    local_predictions: bool = Field(
        default=False,
        description="Whether a hospital may have the train mark and measure its own images, and keep that in a folder of its own; "
        "it does not leave.",
    )
    maximum_bytes: Annotated[int, Field(ge=1)] = Field(
        description="Per release, arrays and numbers together."
    )
    differential_privacy: DifferentialPrivacy | None = None
    secure_aggregation: bool = False
    timing_quantum_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=0.0,
        description="Answers leave at multiples of so many seconds, and say no other duration; 0: as soon as they are there.",
    )
    human_review: bool = False
    review_hours: Annotated[int, Field(ge=1, le=24 * 90)] = Field(
        default=72, description="With human_review: what nobody has released by then is withheld."
    )
    trust_statement: Literal["orchestrator-sees-single-updates"] | None = Field(
        default=None,
        description="Said in words when it is signed: without secure aggregation and noise the orchestrator is "
        "trusted not to study single updates.",
    )

    def narrowed(self, metric: MetricOutput) -> MetricOutput:
        """Return a metric as it may leave: with no more decimals than the policy has."""
        if self.metric_decimals is None or metric.decimals <= self.metric_decimals:
            return metric
        return metric.model_copy(update={"decimals": self.metric_decimals})

    def quanta_of(self, stage: str) -> int:
        """Return how many quanta a message of a stage takes at least; 0 without a quantum.

        One is its answer's. Where a charge or a score goes on record before that, it waits for a moment of its own: one before
        it is judged, one more when it has been scored.
        """
        if self.timing_quantum_s == 0:
            return 0
        scored = self.membership_limit is not None and stage == "train"
        return 1 + (scored or self.differential_privacy is not None) + scored


class ResourceGrant(StrictModel):
    """Upper bounds of what a train may use at a station."""

    memory_mib: Annotated[int, Field(ge=64)]
    cpus: Annotated[float, Field(gt=0)]
    gpu: bool = False
    cpu_fallback: bool = Field(
        default=False,
        description="Where a GPU is granted and a station has none free: a train that can do without runs on the CPU.",
    )
    run_hours: Annotated[float, Field(gt=0)]


class Policy(StrictModel):
    """One policy: one train, one requester, one purpose.

    `development` policies (signed by the delegated role, one signature) reach only collections that a hospital has
    marked public or synthetic.
    """

    schema_version: Literal[1]
    id: Name
    version: Annotated[int, Field(ge=1)]
    board: Name
    role: Literal["board", "development"] = "board"
    title: Text
    summary: PlainSummary
    kind: TrainKind
    manifest_digest: Digest
    image_config_digests: Sequence[Digest] = Field(min_length=1)
    requester: Requester
    radiologist: Text = Field(description="The radiologist who answers for the question.")
    purpose: Purpose
    legal: Legal
    elsi: Sequence[ElsiCheck] = Field(min_length=1)
    commercial_use_approved: bool = False
    data: DataGrant
    runs: RunGrant
    release: ReleaseRules
    resources: ResourceGrant
    valid_from: Moment
    valid_until: Moment

    @model_validator(mode="after")
    def _no_contradiction(self) -> "Policy":
        # Imported here: what cannot hold together is worked out from policies.
        from policies.contradictions import contradictions  # noqa: PLC0415

        problems = contradictions(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self
