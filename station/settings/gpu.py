"""The section of station.toml about GPUs. None is leased unless it stands there."""

from typing import Annotated

from pydantic import Field

from policies.documents import Sequence, StrictModel
from station.sandbox.gpu.model import OfferedDevice


class GpuSection(StrictModel):
    """GPUs for trains, one train a device at a time."""

    devices: Sequence[OfferedDevice] = Field(
        default=(),
        max_length=64,
        description="The devices that trains may get, by UUID as `pht-station gpus` shows them: of a GPU (with MIG: all its "
        "slices) or of one slice; 'all' for every one. Without any, trains run on the CPU or are refused.",
    )
    idle_s: Annotated[int, Field(ge=10, le=7 * 86_400)] = Field(
        default=900,
        description="A train that holds a GPU and has had no message for so long gives it back; its next message starts it "
        "again.",
    )
    scrub: bool = Field(
        default=True,
        description="Overwrite a device's memory before and after each train. Without it one train may read what another, or "
        "another program of the hospital, left there.",
    )
