"""Leaves nothing of one holder on a device for the next: waits until it is gone, then has the memory overwritten.

A NVIDIA driver may clear memory by itself; it does not promise to. What counts as scrubbed: our process got hold of, overwrote and
read back all of the device's memory but what a driver keeps for itself and for our process.
"""

import threading
import time
from typing import Annotated, Final, Protocol

from pydantic import Field

from policies.documents import StrictModel, load_json
from policies.errors import DocumentError
from station.sandbox.gpu.children import DriverError, ask
from station.sandbox.gpu.model import Device
from station.sandbox.gpu.nvml import Driver

_MODULE: Final = "station.sandbox.gpu.wiping"
_WIPE_S: Final = 180.0
_GONE_S: Final = 60.0
_POLL_S: Final = 0.2
_MIB: Final = 1 << 20
# A context of our own and what the driver reserves: some hundred MiB on a large card, less on a slice.
_KEPT_MIB: Final = 2048
_KEPT_PART: Final = 4


class Wiped(StrictModel):
    """What the wiping process prints."""

    total: Annotated[int, Field(ge=0)] = 0
    overwritten: Annotated[int, Field(ge=0)] = 0
    problem: Annotated[str, Field(max_length=200)] = ""


class Scrubber(Protocol):
    """Whoever can clean a device."""

    def __call__(self, uuid: str) -> str:
        """Clean a device; returns why it could not, or nothing."""
        ...


def scrub(uuid: str, *, timeout_s: float = _WIPE_S) -> str:
    """Overwrite a device's memory; returns why that could not be done, or nothing.

    Args:
        uuid: of the device, on which nobody computes.
        timeout_s: a driver that takes longer counts as broken.
    """
    try:
        wiped = load_json(Wiped, ask(_MODULE, (uuid,), timeout_s=timeout_s), what="the answer about a device")
    except DriverError as error:
        return error.message
    except DocumentError:
        return "the driver's answer makes no sense"
    if wiped.problem:
        return wiped.problem
    left = wiped.total - wiped.overwritten
    if wiped.total == 0 or left > min(wiped.total // _KEPT_PART, _KEPT_MIB * _MIB):
        return f"{left // _MIB} of {wiped.total // _MIB} MiB could not be reached"
    return ""


def await_gone(uuid: str, driver: Driver, *, timeout_s: float = _GONE_S) -> str:
    """Wait until no process is on a device; returns why it is not free, or nothing."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        found = driver()
        device = find(uuid, found.devices)
        if device is None:
            return found.problem or "the driver shows it no longer"
        if device.problem:
            return device.problem
        if not device.processes:
            return ""
        if time.monotonic() >= deadline:
            return f"processes are still on it: {', '.join(map(str, device.processes[:8]))}"
        pause.wait(_POLL_S)


def find(uuid: str, devices: tuple[Device, ...]) -> Device | None:
    """Return a device by its UUID."""
    return next((device for device in devices if device.uuid == uuid), None)
