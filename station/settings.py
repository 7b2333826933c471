"""The station's one settings file, `station.toml`, and the hospital's own rules in it.

Only this module of the station reads the environment for settings.
Settings can only narrow what a policy grants. There is no insecure default: what decides who gets what data must be
written down, and unknown keys are errors that name the key and the line. Secrets are files of their own; the file
holds paths at most. `station/settings.example.toml` lists every key and is tested against this model.

A plain key is read from the file, then from ``PHT_STATION_<SECTION>_<KEY>`` (top-level keys: ``PHT_STATION_<KEY>``).
"""

import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from policies.documents import Name, Sequence, StrictModel, Text, canonical_json
from policies.errors import NotFoundError, SettingsError
from policies.manifest import TrainKind
from policies.policy import ConsentMode, Country, PurposeCode, RequesterClass
from policies.rules.admission import CollectionOffer, HospitalRules, Marking
from station.settings_text import key_lines, literal

SETTINGS_FILE = "station.toml"
ENVIRONMENT_PREFIX = "PHT_STATION_"

UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=1024)]
HttpsUrl = Annotated[
    str, Field(pattern=r"^https://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/\-]*)?$", max_length=500)
]
ProxyUrl = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+/?$", max_length=500)]
ClockTime = Annotated[str, Field(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$")]


def _known_zone(name: str) -> str:
    _zone(name)
    return name


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # needs no time zone database
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("is not a time zone this host knows, such as Europe/Amsterdam") from error


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
        description="PEM file of the authority to trust for both, relative to the station's home; "
        "without it, the host's own authorities.",
    )
    proxy_url: ProxyUrl | None = Field(default=None, description="An HTTP proxy that tunnels with CONNECT.")


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

    socket: FilePath = Field(default="/var/run/docker.sock", description="The Docker engine's Unix socket.")


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
        default=0.1, description="While a run is active."
    )
    idle_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=5.0, description="While no run is active."
    )
    trust_refresh_s: Annotated[float, Field(ge=0.5, le=86_400)] = Field(
        default=60.0, description="How often the policy repository is refreshed: how fast a revocation bites."
    )
    handover_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=5.0, description="How often the catalogue takes up what intake handed over."
    )


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


