"""Which item of a retrieval comes next, what becomes of one that fails, and when the whole gives up.

A fault of one item is tried again later, after a growing pause, up to `attempts` times. A fault that would meet every item (the
PACS is away, or does not know our destination) costs no item: after as many in a row the retrieval stops and says why.
"""

import logging
import random
import threading
from collections import deque
from dataclasses import dataclass

from policies.errors import PhtError
from station.intake.sources.journal import ItemState, JobCard, JobState, Journal, Progress
from station.intake.sources.manners import backoff_s
from station.intake.sources.pacs_faults import PacsFault
from station.settings.dicom import PacsSettings

LOG = logging.getLogger("station.intake.sources")

INCOMPLETE_ATTEMPTS = 2
"""An item that comes short is asked for once more: what the PACS cannot send to us it cannot send the third time either."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item ended; see `Progress`."""

    state: ItemState
    expected: int | None
    received: int
    reason: str


class Agenda:
    """The items that are left, shared by the threads that work on them."""

    def __init__(self, journal: Journal, settings: PacsSettings) -> None:
        self.card: JobCard = journal.card
        self._journal = journal
        self._settings = settings
        self._left = deque(journal.open_items())
        self._in_a_row = 0
        self._over = False
        self._fault: PhtError | None = None
        self._lock = threading.Lock()
        self._dice = random.Random()  # noqa: S311 - jitter, no secret

    def next(self) -> int | None:
        """Return the next item; None when there is none for this thread."""
        with self._lock:
            return self._left.popleft() if self._left and not self._over else None

    def found(self, number: int, expected: int | None) -> None:
        """Write down that an item is there."""
        with self._lock:
            known = self._journal.progress[number]
            self._write(number, Progress(state=ItemState.FOUND, expected=expected, attempts=known.attempts))

    def done(self, number: int, outcome: Outcome) -> None:
        """Write down how an item ended; one that came short once is asked for again."""
        with self._lock:
            self._in_a_row = 0
            attempts = self._journal.progress[number].attempts
            state = outcome.state
            if state is ItemState.INCOMPLETE:
                attempts += 1
                if attempts < INCOMPLETE_ATTEMPTS:
                    state = ItemState.PENDING
                    self._left.append(number)
            progress = Progress(
                state=state,
                expected=outcome.expected,
                received=outcome.received,
                reason=outcome.reason,
                attempts=attempts,
            )
            self._write(number, progress)

    def failed(self, number: int, fault: PacsFault) -> float | None:
        """Write down a fault; returns how long to leave the PACS alone, or None when nothing follows."""
        settings = self._settings
        LOG.warning("pacs-fault", extra={"code": fault.value})
        with self._lock:
            self._in_a_row += 1
            if fault.concerns_all:
                self._left.appendleft(number)
                if self._in_a_row >= settings.attempts:
                    self._over = True
                    self._say(JobState.STOPPED, fault.value)
            else:
                known = self._journal.progress[number]
                attempts = known.attempts + 1
                given_up = attempts >= settings.attempts
                state = ItemState.FAILED if given_up else ItemState.PENDING
                self._write(
                    number,
                    Progress(state=state, expected=known.expected, reason=fault.value, attempts=attempts),
                )
                if not given_up:
                    self._left.append(number)
            if self._over or not self._left:
                return None
            return backoff_s(
                self._in_a_row, settings.backoff_s, settings.backoff_longest_s, self._dice.random()
            )

    def stop(self, error: PhtError) -> None:
        """Give no further item out: something is wrong here, such as a full disk, that the next item would meet too."""
        with self._lock:
            self._over, self._fault = True, self._fault or error

    def raise_fault(self) -> None:
        """Raise what kept the journal from being written, on the thread that has to know."""
        if self._fault is not None:
            raise self._fault

    def _write(self, number: int, progress: Progress) -> None:
        try:
            self._journal.record(number, progress)
        except PhtError as error:
            # Nothing more is done for what cannot be written down.
            self._over, self._fault = True, error

    def _say(self, state: JobState, reason: str) -> None:
        try:
            self._journal.say(state, reason)
        except PhtError as error:
            self._over, self._fault = True, error
