"""The board's charter and its register of stations.

The charter says who the members are and what makes a policy binding. It stands inside the TUF root metadata (key
`pht-charter`), so it changes only as the root does: by the members' threshold. The register of stations is a target
that members sign as they sign a policy.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.documents import Name, Sequence, StrictModel, Text
from policies.policy import Agreement, Country, PublicKeyHex

ROOT_KEY = "pht-charter"
REGISTER_TARGET = "stations.dsse.json"
REGISTER_PAYLOAD_TYPE = "application/vnd.pht.station-register+yaml"
POLICY_PAYLOAD_TYPE = "application/vnd.pht.policy+yaml"

MemberRole = Literal["clinician", "lawyer", "patient-representative", "secretary", "ethicist", "scientist"]


def policy_target(policy_id: str, version: int) -> str:
    """Return the TUF target path of a signed policy."""
    return f"policies/{policy_id}/{version}.dsse.json"


class Member(StrictModel):
    """One member of the board."""

    name: Text
    organisation: Text
    role: MemberRole
    key: PublicKeyHex


class Charter(StrictModel):
    """Who decides, and how many signatures of whom it takes."""

    schema_version: Literal[1]
    board: Name
    title: Text
    members: Sequence[Member] = Field(min_length=1, max_length=64)
    threshold: Annotated[int, Field(ge=1)]
    required_roles: Sequence[MemberRole] = ()
    development_keys: Sequence[PublicKeyHex] = Field(
        default=(), description="Each alone may approve trains for collections marked public or synthetic."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Charter":
        keys = [member.key for member in self.members]
        if len(set(keys)) != len(keys):
            raise ValueError("two members share a key")
        if len({member.name.casefold() for member in self.members}) != len(keys):
            raise ValueError("two members share a name")
        if self.threshold > len(self.members):
            raise ValueError("the threshold is higher than the number of members")
        held = {member.role for member in self.members}
        if missing := [role for role in self.required_roles if role not in held]:
            raise ValueError(f"no member holds the required role {missing[0]}")
        return self


class StationAgreement(Agreement):
    """The agreement under which a hospital takes part."""

    policies: Sequence[Name] | None = Field(
        default=None,
        description="Ids of the policies that it covers; where none are given, all of this board's.",
    )

    def covers(self, policy_id: str) -> bool:
        """Tell whether the hospital agreed to this project."""
        return self.policies is None or policy_id in self.policies


class RegisteredStation(StrictModel):
    """One hospital in the register."""

    name: Name
    organisation: Text
    country: Country
    identity_key: PublicKeyHex = Field(description="Ed25519: signs the station's audit heads and profile.")
    node_key: Annotated[str, Field(pattern=r"^ecdsa-sha2-nistp(256|384|521) [A-Za-z0-9+/=]+$")] = Field(
        description="OpenSSH public key of the Flower node."
    )
    agreement: StationAgreement


class StationRegister(StrictModel):
    """All hospitals that take part; no other source says who a station's peers are."""

    schema_version: Literal[1]
    board: Name
    version: Annotated[int, Field(ge=1)]
    stations: Sequence[RegisteredStation] = Field(max_length=10_000)

    @model_validator(mode="after")
    def _consistent(self) -> "StationRegister":
        names = [station.name for station in self.stations]
        if len(set(names)) != len(names):
            raise ValueError("names a station twice")
        return self

    def find(self, name: str) -> RegisteredStation | None:
        """Return the station of that name."""
        return next((station for station in self.stations if station.name == name), None)
