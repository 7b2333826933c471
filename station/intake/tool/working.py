"""One file in a worker process: read, judged, pseudonymised, written beside where it will stand.

A worker holds the key and meets hostile files; it has a ceiling on its memory, says nothing, and answers in codes,
pseudonyms and names of its own making.
"""

import multiprocessing
import os
import resource
import signal
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from station.intake.tool.request import Reason, ToolFault, ToolRequest
from station.intake.tool.source_files import SourceFile
from station.pseudonymisation.engine import Pseudonymiser
from station.pseudonymisation.faults import PseudonymisationError
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.reading import contain, quiet_pydicom, read_dicom
from station.pseudonymisation.values import ascii_text, element_at

if TYPE_CHECKING:
    from station.pseudonymisation.pixels import PixelInspector

MEMORY_BYTES = 8 << 30
_SOP_CLASS, _PIXEL_DATA = 0x00080016, 0x7FE00010
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Images whose pixels carry text as a rule: taken up where pixels are inspected, and not otherwise.
_TEXT_IN_PIXELS = tuple(f"{_STORAGE}{arc}." for arc in ("7", "6.1", "6.2", "3.1", "77.1"))


@dataclass(frozen=True, slots=True)
class Made:
    """An output that stands in the folder of unfinished outputs.

    Attributes:
        unfinished: its file's name there.
        study: the names of the folders it will stand in, and its own.
    """

    file: str
    unfinished: str
    patient: str
    study: str
    series: str
    instance: str


@dataclass(frozen=True, slots=True)
class NotMade:
    """A file without an output, and why."""

    file: str
    reason: Reason


class Worker:
    """What a worker process keeps between files."""

    def __init__(self, request: ToolRequest, key: PseudonymKey, unfinished: Path) -> None:
        self._pseudonymiser = Pseudonymiser(key, request.project, request.default_issuer, request.options)
        self._max_file_bytes = request.max_file_bytes
        self._unfinished = unfinished
        self._inspector = _inspector(request)
        self._keep_faces = request.keep_faces

    def make(self, source: SourceFile) -> Made | NotMade:
        """Deal with one file."""
        try:
            data = source.data or _read(source.path, self._max_file_bytes)
            dataset = read_dicom(data)
            refused = self._refused(dataset)
            if refused is not None:
                return NotMade(source.file, refused)
            finding = self._inspector.inspect(dataset) if self._inspector is not None else None
            if finding is not None and finding.recognizable_face and not self._keep_faces:
                return NotMade(source.file, ToolFault.RECOGNIZABLE_FACE)
            instance = self._pseudonymiser.pseudonymise(dataset, finding)
            encoded = instance.encode()
        except PseudonymisationError as error:
            return NotMade(source.file, error.fault)
        except _TooLargeError:
            return NotMade(source.file, ToolFault.TOO_LARGE)
        except _UnreadableError:
            return NotMade(source.file, ToolFault.UNREADABLE_SOURCE)
        name = f"{source.file}.{os.getpid()}"
        (self._unfinished / name).write_bytes(encoded)
        return Made(
            file=source.file,
            unfinished=name,
            patient=instance.patient,
            study=instance.study_uid,
            series=instance.series_uid,
            instance=instance.sop_instance_uid,
        )

    def mapping(self, source: SourceFile) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return (patient id old, new) and (UID old, new) of one file; nothing of one that cannot be read."""
        try:
            dataset = read_dicom(source.data or _read(source.path, self._max_file_bytes))
            return contain(lambda: self._mapping(dataset))
        except (PseudonymisationError, _TooLargeError, _UnreadableError):
            return [], []

    def _mapping(self, dataset: Dataset) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        pseudonymiser = self._pseudonymiser
        patient = pseudonymiser.patient_identity(dataset)
        uids: dict[str, str] = {}
        for element in dataset.iterall():
            if element.VR != "UI" or not element.value or element.tag.is_private:
                continue
            for uid in element.value if element.VM > 1 else [element.value]:
                new = pseudonymiser.remap_uid(str(uid))
                if new != str(uid):
                    uids[str(uid)] = new
        return [(patient[1], pseudonymiser.pseudonym(*patient))], list(uids.items())

    def _refused(self, dataset: Dataset) -> ToolFault | None:
        sop_class = contain(lambda: ascii_text(element_at(dataset, _SOP_CLASS))) or ""
        if self._inspector is None and f"{sop_class}.".startswith(_TEXT_IN_PIXELS):
            return ToolFault.SOP_CLASS_NOT_ACCEPTED
        return None if _PIXEL_DATA in dataset else ToolFault.PIXELS_MISSING


class _TooLargeError(Exception):
    """The file is larger than the request allows to read."""


class _UnreadableError(Exception):
    """The file is gone, or may not be read."""


def _read(path: str, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _UnreadableError
            if status.st_size > limit:
                raise _TooLargeError
            return file.read()
    except OSError:
        raise _UnreadableError from None


def _inspector(request: ToolRequest) -> "PixelInspector | None":
    if request.pixels == "off":
        return None
    # Loads its image libraries, which a run without inspection does not need.
    from station.pseudonymisation.pixels import PixelInspector, PixelSettings  # noqa: PLC0415

    return PixelInspector(PixelSettings(inspect=request.pixels))


_worker: Worker | None = None


def begin(request: ToolRequest, key: PseudonymKey, unfinished: Path) -> None:
    """Make this process a worker."""
    global _worker  # noqa: PLW0603 - one worker per process, made when it starts
    # Ctrl-C is the parent's to answer; a worker that met it would die in the middle of a file.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    quiet_pydicom()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(request, key, unfinished)


def _end_with_parent() -> None:
    # A parent that was killed says nothing to its workers, and they would wait for it for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def make_all(sources: Sequence[SourceFile]) -> list[Made | NotMade]:
    """Deal with some files in a worker process."""
    return [_this_worker().make(source) for source in sources]


def map_all(sources: Sequence[SourceFile]) -> list[tuple[list[tuple[str, str]], list[tuple[str, str]]]]:
    """Return the mappings of some files."""
    return [_this_worker().mapping(source) for source in sources]


def _this_worker() -> Worker:
    if _worker is None:
        raise RuntimeError("not a worker process")
    return _worker
