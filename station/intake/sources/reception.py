"""What one association brings: a batch of the spool, cut by number and age so that one that never ends still flows.

Used by the receiver (C-STORE, and C-MOVE's sub-operations) and by C-GET, whose instances come over our own association.

Invariants: an instance is durable before it is answered with success; a data set is stored as it came, not decoded; nothing
of it is logged.
"""

import logging
import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol, cast

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from policies.documents import Name
from policies.errors import PhtError, StorageError
from station.intake import spool
from station.intake.sources.rejections import Rejection, read_rejection
from station.intake.sources.sop_classes import KEY_OBJECT_SELECTION
from station.intake.sources.stored import Message, NotUnderstoodError, OtherInstanceError

LOG = logging.getLogger("station.intake.sources")


class StoreStatus(IntEnum):
    """What a C-STORE is answered (PS3.4 table B.2-1)."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class Expectation:
    """The series that a retrieval has asked for, and what has come of them. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[str, set[str]] = {}

    def expect(self, series_uid: str) -> None:
        """Begin to take a series."""
        with self._lock:
            self._series[series_uid] = set()

    def wants(self, series_uid: str) -> bool:
        """Tell whether a series was asked for."""
        with self._lock:
            return series_uid in self._series

    def stored(self, series_uid: str, sop_instance_uid: str) -> None:
        """Say that an instance is in the spool."""
        with self._lock:
            if series_uid in self._series:
                self._series[series_uid].add(sop_instance_uid)

    def end(self, series_uid: str) -> frozenset[str]:
        """Take no more of a series; returns the instances that came."""
        with self._lock:
            return frozenset(self._series.pop(series_uid, ()))


@dataclass(frozen=True, slots=True)
class Route:
    """Where an association's instances belong.

    Attributes:
        expectation: of the retrieval that asked for them; nothing else is then taken. None for what is sent unasked.
    """

    collection: Name
    source: spool.SourceKind
    expectation: Expectation | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """When instances are passed on although more may come."""

    instances: int
    seconds: float


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
    """One association's instances. Threads may share it."""

    def __init__(self, folder: Path, route: Route, sink: Sink, cut: Cut) -> None:
        self._folder = folder
        self._route = route
        self._sink = sink
        self._cut_at = cut
        self._lock = threading.Lock()
        self._batch: spool.IncomingBatch | None = None
        self._since = 0.0
        self._ended = False

    def answer(self, event: Event) -> int:
        """Answer one C-STORE; whatever happens, the peer reads no text of ours and we log none of its."""
        try:
            self._take(event)
        except NotUnderstoodError:
            status = StoreStatus.CANNOT_UNDERSTAND
        except OtherInstanceError:
            status = StoreStatus.DOES_NOT_MATCH
        except StorageError:
            status = StoreStatus.OUT_OF_RESOURCES
        except PhtError as error:
            LOG.error("dicom-store-failed", extra={"code": type(error).__name__})  # noqa: TRY400 - no trace is needed
            status = StoreStatus.OUT_OF_RESOURCES
        else:
            return StoreStatus.SUCCESS
        LOG.warning("dicom-store-refused", extra={"status": f"{status:04X}"})
        return status

    def cut_if_old(self, now: float) -> None:
        """Pass on what has waited long enough; `now` of the monotonic clock."""
        with self._lock:
            if self._batch is not None and now - self._since >= self._cut_at.seconds:
                self._cut()

    def end(self) -> None:
        """Pass on what there is; the association is over."""
        with self._lock:
            self._ended = True
            self._cut()

    def _take(self, event: Event) -> None:
        request = cast("C_STORE", event.request)
        message = Message(
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
            event.context.transfer_syntax,
            event.encoded_dataset(include_meta=False),
        )
        if message.sop_class != event.context.abstract_syntax:
            raise OtherInstanceError("a message names another SOP Class than its presentation context")
        message.check()
        if message.sop_class == KEY_OBJECT_SELECTION:
            self._sink.rejected(read_rejection(message.file()))
            return
        expectation = self._route.expectation
        if expectation is None:
            self._store(message.file())
            return
        series = message.series()
        if not expectation.wants(series):
            raise OtherInstanceError("an instance came that was not asked for")
        self._store(message.file())
        expectation.stored(series, message.sop_instance)

    def _store(self, data: bytes) -> None:
        with self._lock:
            if self._batch is None:
                self._batch = spool.begin(self._folder, self._route.source, self._route.collection)
                self._since = time.monotonic()
            self._batch.add(data)
            if self._ended or self._batch.files >= self._cut_at.instances:
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
