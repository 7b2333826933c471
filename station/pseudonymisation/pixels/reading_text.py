"""Reading text with tesseract: a program apart, fed through a pipe, under a time limit; nothing touches a disk."""

import os
import re
import resource
import subprocess
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.pixels.boxes import Box
from station.pseudonymisation.pixels.picture import Picture

_SPARSE, _ONE_LINE = "11", "7"
_COLUMNS = 12
_MAX_ANSWER_BYTES = 4 << 20
_MEMORY_BYTES = 2 << 30
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
    """Tesseract.

    Args:
        program: its path.
        timeout_s: for one picture.
    """

    def __init__(self, program: str, timeout_s: float) -> None:
        self._program = program
        self._timeout_s = timeout_s

    @property
    def is_there(self) -> bool:
        """Whether the program can be started."""
        return os.access(self._program, os.X_OK)

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

    def _read(self, light: NDArray[np.float32], mode: str, place: Box, enlarge: int) -> list[Word]:
        rows, columns = light.shape
        image = b"P5 %d %d 255\n" % (columns, rows) + (np.clip(light, 0, 1) * 255).astype(np.uint8).tobytes()
        try:
            answer = self._ask(image, mode)
        except (OSError, subprocess.SubprocessError):
            raise PseudonymisationError(PseudonymisationFault.TEXT_DETECTOR_MISSING) from None
        return _words(answer[:_MAX_ANSWER_BYTES], place, enlarge)

    def _ask(self, image: bytes, mode: str) -> bytes:
        with subprocess.Popen(
            [self._program, "stdin", "stdout", "--psm", mode, "-l", "eng", "tsv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/bin"},
        ) as program:
            try:
                # It waits for its picture, so the limit stands before it meets one.
                _, ours = resource.getrlimit(resource.RLIMIT_AS)
                limit = _MEMORY_BYTES if ours == resource.RLIM_INFINITY else min(ours, _MEMORY_BYTES)
                resource.prlimit(program.pid, resource.RLIMIT_AS, (limit, limit))
                answer, _ = program.communicate(image, timeout=self._timeout_s)
            except (OSError, subprocess.SubprocessError):
                program.kill()
                raise
        if program.returncode != 0:
            raise subprocess.SubprocessError
        return answer


def _words(answer: bytes, place: Box, enlarge: int) -> list[Word]:
    found: list[Word] = []
    for line in answer.decode("utf-8", "replace").splitlines()[1:]:
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
