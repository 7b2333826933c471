"""What the rules ask about GPUs: the memory of those that the station leases, and what a permitted run is to be given."""

import threading
import time
from collections.abc import Callable
from typing import Final

from policies.errors import PhtError
from policies.rules.gpu_rules import gpu_wish
from station.admission.gatekeeper import Admitted
from station.sandbox.gpu.model import GpuNeed
from station.sandbox.spec import Launcher
from station.settings import StationSettings

_ASK_EVERY_S: Final = 15.0


class LeasableGpus:
    """Asks the launcher, at most every few seconds: every message of a train that wants a GPU asks here."""

    def __init__(
        self, settings: StationSettings, launcher: Launcher, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Ask nothing yet.

        Args:
            settings: a hospital that offers no device is not asked for any.
            launcher: knows the devices.
            clock: in seconds, from anywhere.
        """
        self._settings = settings
        self._launcher = launcher
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, tuple[int, ...]] | None = None

    def __call__(self) -> tuple[int, ...] | None:
        """Return the memory of each device in MiB; None where the launcher cannot say."""
        if not self._settings.gpu.devices:
            return ()
        with self._lock:
            if self._known is not None and self._clock() - self._known[0] < _ASK_EVERY_S:
                return self._known[1]
            try:
                found = self._launcher.gpus().leasable_mib
            except PhtError:
                self._known = None
                return None
            self._known = (self._clock(), found)
            return found


def gpu_need(admitted: Admitted) -> GpuNeed | None:
    """Return what the launcher is asked for a permitted run; None for no GPU."""
    wish = gpu_wish(admitted.order, admitted.manifest, admitted.verified.in_force.policy)
    return None if wish is None else GpuNeed(memory_mib=wish.memory_mib, required=wish.required)
