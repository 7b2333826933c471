"""Clean Descriptors: no word of anybody's identity comes through, whatever stands around it, in any character set."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from station.pseudonymisation.descriptors import cleaned, load_words

WORDS = sorted(word for words in load_words().words.values() for word in words)
ALLOWED = frozenset(WORDS)
PATTERNS = re.compile("|".join(f"(?:{pattern})" for pattern in load_words().patterns))
_TOKEN = re.compile(r"[^ \\]+")

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs")), min_size=1, max_size=12)
trade = st.sampled_from(WORDS)
separators = st.sampled_from([" ", ", ", "-", "/", "^", "_", ".", " - ", "\\", "(", ")", ":", ""])
charsets = st.sampled_from(["utf-8", "latin-1", "gb18030", "iso2022_jp", "shift_jis", "euc_kr", "cp1252"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"CT chest abdomen pelvis - 55F Dr. Smith", "CT chest abdomen pelvis"),
        (b"X-thorax staand mw. Jansen", "thorax staand"),
        (b"Thorax 1.5mm Lung", "Thorax 1.5mm Lung"),
        (b"patient 3748755 Thorax AP", "AP"),
        (b"LongWindow_THORAX", "THORAX"),
        (b"Jansen", None),
        (b"", None),
        (b"Hand Dr Hand Hand Hand", "Hand Hand"),
        ("Röntgen thorax".encode("latin-1"), "thorax"),
        ("Röntgen thorax".encode(), "thorax"),
        ("ti\xdfue".encode("latin-1"), None),
        (b"\x1b$B;3ED\x1b(B thorax", None),
    ],
)
def test_what_stays(text: bytes, left: str | None) -> None:
    assert cleaned("LO", text, frozenset()) == left


@given(
    st.lists(st.tuples(st.one_of(names, trade), separators), max_size=8), charsets, st.sets(names, max_size=3)
)
@settings(max_examples=400, deadline=None)
@example([("Lung", " "), ("Hand", "")], "utf-8", {"hand"})
def test_no_word_comes_through_but_those_of_the_list(
    parts: list[tuple[str, str]], charset: str, identity: set[str]
) -> None:
    text = "".join(word + separator for word, separator in parts).encode(charset, "replace")
    known = frozenset(word.casefold() for word in identity)
    left = cleaned("LO", text, known)
    if left is None:
        return
    assert left.isascii()
    assert len(left) <= 64 * (1 + left.count("\\"))
    for token in _TOKEN.findall(left):
        word = token.casefold()
        assert word in ALLOWED or PATTERNS.fullmatch(word)
        assert word not in known


@given(st.sampled_from(WORDS), st.sampled_from(["Thorax {}", "{} longen", "CT {} 3mm"]))
@settings(max_examples=200, deadline=None)
def test_a_patient_who_is_called_as_a_word_of_the_list(name: str, text: str) -> None:
    left = cleaned("LO", text.format(name.upper()).encode(), frozenset({name})) or ""
    assert name not in left.casefold().split()


@given(st.from_regex(r"[0-9]{1,2}", fullmatch=True))
@settings(deadline=None)
def test_a_measure_that_holds_a_number_of_the_patient_goes(number: str) -> None:
    assert cleaned("LO", f"Lung {number}mm".encode(), frozenset({number})) == "Lung"


@given(st.binary(max_size=80))
@settings(max_examples=500, deadline=None)
def test_any_bytes(data: bytes) -> None:
    left = cleaned("ST", data, frozenset())
    for token in _TOKEN.findall(left or ""):
        assert token.casefold() in ALLOWED or PATTERNS.fullmatch(token.casefold())


def test_the_list_is_of_words_and_none_is_a_title() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9]*", word) for word in WORDS)
    assert len(WORDS) == len(ALLOWED)
    assert not ALLOWED & set(load_words().titles)
