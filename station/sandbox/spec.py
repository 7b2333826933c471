"""The values of the sandbox: what is to be run, under which ceilings, what is asked of it and what it answers.

No IO. Documents that cross the launcher's socket are strict models; the rest are frozen dataclasses.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from policies.documents import Digest, Name, StrictModel
from policies.errors import PhtError
from station.sandbox.gpu.model import GpuNeed, GpuReport, GpuTerms, LeasedGpu

GIB: Final = 1 << 30
MIB: Final = 1 << 20

Interface = Literal["flower", "command", "map"]
Runtime = Literal["runc", "crun", "runsc"]
SelinuxType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
SelinuxLevel = Annotated[
    str, Field(pattern=r"^s[0-9]{1,2}(-s[0-9]{1,2})?(:c[0-9]{1,4}([.,]c[0-9]{1,4}){0,15})?$")
]

# A number with all its digits, or a category's name, and what stands between two.
_CELL_BYTES: Final = 56
_RUN_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}[a-z0-9]")
# Above the ranges that distributions and systemd hand out, below what 32-bit signed numbers hold.
FIRST_UID: Final = 1_900_000_000
UID_COUNT: Final = 100_000_000


def _check_run_id(value: str) -> str:
    if not _RUN_ID.fullmatch(value):
        raise ValueError("is not a run id: 2 to 64 lower-case letters, digits and inner hyphens")
    return value


def _check_path(value: str) -> str:
    if not value.startswith("/") or "\0" in value or len(value) > 4096:
        raise ValueError("is not an absolute path")
    return value


def _as_path(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


RunId = Annotated[str, AfterValidator(_check_run_id)]
AbsolutePath = Annotated[str, AfterValidator(_check_path)]
SettingsPath = Annotated[Path, BeforeValidator(_as_path)]


class SelinuxLabel(StrictModel):
    """Under which SELinux label containers run; without one the engine chooses, where it uses SELinux at all.

    Attributes:
        type: such as ``container_t``.
        level: sensitivity and categories, such as ``s0:c100,c200``; without one the engine draws categories per container.
    """

    type: SelinuxType | None = None
    level: SelinuxLevel | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """What an engine is asked for."""
        pairs = (("type", self.type), ("level", self.level))
        return tuple(f"label:{name}:{value}" for name, value in pairs if value is not None)


class LauncherSettings(StrictModel):
    """What the launcher is started with; nothing that arrives on its socket can widen it.

    Attributes:
        station: the station's name; its containers are labelled with it.
        engine_socket: where the container engine listens.
        compute_uid: the one user, beside root, who may speak to the launcher.
        runtime: the OCI runtime to use; ``None`` for the engine's usual one.
        selinux: the label of every container.
        socket_gid: the group that may open the launcher's socket; ``None`` leaves the launcher's own.
        max_memory_bytes: ceiling for one train, with its tmpfs and without swap; for the containers of a series together.
        max_cpus: ceiling for one train, likewise.
        max_pids: ceiling for one train, likewise.
        max_scratch_bytes: ceiling of one train's scratch, likewise.
        max_wall_clock_s: ceiling of one container's life.
        max_containers: how many trains may run at once; the containers of a series count as one.
        gpu: the devices that may be leased.
    """

    station: Name
    engine_socket: SettingsPath = Path("/var/run/docker.sock")
    runtime: Runtime | None = None
    selinux: SelinuxLabel = SelinuxLabel()
    compute_uid: Annotated[int, Field(ge=0)]
    socket_gid: Annotated[int, Field(ge=0)] | None = None
    max_memory_bytes: Annotated[int, Field(ge=64 * MIB)] = 16 * GIB
    max_cpus: Annotated[float, Field(gt=0, le=1024)] = 4.0
    max_pids: Annotated[int, Field(ge=8, le=32768)] = 1024
    max_scratch_bytes: Annotated[int, Field(ge=MIB)] = 8 * GIB
    max_wall_clock_s: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    max_containers: Annotated[int, Field(ge=1, le=64)] = 4
    gpu: GpuTerms = Field(default_factory=GpuTerms)


class ContainerSpec(StrictModel):
    """One container to start. All that can be chosen about it; the rest is the station's and fixed.

    Attributes:
        run_id: names the container; one container per run.
        image_config_digest: the image's identity as the policy names it.
        cohort_dir: mounted read-only at ``/train/data``; under ``HOME/compute/cohorts``.
        control_dir: mounted read-only at ``/train/control``; under ``HOME/compute/control``.
        interface: what the hello must say.
        memory_bytes: limit on memory, tmpfs included.
        cpus: limit on CPU time per time.
        pids: limit on processes and threads.
        scratch_bytes: size of ``/train/scratch``, counted as memory.
        wall_clock_s: after this the launcher kills the container.
        gpu: a device of its own, as the manifest asks and the policy grants; ``None`` for none.
        series: names containers of one run that are started one after the other (`map`); they share one train's place and
            ceilings, and what was read of the image's layers for a minute, while no layer's file is touched. Without it every
            layer is read before the start.
        beside: the run whose place and ceilings this container shares: it scores what that one was trained to.
    """

    run_id: RunId
    image_config_digest: Digest
    cohort_dir: AbsolutePath
    control_dir: AbsolutePath
    interface: Interface = "flower"
    memory_bytes: Annotated[int, Field(ge=64 * MIB)]
    cpus: Annotated[float, Field(gt=0, le=1024)]
    pids: Annotated[int, Field(ge=8, le=32768)] = 512
    scratch_bytes: Annotated[int, Field(ge=MIB)] = 256 * MIB
    wall_clock_s: Annotated[int, Field(ge=1)]
    gpu: GpuNeed | None = None
    series: RunId | None = None
    beside: RunId | None = None


class EngineInfo(StrictModel):
    """What matters about the container engine.

    Attributes:
        kind: the dialect it is spoken to in.
        unfit: what it cannot enforce, by name.
    """

    kind: str
    name: str
    version: str
    architecture: str
    cgroup_version: str
    cpus: int
    memory_bytes: int
    unfit: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
    ]


class LoadedImage(StrictModel):
    """An image as it is in the engine: our rewritten one.

    Attributes:
        image_id: its id there.
        layers_hashed: layers of our store that were read and verified.
        layers_sent: layers that the engine did not have.
    """

    image_id: Digest
    layers_hashed: int
    layers_sent: int


class StartedContainer(StrictModel):
    """A container that runs.

    Attributes:
        container_id: the engine's name for it, which stands in the name of its control group as well.
        uid: its fresh user, as the container sees it.
        peer_uid: the user that connects to the control socket, as this host's kernel shows it; ``None`` where the runtime
            connects on the container's behalf (gVisor), and its control group alone tells.
    """

    run_id: RunId
    container_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    image_id: Digest
    uid: Annotated[int, Field(ge=1000, lt=FIRST_UID + UID_COUNT)]
    peer_uid: Annotated[int, Field(ge=0)] | None
    gpu: LeasedGpu | None = None


class ContainerStatus(StrictModel):
    """How a run's container is.

    Attributes:
        run_id: the run.
        state: ``absent`` when the engine has no container of this run.
        exit_code: once it has exited.
        out_of_memory: the kernel killed one of its processes for its memory limit.
        timed_out: the launcher killed it at the end of its wall clock.
        engine_changed: another engine process answers than the one that started it, which takes its containers along when it ends.
    """

    run_id: RunId
    state: Literal["running", "exited", "absent"]
    exit_code: int | None = None
    out_of_memory: bool = False
    timed_out: bool = False
    engine_changed: bool = False


class Launcher(Protocol):
    """The closed set of verbs, over the socket or in one process.

    Each raises ``RefusedError`` with a refusal's code when the launcher says no, and ``UnavailableError`` when no engine
    (or no launcher) answers.
    """

    def engine_info(self) -> EngineInfo:
        """Say what the engine is and what it cannot enforce."""
        ...

    def load_image(self, config_digest: str) -> LoadedImage:
        """Bring an image from our layer store into the engine, verified."""
        ...

    def remove_image(self, config_digest: str) -> bool:
        """Remove the image that was made of one in the layer store; says whether it is gone: not while a container uses it."""
        ...

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Start a container; verifies its image again."""
        ...

    def status(self, run_id: str) -> ContainerStatus:
        """Say how a run's container is."""
        ...

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        """Wait until it has exited, or the time is over."""
        ...

    def logs(self, run_id: str, max_bytes: int) -> str:
        """Return the end of what it wrote; for the hospital's operator alone."""
        ...

    def stop(self, run_id: str) -> None:
        """Kill and remove it; fine when it is gone already."""
        ...

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Return every container of this station."""
        ...

    def remove_orphans(self) -> int:
        """Kill and remove every container of this station; returns how many."""
        ...

    def gpus(self) -> GpuReport:
        """Return every GPU of the host, and how it is."""
        ...


class ExitClass(StrEnum):
    """What is said of a train that failed; with a declared code and nothing else this may leave the station."""

    CRASH = "crash"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "oom"
    PROTOCOL = "protocol"
    NO_ROOM = "no-room"
    PATIENTS_FAILED = "patients-failed"
    TAKEN_AWAY = "taken-away"
    """It went with the launcher or the engine: no doing of the train's."""
    DECLARED_ERROR = "declared-error"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """One request to a train.

    Attributes:
        kind: what to do.
        round: the round of the run order.
        config: the hyperparameters.
        arrays: a safetensors file to send along.
        case: of `predict`: which case of the cohort, by the train's name for it.
    """

    kind: Literal["train", "evaluate", "analyse", "score", "predict"]
    round: int
    config: Mapping[str, JsonValue] = field(default_factory=dict)
    arrays: Path | None = None
    case: str | None = None


