"""What one association brings: a batch of the spool, cut by number and age so that one that never ends still flows."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from policies.documents import Name
from policies.errors import PhtError
from station.intake import spool
from station.intake.sources.rejections import Rejection
from station.settings.dicom import ReceiverSettings

LOG = logging.getLogger("station.intake.sources")


@dataclass(frozen=True, slots=True)
class Route:
    """Where an association's instances belong.

    Attributes:
        acknowledged: told the SOP Instance UID of each instance that was stored.
    """

    collection: Name
    source: spool.SourceKind
    acknowledged: Callable[[str], None] | None = None


class Routes(Protocol):
    """Decides who may send what where."""

    def route(self, calling: str, called: str) -> Route | None:
        """Return where it belongs; None refuses the association."""

    def knows(self, calling: str) -> bool:
        """Tell whether anything may come from this AE title, for the reason of a refusal."""


class Sink(Protocol):
    """Takes what has been received."""

    def received(self, batch: spool.StagedBatch) -> None:
        """A batch stands in the spool."""

    def rejected(self, rejection: Rejection) -> None:
        """Instances were rejected at the source; they are gone, durably, when this returns."""


class Reception:
    """One association's instances."""

    def __init__(self, folder: Path, route: Route, sink: Sink, settings: ReceiverSettings) -> None:
        self._folder = folder
        self._route = route
        self._sink = sink
        self._settings = settings
        self._lock = threading.Lock()
        self._batch: spool.IncomingBatch | None = None
        self._since = 0.0
        self._ended = False

    def store(self, data: bytes, uid: str) -> None:
        """Make one instance durable."""
        with self._lock:
            if self._batch is None:
                self._batch = spool.begin(self._folder, self._route.source, self._route.collection)
                self._since = time.monotonic()
            self._batch.add(data)
            if self._ended or self._batch.files >= self._settings.batch_instances:
                self._cut()
        if self._route.acknowledged is not None:
            self._route.acknowledged(uid)

    def cut_if_old(self, now: float) -> None:
        """Pass on what has waited long enough."""
        with self._lock:
            if self._batch is not None and now - self._since >= self._settings.batch_seconds:
                self._cut()

    def end(self) -> None:
        """Pass on what there is; the association is over."""
        with self._lock:
            self._ended = True
            self._cut()

    def _cut(self) -> None:
        batch, self._batch = self._batch, None
        if batch is None:
            return
        try:
            if batch.files:
                self._sink.received(batch.finish())
            else:
                batch.abandon()
        except PhtError as error:
            # Its files are durable; the next start finishes it.
            LOG.error("dicom-batch-failed", extra={"batch": batch.name, "code": type(error).__name__})  # noqa: TRY400
