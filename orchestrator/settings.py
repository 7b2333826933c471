"""Where the orchestrator keeps things, and its one settings file. The only module here that reads the environment.

    <home>/orchestrator.toml                     settings
    <home>/tls/{ca.pem,ca.key,server.pem,server.key}
    <home>/trust/                                the board's root, pinned by the operator; what was verified last
    <home>/state.db                              tokens, bundles, orders, statements, who may read which blob
    <home>/keys/notary.pem                       countersigns stations' statements
    <home>/station-heads.dsse.json               the witness's newest document over all stations
    <home>/blobs/sha256/<hex>                    bytes by digest; blobs/partial/ holds uploads under way
    <home>/mirror/{metadata,targets}/            the board's repository as published
    <home>/runs/<order hex>/                     one run: order, state, rounds, checkpoint, result
    <home>/superlink/                            Flower's own database and secret
    <home>/logs/, <home>/run/                    JSON lines; lock, ready file

A setting is read from the file, then from ``PHT_ORCHESTRATOR_<SECTION>_<KEY>``; an unknown key in either is an error.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError

from orchestrator.federation.orders import Timing
from orchestrator.registry.limiting import Gate, Rate
from orchestrator.registry.quota import Quota
from orchestrator.storage.location import DatabaseSettings, Location, location_of
from policies.documents import Name, Sequence, StrictModel
from policies.errors import NotFoundError, SettingsError

ENVIRONMENT_PREFIX = "PHT_ORCHESTRATOR_"
SETTINGS_FILE = "orchestrator.toml"

PerSecond = Annotated[float, Field(gt=0.0, le=1e6)]
Burst = Annotated[float, Field(ge=1.0, le=1e9)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]


class FrontSettings(StrictModel):
    """The one public port."""

    name: Name = Field(default="orchestrator", description="Shown in the certificate and at /api/v1/health.")
    hosts: Sequence[Host] = Field(
        min_length=1, description="Names and addresses that clients use; the first is shown."
    )
    bind: Host = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - it is a public service
    port: Port


class LimitSettings(StrictModel):
    """Ceilings against a peer that sends without end."""

    blob_mib: Annotated[int, Field(ge=1, le=1 << 20)] = Field(
        default=16_384, description="Largest blob: an image layer or a model."
    )
    free_disk_mib: Annotated[int, Field(ge=0)] = Field(
        default=1024,
        description="A station's release that would leave less free disk than this is refused; another upload at twice as much.",
    )
    researcher_mib: Annotated[int, Field(ge=0, le=1 << 40)] = Field(
        default=262_144,
        description="What one researcher's uploads may take in all: trains, weights, what is unfinished. 0 is without limit.",
    )
    station_mib: Annotated[int, Field(ge=0, le=1 << 40)] = Field(
        default=65_536,
        description="What one station's updates of runs under way may take. 0 is without limit.",
    )
    fleet_body_mib: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Largest body a station may send to a Fleet route."
    )
    principal_per_s: PerSecond = Field(
        default=100.0,
        description="API requests of one party a second, for as long as it likes; a blob is one.",
    )
    principal_burst: Burst = Field(default=1000.0, description="And at once.")
    address_per_s: PerSecond = Field(
        default=50.0, description="Requests of one address that prove nobody's identity: the mirror, say."
    )
    address_burst: Burst = Field(
        default=2000.0, description="And at once: many stations may share an address."
    )
    refused_per_s: PerSecond = Field(
        default=1.0, description="Proofs of one address that do not hold, before the next is looked at."
    )
    refused_burst: Burst = Field(default=60.0, description="And at once.")
    parallel_runs: Annotated[int, Field(ge=1, le=256)] = Field(
        default=4, description="Runs that are carried at once; the others are queued."
    )
    runs_per_station: Annotated[int, Field(ge=1, le=256)] = Field(
        default=2, description="Runs that one station is asked to take part in at once."
    )

    def quota(self) -> Quota:
        """Return what each party may keep here."""
        return Quota(self.researcher_mib << 20, self.station_mib << 20)

    def gate(self) -> Gate:
        """Return the door that these limits make."""
        return Gate(
            address=Rate(self.address_per_s, self.address_burst),
            principal=Rate(self.principal_per_s, self.principal_burst),
            failures=Rate(self.refused_per_s, self.refused_burst),
        )


class SuperLinkSettings(StrictModel):
    """Flower's SuperLink behind the front."""

    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=0, description="Loopback port; 0 takes a free one at each start."
    )


