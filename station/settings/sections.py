"""The sections of station.toml. Each key is described; what decides who gets what data has no default."""

from datetime import UTC, tzinfo
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policies.documents import Name, Sequence, StrictModel, Text
from policies.policy import ConsentMode, Country, PurposeCode, RequesterClass
from policies.rules.admission import Marking
from station.sandbox.spec import Runtime, SelinuxLevel, SelinuxType

UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=1024)]
HttpsUrl = Annotated[
    str, Field(pattern=r"^https://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/\-]*)?$", max_length=500)
]
ProxyUrl = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+/?$", max_length=500)]
ClockTime = Annotated[str, Field(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$")]


def _knowntime_zone(name: str) -> str:
    time_zone(name)
    return name


def time_zone(name: str) -> tzinfo:
    """Return a time zone by its name; UTC needs no time zone database."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("is not a time zone this host knows, such as Europe/Amsterdam") from error


def _known_zone(name: str) -> str:
    time_zone(name)
    return name


TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_known_zone)]
Hours = Annotated[
    tuple[ClockTime, ClockTime],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class OrchestratorSettings(StrictModel):
    """The one party the station connects to."""

    url: HttpsUrl = Field(description="The orchestrator's front, https only.")
    mirror_url: HttpsUrl = Field(description="Where the board's policy repository (TUF) is mirrored.")
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority to trust for both, relative to the station's home; it may hold several, such as "
        "the hospital's own where its proxy opens TLS; "
        "without it, the host's own authorities.",
    )
    proxy_url: ProxyUrl | None = Field(default=None, description="An HTTP proxy that tunnels with CONNECT.")
    proxy_credentials_file: FilePath | None = Field(
        default=None,
        description="File with one line, user:password, for the proxy (Basic authentication); mode 0600, compute's user's. "
        "Over an http:// proxy the password is readable on the hospital's own network.",
    )
    proxy_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authority behind an https:// proxy's certificate; without it, the host's own authorities.",
    )

    @model_validator(mode="after")
    def _of_a_proxy(self) -> Self:
        if self.proxy_url is None and (self.proxy_credentials_file or self.proxy_ca_file):
            raise ValueError("proxy_credentials_file and proxy_ca_file belong to a proxy_url")
        return self


class ServiceSettings(StrictModel):
    """How far intake, compute and launcher are kept apart (invariant I9)."""

    separation: Literal["users", "none"] = Field(
        description="'users': each service runs as a user of its own (needs root to start). 'none': all as the user "
        "who starts them; identified data and hostile code are then one user apart less."
    )
    intake_user: UserName = Field(
        default="pht-intake", description="Holds identified data and the pseudonym key."
    )
    compute_user: UserName = Field(
        default="pht-compute", description="Holds pseudonymised data and runs trains."
    )
    launcher_user: UserName = Field(
        default="pht-launcher", description="The only one that reaches the engine."
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        users = (self.intake_user, self.compute_user, self.launcher_user)
        if self.separation == "users" and (len(set(users)) != len(users) or "root" in users):
            raise ValueError("the three services need three different users, none of them root")
        return self


class PseudonymSettings(StrictModel):
    """Under what names intake derives pseudonyms. Changing them makes every patient a new one: decide once."""

    project: Name = Field(
        default="registry", description="Pseudonyms of one project do not link to those of another."
    )
    default_issuer: Annotated[str, Field(max_length=64)] = Field(
        default="", description="Who issued patient ids that come without an issuer."
    )


class EngineSettings(StrictModel):
    """The container engine."""

    socket: FilePath = Field(default="/var/run/docker.sock", description="The engine's Unix socket.")
    runtime: Runtime | None = Field(
        default=None,
        description="The OCI runtime that trains run under; without it the engine's usual one. runsc (gVisor) needs "
        "--host-uds=open among its arguments.",
    )
    selinux_type: SelinuxType | None = Field(
        default=None,
        description="The SELinux type of trains, such as container_t; without it the engine's usual one.",
    )
    selinux_level: SelinuxLevel | None = Field(
        default=None,
        description="The SELinux level of trains, such as s0:c100,c200; without it the engine draws one for each container.",
    )


class CeilingSettings(StrictModel):
    """The most one train may use here, whatever its policy grants."""

    memory_mib: Annotated[int, Field(ge=64, le=1 << 22)] = Field(
        description="Memory of one train, scratch included."
    )
    cpus: Annotated[float, Field(gt=0, le=1024)] = Field(description="Processor cores of one train.")
    pids: Annotated[int, Field(ge=8, le=65_536)] = Field(
        default=512, description="Processes and threads of one train."
    )
    scratch_mib: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=1024, description="Scratch (tmpfs) of one train; counts as its memory."
    )
    message_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=3600, description="Seconds one message of a train may take."
    )
    keep_free_mib: Annotated[int, Field(ge=0, le=1 << 24)] = Field(
        default=1024,
        description="What of the disk stays free of answers of trains, whatever their policies permit.",
    )
    runs_at_once: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Trains that run side by side."
    )


class HospitalSettings(StrictModel):
    """The hospital's own rules, beside those per collection."""

    operator_approval: Literal["always", "training", "never"] = Field(
        description="Which trains wait for the operator's word: all, those that train, or none."
    )
    consent_max_age_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        description="A consent register whose source is older than this refuses every train."
    )
    failed_messages: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="This many failed messages end a run here."
    )
    failed_patients_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1,
        description="A train of one patient at a time (map) that fails for a larger share of patients releases nothing.",
    )
    minimum_k: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        default=None,
        description="A cohort whose clinical table shows fewer patients alike than this (k-anonymity over the fields "
        "that can single a person out) is refused; without it, k is shown to the operator and refuses nothing.",
    )
    quiet_hours: Sequence[Hours] = Field(
        default=(), description='Hours in which no train starts, for example [["22:00", "06:00"]].'
    )
    timezone: TimeZone = Field(
        default="UTC", description="The time zone of quiet_hours, as in Europe/Amsterdam."
    )

    @model_validator(mode="after")
    def _hours_last(self) -> Self:
        if any(start == end for start, end in self.quiet_hours):
            raise ValueError("quiet_hours: a range that ends when it starts says nothing")
        return self


