"""What an engine is asked for a leased device, and what of the host a train then sees beside it. Pure but for reading /proc.

Everything that the NVIDIA runtime adds to a container is an exception to "no devices, no mounts": it is listed here, so that a check of
the kernel's view lets exactly this pass, and the operator can read it.
"""

import re
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from station.sandbox.gpu.model import Device, LeasedGpu

CAPABILITIES: Final = ("gpu", "compute", "utility")
"""``compute`` brings libcuda, ``utility`` libnvidia-ml (torch asks it). No graphics, no video, no display."""

NOTHING: Final = "void"
"""What a container without a lease is told to see: also where a hook of the host gives GPUs to whoever does not say so."""

SHARED_NODES: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""Nodes that belong to no single device; without them CUDA does not start."""

_NODE: Final = re.compile(
    r"/dev/(nvidia[0-9]+|nvidiactl|nvidia-uvm|nvidia-uvm-tools|nvidia-caps/nvidia-cap[0-9]+)"
)
_MOUNTS: Final = (
    ("the driver's libraries", r"/usr/(lib|lib64|lib/[a-z0-9_]+-linux-gnu)/(libcuda|libcudadebugger|libnvidia-[a-z0-9-]+)\.so[0-9.]*"),
    ("the driver's programs", r"/usr/bin/nvidia-(smi|debugdump|persistenced|cuda-mps-control|cuda-mps-server|imex|imex-ctl)"),
    ("the driver's firmware", r"/(usr/)?lib/firmware/nvidia/[0-9.]+/[a-z0-9_]+\.bin"),
    ("what the driver says of the device", r"/proc/driver/nvidia(/[A-Za-z0-9_./:-]+)?"),
    ("sockets of the driver's services", r"/run/nvidia-(persistenced|fabricmanager)/socket"),
)  # fmt: skip
_MINOR: Final = re.compile(r"^DeviceFileMinor:\s*([0-9]{1,6})\s*$", re.MULTILINE)
_READ: Final = 4096


def leased(device: Device, proc: Path = Path("/proc")) -> LeasedGpu:
    """Return what is leased with a device.

    Args:
        device: as the driver shows it.
        proc: where the kernel names the nodes of slices.
    """
    nodes = [f"/dev/nvidia{device.minor}", *SHARED_NODES, *_slice_nodes(device, proc)]
    return LeasedGpu(uuid=device.uuid, name=device.name, memory_mib=device.memory_mib, nodes=tuple(nodes))


def _slice_nodes(device: Device, proc: Path) -> list[str]:
    if device.instance is None:
        return []
    folder = proc / f"driver/nvidia/capabilities/gpu{device.minor}/mig/gi{device.instance}"
    found = []
    for path in (folder / "access", *sorted(folder.glob("ci*/access"))):
        try:
            with path.open() as file:
                minor = _MINOR.search(file.read(_READ))
        except OSError:
            continue
        if minor is not None:
            found.append(f"/dev/nvidia-caps/nvidia-cap{minor[1]}")
    return found


def requests(gpu: LeasedGpu | None) -> list[JsonValue]:
    """Return Docker's ``DeviceRequests``: exactly the leased device."""
    if gpu is None:
        return []
    return [
        {
            "Driver": "nvidia",
            "Count": 0,
            "DeviceIDs": [gpu.uuid],
            "Capabilities": [list(CAPABILITIES)],
            "Options": {},
        }
    ]


def environment(gpu: LeasedGpu | None) -> list[JsonValue]:
    """Return what a container is told of GPUs: its own, or that there is none."""
    if gpu is None:
        return [f"NVIDIA_VISIBLE_DEVICES={NOTHING}"]
    return [
        f"NVIDIA_VISIBLE_DEVICES={gpu.uuid}",
        f"NVIDIA_DRIVER_CAPABILITIES={','.join(CAPABILITIES[1:])}",
    ]


def cannot_give(engine: str, runtime: str | None) -> str:
    """Return why a kind of engine gives no GPUs, or nothing.

    Args:
        engine: the dialect's name.
        runtime: the OCI runtime that the hospital chose.
    """
    if engine != "docker":
        return f"no GPU is leased under {engine}: only Docker is asked for devices"
    if runtime == "runsc":
        return "no GPU is leased under runsc: its NVIDIA proxy is not used"
    return ""


def is_driver_node(path: str, gpu: LeasedGpu | None) -> bool:
    """Whether a device node in a container is there because of its lease; without a lease none is."""
    return gpu is not None and path in gpu.nodes


def is_any_driver_node(path: str) -> bool:
    """Whether a device node is of NVIDIA's driver, leased or not."""
    return _NODE.fullmatch(path) is not None


def is_driver_mount(path: str, gpu: LeasedGpu | None) -> bool:
    """Whether a mount in a container is there because of its lease; without a lease none is."""
    if gpu is None:
        return False
    return path in gpu.nodes or any(re.fullmatch(pattern, path) for _, pattern in _MOUNTS)


def exceptions() -> tuple[str, ...]:
    """Return in words what a train with a device sees of the host beside it."""
    return (
        f"nodes: its own /dev/nvidia<number> (with MIG also /dev/nvidia-caps/), {', '.join(SHARED_NODES)}",
        *(f"read-only mounts: {what}" for what, _ in _MOUNTS),
    )
