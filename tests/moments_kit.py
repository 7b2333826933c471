"""A clock for moments: it runs as the real one does, and where something waits for a moment it is there at once."""

import threading
import time


class SkippingClock:
    """Seconds that never go back; waiting for them takes no time."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return time.monotonic() + self.skipped

    def wait(self, seconds: float) -> bool:
        with self._lock:
            self.skipped += seconds
        return False