class PollingSettings(StrictModel):
    """How often the station asks."""

    active_s: Annotated[float, Field(ge=0.02, le=60)] = Field(
        default=0.4,
        description="While a run is active, at the slowest; sooner after each answer. A poll costs both sides about 10 ms.",
    )
    idle_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=5.0, description="While no run is active, from a minute or two after the last."
    )
    trust_refresh_s: Annotated[float, Field(ge=0.5, le=86_400)] = Field(
        default=60.0, description="How often the policy repository is refreshed: how fast a revocation bites."
    )
    handover_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=5.0, description="How often the catalogue takes up what intake handed over."
    )


OptOutGround = Literal["wgbo-7-458-1-a", "wgbo-7-458-1-b"]
"""Dutch Civil Code (WGBO) art. 7:458 paragraph 1: (a) asking is not reasonably possible, (b) it cannot reasonably be required."""


DeidentificationOption = Literal[
    "modified-dates", "patient-characteristics", "device-identity", "clean-descriptors", "safe-private"
]


class CollectionSettings(StrictModel):
    """One collection of images the hospital offers, and to whom. What is not offered here is not there."""

    name: Name = Field(description="The collection's name, as policies name it.")
    consent_mode: ConsentMode = Field(
        description="'opt-in': only patients with an explicit consent. 'opt-out': all but those who object."
    )
    legal_ground: Text = Field(description="The ground on which the hospital offers it in this mode.")
    marking: Marking = Field(
        description="'patient', 'public' or 'synthetic'; development policies reach the last two."
    )
    requester_classes: Sequence[RequesterClass] = Field(min_length=1, description="Who may ask.")
    purposes: Sequence[PurposeCode] = Field(min_length=1, description="For what.")
    countries: Sequence[Country] = Field(min_length=1, description="From where (ISO 3166-1 alpha-2).")
    opt_out_ground: OptOutGround | None = Field(
        default=None,
        description="With opt-out, and only then: the exception it rests on, 'wgbo-7-458-1-a' (asking is not reasonably "
        "possible) or 'wgbo-7-458-1-b' (asking cannot reasonably be required).",
    )
    opt_out_review: Text | None = Field(
        default=None,
        description="With opt-out, and only then: the review that found the exception to apply, by its reference.",
    )

    assumed_body_part: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")] | None = Field(
        default=None,
        description="The body part of images that name none (BodyPartExamined is often empty on CT), as in 'CHEST'; without it "
        "such images are in no cohort.",
    )
    deidentification: Sequence[DeidentificationOption] = Field(
        default=("modified-dates",),
        max_length=5,
        description="Options of PS3.15 Annex E beside the Basic Profile: 'modified-dates' (dates moved, intervals kept; "
        "without it no date stays), 'patient-characteristics' (sex, age, size, weight), 'device-identity', "
        "'clean-descriptors' (descriptions, by a list of words), 'safe-private' (private attributes known to be safe).",
    )
    safe_private: Sequence[
        Annotated[str, Field(pattern=r"^[!-~][ -~]{0,63}:[0-9a-f]{4},xx[0-9a-f]{2}:[A-Z]{2}$")]
    ] = Field(
        default=(),
        max_length=256,
        description="With 'safe-private': elements the hospital holds safe beside PS3.15 table E.3.10-1, as "
        "'creator:gggg,xxee:VR' in lower-case hex.",
    )

    @model_validator(mode="after")
    def _deidentification_is_consistent(self) -> Self:
        if len(set(self.deidentification)) != len(self.deidentification):
            raise ValueError("deidentification: an option stands twice")
        if self.safe_private and "safe-private" not in self.deidentification:
            raise ValueError("safe_private names elements, but deidentification has no 'safe-private'")
        return self

    @model_validator(mode="after")
    def _opt_out_is_grounded(self) -> Self:
        named = (self.opt_out_ground is not None, self.opt_out_review is not None)
        if self.consent_mode is ConsentMode.OPT_OUT and not all(named):
            raise ValueError("opt-out needs opt_out_ground and opt_out_review")
        if self.consent_mode is ConsentMode.OPT_IN and any(named):
            raise ValueError("opt_out_ground and opt_out_review stand with opt-out only")
        return self
