"""Which GPUs this host has, by NVML, asked in a process of its own.

No driver means no GPUs. A driver that fails, hangs, or says what cannot be means none either, with the reason.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from policies.documents import load_json
from policies.errors import DocumentError
from station.sandbox.gpu.children import DriverError, DriverHangsError, ask
from station.sandbox.gpu.model import Discovery

_MODULE: Final = "station.sandbox.gpu.looking"
_TIMEOUT_S: Final = 30.0
_REST_S: Final = 120.0


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
        return _discover(timeout_s)
    except DriverError as error:
        return Discovery(problem=error.message)


class Nvml:
    """Asks NVML; a driver that hung is left alone for a while, since each question may leave a process behind in it."""

    def __init__(self, *, timeout_s: float = _TIMEOUT_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet.

        Args:
            timeout_s: a driver that takes longer counts as broken.
            clock: in seconds, from anywhere.
        """
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._hung: tuple[float, Discovery] | None = None

    def __call__(self) -> Discovery:
        """Say which devices there are now."""
        with self._lock:
            if self._hung is not None and self._clock() - self._hung[0] < _REST_S:
                return self._hung[1]
        try:
            return _discover(self._timeout_s)
        except DriverHangsError as error:
            found = Discovery(problem=error.message)
            with self._lock:
                self._hung = (self._clock(), found)
            return found
        except DriverError as error:
            return Discovery(problem=error.message)


def _discover(timeout_s: float) -> Discovery:
    try:
        found = load_json(Discovery, ask(_MODULE, (), timeout_s=timeout_s), what="the driver's answer")
    except DocumentError:
        return Discovery(problem="the driver's answer makes no sense (older than R470?)")
    names = [device.uuid for device in found.devices]
    if len(set(names)) != len(names):
        return Discovery(driver=found.driver, problem="the driver shows one device twice")
    return found
