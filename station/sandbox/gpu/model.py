"""What is said of GPUs between the processes of a station. Pure."""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from policies.documents import StrictModel

EVERY: Final = "all"
"""In the hospital's list of devices: every one that this host has."""

_UUID: Final = r"(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

Uuid = Annotated[str, Field(pattern=rf"^{_UUID}$")]
OfferedDevice = Annotated[str, Field(pattern=rf"^({EVERY}|{_UUID})$")]
Pids = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class GpuNeed(StrictModel):
    """What a train asks for.

    Attributes:
        memory_mib: the least memory of the device.
        required: without a device it is not started; else it then runs on the CPU.
    """

    memory_mib: Annotated[int, Field(ge=0)] = 0
    required: bool = True


class Device(StrictModel):
    """One device as the driver shows it: a whole GPU, or a slice of one (MIG).

    Attributes:
        minor: of its GPU's device node.
        memory_mib: all of it.
        free_mib: what nobody holds now.
        processes: whoever computes or draws on it now.
        parent: the GPU that it is a slice of.
        instance: the number of the slice on its GPU, which owns the memory.
        problem: why it can be leased to nobody.
    """

    uuid: Uuid
    name: Annotated[str, Field(max_length=96)]
    minor: Annotated[int, Field(ge=0)]
    memory_mib: Annotated[int, Field(ge=0)]
    free_mib: Annotated[int, Field(ge=0)]
    processes: Pids = ()
    parent: Uuid | None = None
    instance: Annotated[int, Field(ge=0)] | None = None
    problem: Annotated[str, Field(max_length=200)] = ""


class Discovery(StrictModel):
    """What the driver says.

    Attributes:
        driver: its version; empty without one.
        problem: why it says nothing; empty too where there is no driver at all, which is no fault.
    """

    driver: Annotated[str, Field(max_length=64)] = ""
    devices: Annotated[
        tuple[Device, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ] = ()
    problem: Annotated[str, Field(max_length=200)] = ""


class LeasedGpu(StrictModel):
    """The one device that a container has.

    Attributes:
        nodes: the device nodes of the host that belong to it.
    """

    uuid: Uuid
    name: Annotated[str, Field(max_length=96)]
    memory_mib: Annotated[int, Field(ge=0)]
    nodes: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ] = ()


GpuState = Literal["free", "leased", "scrubbing", "unclean", "in-use-by-others", "not-offered", "unfit"]


class GpuStatus(StrictModel):
    """One device, for the operator.

    Attributes:
        run_id: whose it is, where it is leased.
        reason: why it is not free.
    """

    uuid: Uuid
    name: str
    memory_mib: int
    state: GpuState
    run_id: str = ""
    reason: str = ""


class GpuReport(StrictModel):
    """Every device, for the operator and for admission.

    Attributes:
        driver: its version; empty without one.
        problem: why no device can be leased at all.
        exceptions: what a train with a device sees of the host beside it.
    """

    driver: str = ""
    problem: str = ""
    devices: Annotated[
        tuple[GpuStatus, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ] = ()
    exceptions: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ] = ()

    @property
    def leasable_mib(self) -> tuple[int, ...]:
        """The memory of each device that is or may become a train's: others may leave it, and scrubbing is tried again."""
        if self.problem:
            return ()
        states = {"free", "leased", "scrubbing", "unclean", "in-use-by-others"}
        return tuple(sorted(each.memory_mib for each in self.devices if each.state in states))


class GpuTerms(StrictModel):
    """What the hospital allows, as the launcher is started with.

    Attributes:
        devices: by UUID, of GPUs (with MIG: all their slices) or slices; ``all``; empty leases none.
        scrub: overwrite a device's memory before and after each lease.
    """

    devices: Annotated[
        tuple[OfferedDevice, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    ] = ()
    scrub: bool = True

    def offers(self, device: Device) -> bool:
        """Whether a device is one of them."""
        return EVERY in self.devices or device.uuid in self.devices or device.parent in self.devices
