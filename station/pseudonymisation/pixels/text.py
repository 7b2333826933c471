"""Where text stands in a frame that may not stay: two detectors together, less what the allow-list knows."""

from dataclasses import dataclass

from station.pseudonymisation.pixels.allowed import is_allowed
from station.pseudonymisation.pixels.boxes import Box, joined
from station.pseudonymisation.pixels.decoding import Frame
from station.pseudonymisation.pixels.glyphs import text_boxes
from station.pseudonymisation.pixels.picture import Picture, picture_of
from station.pseudonymisation.pixels.reading_text import Reader, Word

_SURE = 30.0
_SURE_OF_ALLOWED = 40.0
_SHORTEST = 3
_TALLEST = 0.15
_MARGIN = 6
_MOST_READ = 24


@dataclass(frozen=True, slots=True)
class TextSearch:
    """How text is searched.

    Attributes:
        reader: tesseract, or None where only the station's own detector looks.
        allowed: the words that may stay.
        own: the patient's own words, which may not, whatever is allowed.
    """

    reader: Reader | None
    allowed: frozenset[str]
    own: frozenset[str] = frozenset()

    def forbidden(self, frame: Frame, *, inverted: bool) -> list[Box]:
        """Return what must be masked, in pixels of the frame, margins included.

        1. Boxes of the station's detector, and words that tesseract is sure enough of, with the words in them.
        2. A box in which everything read is allowed may stay. What cannot be read may not.

        Raises:
            PseudonymisationError: tesseract fails.
        """
        picture = picture_of(frame, inverted=inverted)
        words = self._words(picture)
        lines = text_boxes(picture)
        # A page of text needs no reading: each reading costs two starts of a program.
        boxes = [
            box
            for number, box in enumerate(lines)
            if number >= _MOST_READ or not self._may_stay(picture, box, words)
        ]
        boxes += [word.box for word in words if not self._is_allowed(word)]
        rows, columns = frame.shape
        found = [box.grown(_MARGIN, *picture.grey.shape).scaled(1 / picture.scale) for box in joined(boxes)]
        return joined(box.grown(1, rows, columns) for box in found)

    def _words(self, picture: Picture) -> list[Word]:
        if self.reader is None:
            return []
        tallest = _TALLEST * picture.grey.shape[0]
        return [
            word
            for word in self.reader.words_in(picture)
            if word.confidence >= _SURE and len(word.text) >= _SHORTEST and word.box.height <= tallest
        ]

    def _may_stay(self, picture: Picture, box: Box, words: list[Word]) -> bool:
        if self.reader is None:
            return False
        if self._covered_by_allowed(box, words):
            return True
        upright = box.height > box.width
        readings = [self.reader.words_of(picture, box, turned=upright)]
        if upright:
            # Rotated text is met along rows as well, where letters are stacked.
            readings.append(self.reader.words_of(picture, box, turned=False))
        return any(
            reading
            and all(self._is_allowed(word) for word in reading)
            and max(word.confidence for word in reading) >= _SURE_OF_ALLOWED
            and sum(len(word.text) for word in reading) >= _letters(box, turned=turned)
            for reading, turned in zip(readings, (upright, False), strict=False)
        )

    def _covered_by_allowed(self, box: Box, words: list[Word]) -> bool:
        """Tell whether allowed words that were read with certainty fill a box."""
        inside = [word for word in words if word.box.meets(box)]
        if not inside or any(
            not self._is_allowed(word) or word.confidence < _SURE_OF_ALLOWED for word in inside
        ):
            return False
        filled = sum(max(0, min(box.right, word.box.right) - max(box.left, word.box.left)) for word in inside)
        return filled >= 0.8 * box.width

    def _is_allowed(self, word: Word) -> bool:
        return is_allowed(word.text, self.allowed, self.own)


def _letters(box: Box, *, turned: bool) -> int:
    """Return how many letters a line of this shape has at least: a reading of fewer has not read it all."""
    length, height = (box.height, box.width) if turned else (box.width, box.height)
    return max(1, int(0.6 * length / max(1, height)))
