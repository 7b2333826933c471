"""A session with a DICOMweb server for as long as a retrieval needs it, and the series that come over it into the spool.

A series comes whole or not at all: what came of one before its answer proved wrong is taken back out of the spool.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from station.intake import spool
from station.intake.sources.dicomweb import DicomwebClient, WebSession
from station.intake.sources.journal import JobCard
from station.intake.sources.link import CUT, Came
from station.intake.sources.multipart import MultipartError, Part
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.intake.sources.queries import FoundSeries
from station.intake.sources.sop_classes import STORED_SYNTAXES
from station.intake.sources.surroundings import Surroundings
from station.intake.spool import SourceKind
from station.pseudonymisation.faults import PseudonymisationError
from station.pseudonymisation.parsing import OddFileError, parse_elements
from station.pseudonymisation.reading import FAULTS

MOST_INSTANCES = 20_000
"""Of a series whose server does not say how many there are."""

_SERIES = Tag(0x0020, 0x000E)
_TRANSFER_SYNTAX = 0x0002_0010
_NAMED: list[BaseTag | int] = [Tag(0x0008, 0x0016), Tag(0x0008, 0x0018), _SERIES]


class WebLink:
    """A session that is opened when it is needed, and what comes over it; as `Link` for a PACS."""

    def __init__(self, client: DicomwebClient, surroundings: Surroundings, card: JobCard) -> None:
        self._client = client
        self._around = surroundings
        self._card = card
        self._sop_classes = frozenset(client.sop_classes)
        self._stack = ExitStack()
        self._session: WebSession | None = None
        self._batch: spool.IncomingBatch | None = None
        self._since = 0.0

    def association(self) -> WebSession:
        """Return the session, opened where there is none."""
        if self._session is None or not self._session.alive:
            self.close()
            self._session = self._stack.enter_context(self._client.asking())
        return self._session

    def retrieve(self, study_uid: str, series: FoundSeries) -> Came:
        """Retrieve one series.

        Raises:
            PacsError: it refused, or its answer is not the series; nothing of it stays.
            StorageError: the disk is full; nothing of it stays.
        """
        batch = self._open_batch()
        before = batch.files
        try:
            came = self._receive(batch, study_uid, series)
        except BaseException:
            batch.take_back(before)
            raise
        if series.instances is None:
            return Came(came[0], None, came[1])
        return Came(came[0], max(series.instances - came[1], 0), came[1])

    def rest(self) -> None:
        """Between two items: pass on what has waited long enough."""
        if self._batch is not None and (
            self._batch.files >= CUT.instances or time.monotonic() - self._since >= CUT.seconds
        ):
            self._pass_on()

    def close(self) -> None:
        """End the session and pass on what came."""
        self._session = None
        self._stack.close()
        self._pass_on()

    def _receive(self, batch: spool.IncomingBatch, study_uid: str, series: FoundSeries) -> tuple[int, int]:
        """Return how many instances came that we take, and how many that we do not."""
        most = MOST_INSTANCES if series.instances is None else series.instances
        seen: set[str] = set()
        received = other_kinds = 0
        with self.association().series(study_uid, series.series_uid) as parts:
            for part in _bounded(parts, most):
                named = _named(part)
                if named is None:
                    other_kinds += 1
                    continue
                sop_class, instance, of_series = named
                if of_series != series.series_uid or instance in seen:
                    raise PacsError(PacsFault.ANSWER_UNUSABLE)
                seen.add(instance)
                if sop_class not in self._sop_classes:
                    other_kinds += 1
                    continue
                batch.add(part.body)
                received += 1
        return received, other_kinds

    def _open_batch(self) -> spool.IncomingBatch:
        if self._batch is None:
            self._batch = spool.begin(self._around.spool, SourceKind.DICOMWEB, self._card.collection)
            self._since = time.monotonic()
        return self._batch

    def _pass_on(self) -> None:
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if batch.files:
            self._around.sink.received(batch.finish())
        else:
            batch.abandon()


def _bounded(parts: Iterator[Part], most: int) -> Iterator[Part]:
    for number, part in enumerate(parts, start=1):
        if number > most:
            raise PacsError(PacsFault.TOO_MANY_ANSWERS)
        if part.content_type != "application/dicom":
            raise MultipartError("a part is no DICOM file")
        yield part


def _named(part: Part) -> tuple[str, str, str] | None:
    """Return SOP Class, SOP Instance and series UID of a file; None where it is stored in a way that we do not take.

    Raises:
        PacsError: it does not say what it is.
    """
    try:
        if part.body[128:132] != b"DICM":
            raise PacsError(PacsFault.ANSWER_UNUSABLE)
        meta, _ = parse_elements(part.body, 132, implicit=False, stop_group=2)
        syntax = meta.get(_TRANSFER_SYNTAX)
        # Before anything else is read: a deflated data set could grow without bound.
        if syntax is None or (syntax.value or b"").rstrip(b" \0").decode("ascii") not in STORED_SYNTAXES:
            return None
        dataset = read_partial(BytesIO(part.body), stop_when=_is_past, specific_tags=_NAMED)
        named = tuple(
            str(dataset.get(keyword) or "")
            for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
        )
    except (*FAULTS, OddFileError, PseudonymisationError):
        named = ()
    if len(named) != 3 or not all(named):
        raise PacsError(PacsFault.ANSWER_UNUSABLE)
    return named[0], named[1], named[2]


def _is_past(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001 - pydicom's callback
    return int(tag) > int(_SERIES)
