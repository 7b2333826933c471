"""The section of station.toml about the privacy budget of the hospital's patients."""

from typing import Annotated

from pydantic import Field

from policies.documents import StrictModel


class PrivacySettings(StrictModel):
    """What noisy releases may cost each patient, over all policies and for good (differential privacy)."""

    epsilon: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=10.0,
        description="What every patient's loss by noisy releases stays under, over all trains that ever come: whatever somebody "
        "concludes from them is at most e^epsilon times as likely as without this patient. 10 is the upper end of what is "
        "called reasonable (Ponomareva et al. 2023); less is stricter. A train that would need more is refused as BUDGET_PRIVACY. "
        "What was spent stays spent; a greater value later gives more, a smaller one less. Policies without noise are not counted.",
    )
    delta: Annotated[float, Field(gt=0, le=1e-3)] = Field(
        default=1e-6,
        description="The probability at which epsilon may not hold: well below one by the number of patients.",
    )
