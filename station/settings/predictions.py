"""The section of station.toml about what trains mark and measure in the hospital's own images."""

from typing import Annotated

from pydantic import Field

from policies.documents import StrictModel
from station.settings.sections import FilePath


class PredictionSettings(StrictModel):
    """Whether predictions are kept, where, and how much of it. What is kept never leaves by the station."""

    folder: FilePath | None = Field(
        default=None,
        description="An existing folder outside the station's home, where compute's user may write DICOM SEG and SR; without it no "
        "train is ever asked for predictions, whatever its policy permits. Never a folder that a clinical PACS imports from.",
    )
    minutes: Annotated[int, Field(ge=1, le=1440)] = Field(
        default=30,
        description="How long a train may take for the predictions of a run, once the run is over. Under a policy with a timing "
        "quantum its place is held for so long, whether it takes that long or not.",
    )
    max_mib: Annotated[int, Field(ge=1, le=1 << 24)] = Field(
        default=4096, description="The most that the predictions of one run may take."
    )
    keep_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        default=365, description="How long a prediction stays in the folder."
    )
