"""What intake does as time goes by: ends terms, and takes up batches that nobody had to announce."""

import logging
import threading
from collections.abc import Callable

from policies.errors import PhtError
from station.intake.intake import Intake

LOG = logging.getLogger("station.intake")


class Upkeep:
    """A thread that looks at the spool every minute, and after terms when one may be over.

    Args:
        intake: the use cases.
        work: has an accepted batch processed soon.
        every_s: how often it looks at the spool.
    """

    def __init__(self, intake: Intake, work: Callable[[str], None], every_s: float) -> None:
        self._intake = intake
        self._work = work
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake-upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        until_sweep_s = 0.0
        while not self._stop.is_set():
            if until_sweep_s <= 0:
                self._step("intake-sweep-failed", self._sweep)
                until_sweep_s = self._intake.retention.every().total_seconds()
            self._step("intake-look-failed", self._look)
            self._stop.wait(self._every_s)
            until_sweep_s -= self._every_s

    def _step(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except PhtError as error:
            LOG.error(name, extra={"code": type(error).__name__})  # noqa: TRY400 - no text of others
        except Exception:  # the outermost boundary of this thread: it must look again
            LOG.exception("intake-upkeep-bug")

    def _sweep(self) -> None:
        self._intake.quarantine.tidy()
        swept = self._intake.retention.sweep()
        if swept.any:
            LOG.info("intake-swept", extra={"count": swept.total})

    def _look(self) -> None:
        for name in self._intake.recover():
            self._work(name)
