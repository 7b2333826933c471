"""Which GPUs this host has, by NVML, asked in a process of its own.

No driver means no GPUs. A driver that fails, hangs, or says what cannot be means none either, with the reason.
"""

from typing import Final, Protocol

from policies.documents import load_json
from policies.errors import DocumentError
from station.sandbox.gpu.children import DriverError, ask
from station.sandbox.gpu.model import Discovery

_MODULE: Final = "station.sandbox.gpu.looking"
_TIMEOUT_S: Final = 30.0


class Driver(Protocol):
    """Whoever knows the devices."""

    def __call__(self) -> Discovery:
        """Say which there are now."""
        ...


def discover(timeout_s: float = _TIMEOUT_S) -> Discovery:
    """Ask NVML.

    Args:
        timeout_s: a driver that takes longer counts as broken.
    """
    try:
        found = load_json(Discovery, ask(_MODULE, (), timeout_s=timeout_s), what="the driver's answer")
    except DriverError as error:
        return Discovery(problem=error.message)
    except DocumentError:
        return Discovery(problem="the driver's answer makes no sense (older than R470?)")
    names = [device.uuid for device in found.devices]
    if len(set(names)) != len(names):
        return Discovery(driver=found.driver, problem="the driver shows one device twice")
    return found
