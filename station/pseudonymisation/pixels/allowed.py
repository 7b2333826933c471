"""Which words may stay in a picture: an allow-list, and how near a reading must come to it. Pure."""

from functools import cache
from importlib.resources import files

from policies.documents import Sequence, StrictModel, Text, load_json

_LONG = 6


class AllowedWords(StrictModel):
    """The shipped words."""

    note: Text
    words: Sequence[str]


@cache
def shipped_words() -> frozenset[str]:
    """Return the words that ship with this version, in capitals."""
    data = files("station.pseudonymisation.pixels").joinpath("allowed_words.json").read_bytes()
    return frozenset(load_json(AllowedWords, data, what="allowed words").words)


def is_allowed(word: str, allowed: frozenset[str]) -> bool:
    """Tell whether a word that was read is an allowed one.

    A reader mistakes a letter of a long word now and then (PORTARLE for PORTABLE): two edits are forgiven in words of six letters
    or more that begin alike, none in shorter ones. Digits are never forgiven: a number is not a marker.
    """
    if not word or word in allowed:
        return True
    if len(word) < _LONG or any(letter.isdigit() for letter in word):
        return False
    return any(
        len(known) >= _LONG and known[:2] == word[:2] and _edits(word, known) <= 2 for known in allowed
    )


def _edits(first: str, second: str) -> int:
    """Return the Levenshtein distance, of words."""
    before = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return before[-1]
