"""Clean Descriptors (PS3.15 E.3.5): of a descriptor stay the words that are known to be of the trade, and no others.

Pure. A word is a run of letters and digits, and of characters outside ASCII, so that no half of a foreign word passes for
one of ours. What comes out is made of the words of `descriptor_words.json` alone: whatever character set a value is in,
and whatever it was cut or escaped into, nothing else can come through.
"""

import re
from dataclasses import dataclass
from functools import cache

from policies.documents import Sequence, StrictModel, load_json
from station.pseudonymisation.resources import MAX_BYTES, resource

_TOKEN = re.compile(r"[0-9A-Za-z\x80-\xff]+(?:[.,][0-9]+[A-Za-z]*)?")
_ESCAPE = "\x1b"
_AFTER_TITLE = 2
_MAX_CHARACTERS = 1024
_MAX_VALUE = {"SH": 16, "LO": 64, "AE": 16}


class DescriptorWords(StrictModel):
    """The word list.

    Attributes:
        words: lower-case words by what they are about.
        patterns: regular expressions of lower-case tokens, each with what it stands for.
        titles: words that a name follows.
    """

    why: str
    version: int
    words: dict[str, Sequence[str]]
    patterns: dict[str, str]
    titles: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Allowed:
    words: frozenset[str]
    pattern: re.Pattern[str]
    titles: frozenset[str]


@cache
def load_words() -> DescriptorWords:
    """Return the word list."""
    return load_json(
        DescriptorWords, resource("descriptor_words.json"), what="descriptor words", max_bytes=MAX_BYTES
    )


@cache
def _allowed() -> _Allowed:
    listed = load_words()
    return _Allowed(
        frozenset(word for words in listed.words.values() for word in words),
        re.compile("|".join(f"(?:{pattern})" for pattern in listed.patterns)),
        frozenset(listed.titles),
    )


def cleaned(vr: str, value: bytes, identity: frozenset[str]) -> str | None:
    """Return what may stay of a descriptor; None where nothing does.

    Args:
        vr: the attribute's VR; text of one value has no backslashes.
        value: the descriptor as it stands in the file, in any character set.
        identity: the words of the instance's own identity, lower case: they go whatever the list says.

    >>> cleaned("LO", b"CT chest abdomen pelvis - 55F Dr. Smith", frozenset({"smith"}))
    'CT chest abdomen pelvis'
    """
    text = value[:_MAX_CHARACTERS].decode("latin-1")
    if _ESCAPE in text:
        # ISO 2022: what follows an escape looks like ASCII and is not.
        return None
    several = vr in _MAX_VALUE
    values = [
        _cut(_cleaned(part, identity), _MAX_VALUE.get(vr, _MAX_CHARACTERS))
        for part in (text.split("\\") if several else [text])
    ]
    return "\\".join(values) if any(values) else None


def _cleaned(text: str, identity: frozenset[str]) -> list[str]:
    allowed = _allowed()
    kept: list[str] = []
    skipped = 0
    for token in _TOKEN.findall(text):
        word = token.casefold()
        if word in allowed.titles:
            skipped = _AFTER_TITLE
        elif skipped:
            skipped -= 1
        elif token.isascii() and word not in identity:
            measure = allowed.pattern.fullmatch(word) and not any(known in word for known in identity)
            if measure or word in allowed.words:
                kept.append(token)
    return kept


def _cut(words: list[str], limit: int) -> str:
    text = ""
    for word in words:
        longer = f"{text} {word}" if text else word
        if len(longer) > limit:
            break
        text = longer
    return text
