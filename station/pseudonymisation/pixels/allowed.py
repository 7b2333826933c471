"""Which words may stay in a picture: an allow-list, and how near a reading must come to it. Pure."""

from functools import cache
from importlib.resources import files

from policies.documents import Sequence, StrictModel, Text, load_json

_LONG, _VERY_LONG = 6, 8
_SHORTEST_OWN = 2
_FAR = 99


class AllowedWords(StrictModel):
    """The shipped words."""

    note: Text
    words: Sequence[str]


@cache
def shipped_words() -> frozenset[str]:
    """Return the words that ship with this version, in capitals."""
    data = files("station.pseudonymisation.pixels").joinpath("allowed_words.json").read_bytes()
    return frozenset(load_json(AllowedWords, data, what="allowed words").words)


def is_allowed(word: str, allowed: frozenset[str], own: frozenset[str] = frozenset()) -> bool:
    """Tell whether a word that was read is an allowed one.

    A reader mistakes a letter of a long word now and then (PORTARLE for PORTABLE): one edit is forgiven in words of six letters,
    two in words of eight, none in shorter ones, and never in the first two letters. Digits are never forgiven: a number is not a
    marker. Nor is a word of the patient's own (Mr. Mas, Mrs. Links), or one that is as near to it as to a marker.

    Args:
        word: capitals and digits.
        allowed: the words that may stay.
        own: words of the instance's identifying attributes, in capitals.
    """
    if not word:
        return True
    if len(word) >= _SHORTEST_OWN and word in own:
        return False
    if word in allowed:
        return True
    if len(word) < _LONG or any(letter.isdigit() for letter in word):
        return False
    nearest = min((_edits(word, known) for known in allowed if _comparable(word, known)), default=_FAR)
    if nearest > (2 if len(word) >= _VERY_LONG else 1):
        return False
    return all(_edits(word, name) > nearest for name in own if len(name) >= _SHORTEST_OWN)


def _comparable(word: str, known: str) -> bool:
    return len(known) >= _LONG and known[:2] == word[:2]


def _edits(first: str, second: str) -> int:
    """Return the Levenshtein distance, of words."""
    before = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return before[-1]