class Settings(StrictModel):
    """All settings of one orchestrator."""

    front: FrontSettings
    limits: LimitSettings = Field(default_factory=LimitSettings)
    superlink: SuperLinkSettings = Field(default_factory=SuperLinkSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    timing: Timing = Field(default_factory=Timing)

    @property
    def url(self) -> str:
        """The address that stations, researchers and the board use."""
        host = self.front.hosts[0]
        return f"https://{f'[{host}]' if ':' in host else host}:{self.front.port}"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one orchestrator; knows where each thing lies, makes nothing."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """The settings file."""
        return self.path / SETTINGS_FILE

    @property
    def tls(self) -> Path:
        """Certificates and keys."""
        return self.path / "tls"

    @property
    def ca_certificate(self) -> Path:
        """What peers pin."""
        return self.tls / "ca.pem"

    @property
    def server_certificate(self) -> Path:
        """What the front shows."""
        return self.tls / "server.pem"

    @property
    def server_key(self) -> Path:
        """The front's key."""
        return self.tls / "server.key"

    @property
    def trust(self) -> Path:
        """The pinned root and what was last verified with it."""
        return self.path / "trust"

    @property
    def database(self) -> Path:
        """Our own state."""
        return self.path / "state.db"

    @property
    def notary_key(self) -> Path:
        """Countersigns stations' statements; says that we hold them, and nothing that stations go by."""
        return self.path / "keys" / "notary.pem"

    @property
    def station_heads(self) -> Path:
        """The newest document of the board's witness over all stations."""
        return self.path / "station-heads.dsse.json"

    @property
    def blobs(self) -> Path:
        """Bytes by digest."""
        return self.path / "blobs"

    @property
    def mirror(self) -> Path:
        """The board's repository as published."""
        return self.path / "mirror"

    @property
    def runs(self) -> Path:
        """One folder per order."""
        return self.path / "runs"

    @property
    def superlink(self) -> Path:
        """Flower's own state."""
        return self.path / "superlink"

    @property
    def logs(self) -> Path:
        """JSON lines."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Lock, ready file and verifier's cache: what may be lost."""
        return self.path / "run"

    def run_folder(self, order_digest: str) -> Path:
        """The folder of one run."""
        return self.runs / order_digest.removeprefix("sha256:")


def load_settings(home: Home, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of a home.

    Args:
        home: the orchestrator's folder.
        environment: for tests; the process's own where not given.

    Raises:
        NotFoundError: the folder holds no settings.
        SettingsError: not TOML, an unknown key, or a value out of range; names the key.
    """
    try:
        values = tomllib.loads(home.settings_file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{home.path}: there is no {SETTINGS_FILE} here", hint="Make one with `pht-orchestrator init`."
        ) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{SETTINGS_FILE}: cannot be read as TOML: {error}") from error
    _refuse_password(values)
    for section, key, text in _overrides(os.environ if environment is None else environment):
        part = values.setdefault(section, {})
        if isinstance(part, dict) and (section, key) == ("database", "password"):
            # As it is: a password of digits is no number.
            part[key] = SecretStr(text)
            continue
        if isinstance(part, dict):
            part[key] = _literal(text)
    return parse_settings(values)


def database_location(home: Home, settings: Settings) -> Location:
    """Return where a home's own state is.

    Raises:
        SettingsError: see `orchestrator.storage.location.location_of`.
    """
    return location_of(settings.database, home.database)


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Check settings.

    Raises:
        SettingsError: names the first few keys that are wrong.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise _wrong(error, SETTINGS_FILE) from error


def parse_database(
    values: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> DatabaseSettings:
    """Check the section `[database]` alone; the password comes from the environment.

    Raises:
        SettingsError: names what is wrong.
    """
    password = (os.environ if environment is None else environment).get(
        f"{ENVIRONMENT_PREFIX}DATABASE_PASSWORD"
    )
    try:
        found = DatabaseSettings.model_validate(dict(values))
    except ValidationError as error:
        raise _wrong(error, "database") from error
    return found if password is None else found.model_copy(update={"password": SecretStr(password)})


def _wrong(error: ValidationError, what: str) -> SettingsError:
    problems = [
        f"{'.'.join(map(str, problem['loc']))}: "
        + ("is not a known key" if problem["type"] == "extra_forbidden" else problem["msg"])
        for problem in error.errors()[:5]
    ]
    return SettingsError(
        f"{what}: " + "; ".join(problems),
        hint="Correct the named keys; orchestrator/README.md lists what is allowed.",
    )


def render_settings(settings: Settings) -> str:
    """Write the settings file that `init` makes."""
    sections: dict[str, StrictModel] = {name: getattr(settings, name) for name in Settings.model_fields}
    return "\n".join(render_section(name, section) for name, section in sections.items())


def render_section(name: str, section: StrictModel) -> str:
    """Write one section of the settings file."""
    values = section.model_dump(mode="json").items()
    return "\n".join(
        [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values if value is not None), ""]
    )


def child_environment() -> dict[str, str]:
    """The environment of the processes we start: ours, without secrets in it, and with Flower kept quiet."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PHT_TOKEN")}
    return kept | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def _refuse_password(values: Mapping[str, Any]) -> None:
    section = values.get("database")
    if isinstance(section, dict) and "password" in section:
        raise SettingsError(
            f"{SETTINGS_FILE}: database.password: no password belongs here",
            hint="Put it into a file of mode 0600, and name that in database.password_file.",
        )


def _overrides(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    found = []
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
            found.append((section, key, text))
    return found


def _literal(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML string.
    return str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
