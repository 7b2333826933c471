"""The section of station.toml about trains' images: where layers come from, how many are kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import Sequence, StrictModel
from station.settings.sections import FilePath, HttpsUrl

Source = Literal["orchestrator", "registry"]
Repository = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$",
        max_length=200,
    ),
]
HostPort = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?$")]


class ImageSettings(StrictModel):
    """Where the layers of trains' images come from, and how much of them is kept."""

    sources: Sequence[Source] = Field(
        default=("orchestrator",),
        min_length=1,
        max_length=2,
        description="Where layers are asked for, in this order: the orchestrator's bundles, an OCI registry.",
    )
    registry_url: HttpsUrl | None = Field(
        default=None, description="The registry, https only, as in https://registry.example.org."
    )
    registry_repository: Repository | None = Field(
        default=None, description="The repository in it that holds the trains, as in pht/trains."
    )
    registry_credentials_file: FilePath | None = Field(
        default=None,
        description="File with one line user:password (or token alone, sent as a bearer token), readable by compute's user only.",
    )
    registry_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority to trust for the registry, relative to the station's home; without it, the "
        "host's own authorities.",
    )
    registry_hosts: Sequence[HostPort] = Field(
        default=(),
        max_length=8,
        description="Other hosts that the registry may send the station to, for tokens and for layers, as in cdn.example.org.",
    )
    quota_mib: Annotated[int, Field(ge=64, le=1 << 30)] = Field(
        default=40_960, description="Layers take at most this much; what no train needs goes first."
    )
    free_mib: Annotated[int, Field(ge=0, le=1 << 30)] = Field(
        default=2048, description="Nothing is fetched that would leave less than this free on the disk."
    )
    keep_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=30,
        description="An image that no policy in force and no open order names is removed this long after its last use.",
    )

    @model_validator(mode="after")
    def _registry_is_named(self) -> Self:
        if len(set(self.sources)) != len(self.sources):
            raise ValueError("sources: one stands twice")
        named = (self.registry_url is not None, self.registry_repository is not None)
        if "registry" in self.sources and not all(named):
            raise ValueError("sources names the registry: set registry_url and registry_repository")
        return self