def head_bytes(cells: int) -> int:
    """Return the ceiling of a reply's head that may hold so many values of rows.

    >>> head_bytes(0) == MIB, head_bytes(10**9) == MIB + 16 * MIB
    (True, True)
    """
    return MIB + min(16 * MIB, cells * _CELL_BYTES)


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What is accepted as an answer.

    Attributes:
        arrays_to: the file that gets the reply's arrays.
        max_arrays_bytes: ceiling of the arrays.
        max_head_bytes: ceiling of the JSON head.
        keep_free_bytes: what stays free on the disk of `arrays_to`, whatever the ceiling.
    """

    arrays_to: Path
    max_arrays_bytes: int
    max_head_bytes: int = MIB
    keep_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TrainReply:
    """What a train answered. Written by hostile code: a candidate for the egress guard and nothing more."""

    metrics: Mapping[str, JsonValue]
    rows: Mapping[str, JsonValue]
    arrays: Path | None
    arrays_bytes: int
    seconds: float
    scores: Sequence[JsonValue] = ()


@dataclass(frozen=True, slots=True)
class TrainFailure:
    """A request that was not answered.

    Attributes:
        exit_class: one of the closed list.
        error_code: the code that the train gave, for `ExitClass.DECLARED_ERROR` only; to be compared with its manifest.
        detail: for the operator; made here, never the train's text.
        session_ended: the container can take no further request.
    """

    exit_class: ExitClass
    error_code: str | None = None
    detail: str = ""
    session_ended: bool = True


class TrainStartError(PhtError):
    """A container started and did not get as far as a valid hello.

    Attributes:
        failure: why.
        log: the end of what it wrote, for this hospital's operator and nobody else.
    """

    def __init__(self, failure: TrainFailure) -> None:
        super().__init__(f"the train did not start: {failure.exit_class.value} {failure.detail}".rstrip())
        self.failure = failure
        self.log = ""