class StationSettings(StrictModel):
    """All settings of one station."""

    name: Name = Field(description="The station's name in the board's register.")
    orchestrator: OrchestratorSettings
    services: ServiceSettings
    pseudonyms: PseudonymSettings = Field(default_factory=PseudonymSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    ceilings: CeilingSettings
    hospital: HospitalSettings
    polling: PollingSettings = Field(default_factory=PollingSettings)
    collections: Sequence[CollectionSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [collection.name for collection in self.collections]
        if len(set(names)) != len(names):
            raise ValueError("collections: a name stands twice")
        return self

    def collection(self, name: str) -> CollectionSettings | None:
        """Return the settings of an offered collection, or None where it is not offered."""
        return next((collection for collection in self.collections if collection.name == name), None)

    @property
    def consent_modes(self) -> dict[str, ConsentMode]:
        """How the patients of each offered collection were asked."""
        return {collection.name: collection.consent_mode for collection in self.collections}

    @property
    def consent_limit(self) -> timedelta:
        """How old the consent source may be."""
        return timedelta(days=self.hospital.consent_max_age_days)

    def needs_operator(self, kind: TrainKind) -> bool:
        """Tell whether a train of this kind waits for the operator's word."""
        approval = self.hospital.operator_approval
        return approval == "always" or (approval == "training" and kind is TrainKind.TRAINING)

    def quiet(self, now: datetime) -> bool:
        """Tell whether `now` (with a time zone) falls in the quiet hours; a range may pass midnight."""
        clock = now.astimezone(_zone(self.hospital.timezone)).time()
        for first, last in self.hospital.quiet_hours:
            start, end = time.fromisoformat(first), time.fromisoformat(last)
            if (start <= clock < end) if start < end else (clock >= start or clock < end):
                return True
        return False

    def hospital_rules(self, now: datetime) -> HospitalRules:
        """Return the hospital's rules as admission asks for them."""
        return HospitalRules(
            station=self.name,
            collections={
                collection.name: CollectionOffer(
                    marking=collection.marking,
                    consent_mode=collection.consent_mode,
                    requester_classes=frozenset(collection.requester_classes),
                    purposes=frozenset(collection.purposes),
                    countries=frozenset(collection.countries),
                )
                for collection in self.collections
            },
            memory_mib=self.ceilings.memory_mib,
            cpus=self.ceilings.cpus,
            consent_limit=self.consent_limit,
            quiet=self.quiet(now),
        )

    def path(self, home: Path, value: str) -> Path:
        """Resolve a path of the settings: relative ones lie under the station's home."""
        return home / value


def load_settings(home: Path, environment: Mapping[str, str] | None = None) -> StationSettings:
    """Read the settings of a home.

    Args:
        home: the station's folder.
        environment: for tests; the process's own where not given.

    Raises:
        NotFoundError: the folder holds no settings.
        SettingsError: not TOML, an unknown key, or a value out of range; names the key and the line.
    """
    try:
        text = (home / SETTINGS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no {SETTINGS_FILE} here", hint="Make one with `pht-station init`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{SETTINGS_FILE}: cannot be read as UTF-8 text") from error
    return parse_settings(text, os.environ if environment is None else environment)


def parse_settings(text: str, environment: Mapping[str, str] | None = None) -> StationSettings:
    """Read settings from TOML text.

    Args:
        text: the file's content.
        environment: variables that override plain keys; None for none.

    Raises:
        SettingsError: naming the key and, for what stands in the text, the line.
    """
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise SettingsError(f"{SETTINGS_FILE}: is not valid TOML: {error}") from error
    _override(values, environment or {})
    try:
        # Through JSON: strict models take names of enums from JSON only.
        return StationSettings.model_validate_json(canonical_json(values))
    except ValidationError as error:
        lines = key_lines(text)
        problems = [
            _describe(problem["loc"], problem["type"], problem["msg"], lines)
            for problem in error.errors()[:5]
        ]
        raise SettingsError(
            f"{SETTINGS_FILE}: " + "; ".join(problems),
            hint="Correct the named keys; station/settings.example.toml lists what is allowed.",
        ) from error
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{SETTINGS_FILE}: holds a value that is no text, number, list or table"
        ) from error


def example() -> StationSettings:
    """Return a hospital's settings with every section filled; `station/settings.example.toml` is this, rendered."""
    return StationSettings(
        name="hospital-a",
        orchestrator=OrchestratorSettings(
            url="https://orchestrator.example.org",
            mirror_url="https://orchestrator.example.org/mirror",
            ca_file="orchestrator-ca.pem",
        ),
        services=ServiceSettings(separation="users"),
        ceilings=CeilingSettings(memory_mib=16_384, cpus=4.0),
        hospital=HospitalSettings(
            operator_approval="training",
            consent_max_age_days=7,
            quiet_hours=(("22:00", "06:00"),),
            timezone="Europe/Amsterdam",
        ),
        collections=(
            CollectionSettings(
                name="chest-radiographs",
                consent_mode=ConsentMode.OPT_IN,
                legal_ground="GDPR art. 9(2)(a) and art. 24 UAVG: explicit consent",
                marking="patient",
                requester_classes=(RequesterClass.PARTICIPANT, RequesterClass.NON_PROFIT),
                purposes=(PurposeCode.METHOD_DEVELOPMENT, PurposeCode.HEALTH_RESEARCH),
                countries=("NL", "BE", "DE"),
            ),
        ),
    )


def _describe(
    location: tuple[int | str, ...], kind: str, message: str, lines: Mapping[tuple[int | str, ...], int]
) -> str:
    texts = {"extra_forbidden": "is not a known key", "missing": "is missing"}
    message = texts.get(kind, message.removeprefix("Value error, "))
    where = ".".join(map(str, location))
    sentence = f"{where} {message}" if where else message
    for length in range(len(location), 0, -1):
        if line := lines.get(location[:length]):
            return f"line {line}: {sentence}"
    return sentence


def _override(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Lay environment variables over the file's plain keys.

    Raises:
        SettingsError: a variable with our prefix names no setting.
    """
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        place, key = _place(values, variable.removeprefix(ENVIRONMENT_PREFIX).lower(), variable)
        place[key] = literal(text)


def _place(values: dict[str, Any], name: str, variable: str) -> tuple[dict[str, Any], str]:
    if name == "name":
        return values, name
    for section, info in StationSettings.model_fields.items():
        model = info.annotation
        if not (
            isinstance(model, type) and issubclass(model, StrictModel) and name.startswith(f"{section}_")
        ):
            continue
        key = name.removeprefix(f"{section}_")
        part = values.setdefault(section, {})
        if key in model.model_fields and isinstance(part, dict):
            return part, key
    raise SettingsError(
        f"the environment variable {variable} names no setting", hint="Unset it or correct its name."
    )
