"""Looks at the register again as time goes by: consents begin and end, minors turn 16."""

import logging
import threading

from policies.errors import PhtError
from station.intake.consent.desk import ConsentDesk

log = logging.getLogger(__name__)

REVIEW_EVERY_S = 1800.0


class ConsentReview:
    """A thread that has the state resolved anew, at its start and twice an hour.

    Args:
        desk: the register's use cases.
        every_s: how often.
    """

    def __init__(self, desk: ConsentDesk, every_s: float = REVIEW_EVERY_S) -> None:
        self._desk = desk
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consent-review", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._desk.review()
            except PhtError as error:
                log.error("consent-review-failed", extra={"code": type(error).__name__})  # noqa: TRY400 - no text of others
            except Exception:  # the outermost boundary of this thread: it must look again
                log.exception("consent-review-bug")
            self._stop.wait(self._every_s)
