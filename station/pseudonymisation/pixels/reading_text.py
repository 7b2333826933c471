"""Reading text with tesseract: a process apart, fed through a pipe, under a time limit; nothing touches a disk."""

import os
import re
import selectors
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.pixels import tesseract_process
from station.pseudonymisation.pixels.boxes import Box
from station.pseudonymisation.pixels.picture import Picture
from station.pseudonymisation.pixels.tesseract_process import ANSWER, FAILED, READY, REQUEST

_SPARSE, _ONE_LINE = 11, 7
_COLUMNS = 12
_MAX_ANSWER_BYTES = 4 << 20
_PICTURES_PER_PROCESS = 2000
_CHUNK = 1 << 16
_START_S = 60.0
_WORD = re.compile(r"[0-9A-Za-z]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was read.

    Attributes:
        text: upper case letters and digits only.
        confidence: 0 to 100.
        box: in working pixels.
    """

    text: str
    confidence: float
    box: Box


class Reader:
    """Tesseract, in a process that is started when it is first asked.

    Args:
        library: libtesseract's name or path.
        timeout_s: for one picture.
    """

    def __init__(self, library: str, timeout_s: float) -> None:
        self._library = library
        self._timeout_s = timeout_s
        self._process: _Process | None = None
        self._turn = threading.Lock()

    @property
    def process_id(self) -> int | None:
        """The process that reads; None before it is first asked, and after it failed."""
        return None if self._process is None else self._process.id

    @property
    def is_there(self) -> bool:
        """Whether the library can be loaded and knows its language."""
        try:
            with self._turn:
                self._started()
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def words_in(self, picture: Picture) -> list[Word]:
        """Read the whole picture; tesseract looks for bright and for dark text by itself.

        Raises:
            PseudonymisationError: tesseract is missing, fails, or takes too long: nobody knows then what is written.
        """
        return self._read(1.0 - picture.grey, _SPARSE, Box(0, 0, 0, 0), 1)

    def words_of(self, picture: Picture, box: Box, *, turned: bool) -> list[Word]:
        """Read one box as one line, the better of bright and dark.

        Args:
            picture: the whole picture.
            box: in working pixels.
            turned: read along columns, from below to above.
        """
        rows, columns = picture.grey.shape
        margin = max(6, min(box.height, box.width) // 2)
        place = box.grown(margin, rows, columns)
        part = picture.grey[place.top : place.bottom, place.left : place.right]
        low, high = float(part.min()), float(part.max())
        part = (part - low) / max(high - low, 1e-6)
        if turned:
            part = np.rot90(part, -1)
        enlarge = max(1, round(48 / max(8, min(part.shape))))
        part = np.kron(part, np.ones((enlarge, enlarge), dtype=np.float32))
        both = [self._read(light, _ONE_LINE, place, enlarge) for light in (1.0 - part, part)]
        return max(both, key=lambda words: sum(word.confidence * len(word.text) for word in words))

    def _read(self, light: NDArray[np.float32], mode: int, place: Box, enlarge: int) -> list[Word]:
        picture = (np.clip(light, 0, 1) * 255).astype(np.uint8)
        try:
            with self._turn:
                answer = self._ask(mode, picture)
        except (OSError, subprocess.SubprocessError):
            raise PseudonymisationError(PseudonymisationFault.TEXT_DETECTOR_MISSING) from None
        return _words(answer, place, enlarge)

    def _ask(self, mode: int, picture: NDArray[np.uint8]) -> bytes:
        process = self._started()
        rows, columns = picture.shape
        try:
            return process.ask(REQUEST.pack(mode, rows, columns) + picture.tobytes(), self._timeout_s)
        except (OSError, subprocess.SubprocessError):
            # It may be in the middle of anything: the next picture gets another.
            self._end()
            raise

    def _started(self) -> "_Process":
        process = self._process
        # A process that was made before a fork is the parent's: two must not talk into one pipe.
        if process is not None and (process.owner != os.getpid() or process.asked >= _PICTURES_PER_PROCESS):
            self._end()
            process = None
        if process is None:
            process = self._process = _Process(self._library)
            try:
                process.await_ready(_START_S)
            except (OSError, subprocess.SubprocessError):
                self._end()
                raise
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _Process:
    """One reading process and its two pipes; knows the protocol of `tesseract_process`.

    Attributes:
        owner: the process that started it.
        asked: how many pictures it was given.
        end: kills it; called as well when nobody holds it any more.
    """

    def __init__(self, library: str) -> None:
        self.owner = os.getpid()
        self.asked = 0
        self._program = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(tesseract_process.__file__)), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/bin"},
        )
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe.fileno(), False)
        self.end = weakref.finalize(self, _end, self._program, self.owner)

    @property
    def id(self) -> int:
        return self._program.pid

    @property
    def _requests(self) -> IO[bytes]:
        return _pipe(self._program.stdin)

    @property
    def _answers(self) -> IO[bytes]:
        return _pipe(self._program.stdout)

    def await_ready(self, timeout_s: float) -> None:
        """Wait until it has loaded its language.

        Raises:
            SubprocessError: it ended, or took too long.
        """
        (said,) = ANSWER.unpack(self._receive(ANSWER.size, time.monotonic() + timeout_s))
        if said != READY:
            raise subprocess.SubprocessError

    def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Send one picture and return what was read, as TSV.

        Raises:
            SubprocessError: it ended, could not read, said too much, or took too long.
        """
        self.asked += 1
        deadline = time.monotonic() + timeout_s
        self._send(request, deadline)
        (length,) = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        if length == FAILED or length > _MAX_ANSWER_BYTES:
            raise subprocess.SubprocessError
        return self._receive(length, deadline)

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._requests, selectors.EVENT_WRITE, deadline)
            rest = rest[self._requests.write(rest[:_CHUNK]) or 0 :]

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._answers, selectors.EVENT_READ, deadline)
            part = self._answers.read(size - len(data))
            if part == b"":
                raise subprocess.SubprocessError
            data += part or b""
        return bytes(data)

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise subprocess.TimeoutExpired("tesseract", 0)


def _end(program: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a reading process; one of another owner is only let go of."""
    for pipe in (program.stdin, program.stdout):
        _pipe(pipe).close()
    if owner == os.getpid():
        program.kill()
        program.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise subprocess.SubprocessError
    return pipe


def _words(answer: bytes, place: Box, enlarge: int) -> list[Word]:
    found: list[Word] = []
    for line in answer.decode("utf-8", "replace").splitlines():
        cells = line.split("\t")
        if len(cells) != _COLUMNS or not _WORD.search(cells[11]):
            continue
        try:
            left, top, width, height = (int(cell) for cell in cells[6:10])
            confidence = float(cells[10])
        except ValueError:
            continue
        box = Box(
            place.top + top // enlarge,
            place.left + left // enlarge,
            place.top + -(-(top + height) // enlarge),
            place.left + -(-(left + width) // enlarge),
        )
        found.append(Word(re.sub(r"[^0-9A-Z]", "", cells[11].upper()), confidence, box))
    return found
