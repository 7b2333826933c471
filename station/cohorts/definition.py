"""What a cohort is asked to be. Values only: no files, no settings, no database.

A `CohortDefinition` narrows: a field, a modality or a purpose that it does not name is not in the cohort.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.acquisition import AcquisitionField
from policies.documents import Digest, Name, Sequence, StrictModel
from policies.manifest import Modality, TrainKind, TrainManifest
from policies.outputs import MetricName
from policies.policy import ConsentMode, ConsentPurpose, Policy
from policies.refusals import Refused
from policies.rules.cohort_rules import RADIOGRAPHS, cohort_reasons, layout_reasons, wanted_fields
from policies.splits import Split

ROUNDING_BASE = 10


def rounded(count: int, base: int = ROUNDING_BASE) -> int:
    """Round a count to the nearest multiple of `base`, halves up: the only form in which a count leaves.

    >>> [rounded(n) for n in (0, 4, 5, 14, 15)]
    [0, 0, 10, 10, 20]
    """
    if count < 0 or base < 1:
        raise ValueError("counts are not negative and the base is at least 1")
    return (count + base // 2) // base * base


class CohortDefinition(StrictModel):
    """Everything that decides what a cohort holds, beside the data itself."""

    schema_version: Literal[1] = 1
    kind: TrainKind
    policy_id: Name
    policy_version: Annotated[int, Field(ge=1)]
    manifest_digest: Digest
    collections: Sequence[Name] = Field(min_length=1)
    consent_purposes: Sequence[ConsentPurpose] = Field(min_length=1)
    consent_modes: Sequence[ConsentMode] = Field(min_length=1)
    modalities: Sequence[Modality] = Field(min_length=1)
    body_part: Literal["CHEST"] = "CHEST"
    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]+@[0-9]+$")]
    clinical_fields: Sequence[MetricName] = ()
    acquisition_fields: Sequence[AcquisitionField] = ()
    label: MetricName | None = None
    masks: Sequence[Name] = ()
    view_positions: Sequence[str] = ()
    representation: Literal["volume", "dicom"] = "volume"
    images: bool = Field(default=True, description="Whether anybody reads them; else nothing is decoded.")
    minimum_patients: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Which labels a case has is clinical data too: it is granted by name or not given.
        if self.label is not None and self.label not in self.clinical_fields:
            raise ValueError("the label must be one of the granted clinical_fields")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of its table, after case and patient."""
        return (*self.clinical_fields, *self.acquisition_fields)

    @property
    def volumes(self) -> bool:
        """Whether its images are volumes, and not radiographs."""
        return not RADIOGRAPHS.issuperset(self.modalities)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits laid out: testing patients for evaluation trains, and then only those (DESIGN section 6)."""
        if self.kind is TrainKind.EVALUATION:
            return (Split.TESTING,)
        return (Split.TRAINING, Split.VALIDATION)

    @property
    def scope(self) -> str:
        """What the train's pseudonyms are bound to: this policy and this train, so that no two trains' ids link."""
        return f"{self.policy_id}\n{self.manifest_digest}"


def define(policy: Policy, manifest: TrainManifest) -> CohortDefinition | Refused:
    """Return the cohort that a train asks for, within what its policy grants.

    By the rules that a board asks too: `policies.rules.cohort_rules`.

    Args:
        policy: in force; its `manifest_digest` is the digest of `manifest`.
        manifest: the train's manifest, verified.
    """
    if reasons := cohort_reasons(policy, manifest):
        return Refused(tuple(reasons))
    needs = manifest.data
    return CohortDefinition(
        kind=manifest.kind,
        policy_id=policy.id,
        policy_version=policy.version,
        manifest_digest=policy.manifest_digest,
        collections=policy.data.collections,
        consent_purposes=policy.data.consent_purposes,
        consent_modes=policy.data.consent_modes,
        modalities=needs.modalities,
        body_part=needs.body_part,
        profile=needs.profile,
        clinical_fields=wanted_fields(manifest),
        acquisition_fields=needs.acquisition_fields,
        label=needs.label,
        masks=needs.masks,
        view_positions=needs.view_positions,
        representation=needs.representation,
        images=manifest.program is not None,
        minimum_patients=policy.data.minimum_patients,
    )


def unsupported(definition: CohortDefinition) -> Refused | None:
    """Return why this version cannot lay out such a cohort, or None."""
    reasons = layout_reasons(
        definition.modalities,
        definition.masks,
        definition.representation,
        definition.profile,
        definition.clinical_fields,
    )
    return Refused(tuple(reasons)) if reasons else None
