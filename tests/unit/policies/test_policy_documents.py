"""Reading and writing documents: strict, with the line of what is wrong, one form for equal contents."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.documents import (
    MAX_DOCUMENT_BYTES,
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    canonical_json,
    digest_of,
    digest_of_file,
    format_moment,
    load_json,
    load_yaml,
    load_yaml_file,
    parse_json,
)
from policies.errors import DocumentError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


class Part(StrictModel):
    count: int


class Sample(StrictModel):
    name: Name
    parts: Sequence[Part] = ()
    digest: Digest | None = None
    when: Moment | None = None
    share: float = 0.0


def read(text: str) -> Sample:
    return load_yaml(Sample, text.encode(), what="sample.yaml")


def test_a_document_is_read() -> None:
    found = read("name: abc\nparts:\n  - {count: 3}\nwhen: 2026-01-31T12:00:00Z\n")
    assert found.parts == (Part(count=3),)
    assert found.when == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: abc\nnmae: x\n", "line 2: nmae is not a known key"),
        ("name: abc\nparts:\n  - {count: 3}\n  - {count: no}\n", "line 4: parts.1.count"),
        ("parts: []\n", "name is missing"),
        ("name: abc\nname: def\n", "line 2: the key 'name' stands twice"),
        ("name: abc\nparts:\n - count: 1\n   count: 2\n", "line 4: the key 'count' stands twice"),
        ("name: ABC\n", "line 1: name"),
        ("name: abc\nshare: .nan\n", "holds a value that JSON has no form for"),
        ("name: abc\nshare: .inf\n", "holds a value that JSON has no form for"),
        ("name: &a abc\ndigest: *a\n", "line 2: aliases are not allowed"),
        ("name: !!python/object:os.system x\n", "line 1:"),
        ("1: abc\n", "line 1: a key must be text"),
        ("- abc\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("name: [", "line 1"),
        ("name: abc\n---\nname: def\n", "line 2"),
        ("name: abc\nwhen: 2026-01-31\n", "line 2: when is not a moment"),
        ("name: abc\nwhen: 2026-01-31T12:00:00\n", "line 2: when is not a moment"),
        ("name: abc\nwhen: 2026-01-31T12:00:00+01:00\n", "line 2: when is not a moment"),
        ("name: abc\ndigest: sha256:ABC\n", "line 2: digest is not a digest"),
        ("name: abc\nparts: [{count: 1.5}]\n", "parts.0.count"),
        ('name: abc\nparts: [{count: "1"}]\n', "parts.0.count"),
        ("name: abc\nparts: [{count: true}]\n", "parts.0.count"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(DocumentError) as error:
        read(text)
    assert complaint in error.value.message
    assert error.value.message.startswith("sample.yaml")


def test_hostile_text_is_refused() -> None:
    for data in (b"\xff\xfe", b"name: " + b"[" * 5000, b"name: x" * MAX_DOCUMENT_BYTES):
        with pytest.raises(DocumentError):
            load_yaml(Sample, data, what="sample.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_document_error(data: bytes) -> None:
    for load in (load_yaml, load_json):
        try:
            load(Sample, data, what="bytes")
        except DocumentError:
            continue


@pytest.mark.parametrize(
    "data",
    [b'{"a":1,"a":1}', b'{"a":NaN}', b'{"a":Infinity}', b"[" * 40 + b"]" * 40, b"{", b"", b'{"a":1}x'],
)
def test_json_of_more_than_one_meaning_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_json(data, what="json")


def test_json_has_a_size() -> None:
    with pytest.raises(DocumentError, match="at most 10"):
        parse_json(b'"' + b"x" * 20 + b'"', what="json", max_bytes=10)


@given(JSON)
def test_canonical_json_is_one_form(value: object) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    assert b"\n" not in data


def test_canonical_json_sorts_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'.encode()
    with pytest.raises(ValueError, match=r"[Nn]a[Nn]|Out of range"):
        canonical_json(float("nan"))


def test_digests_and_moments(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert digest_of(b"abc") == digest_of_file(tmp_path / "x")
    assert digest_of(b"abc").startswith("sha256:ba7816bf")
    moment = datetime(2026, 1, 31, 12, 0, 59, 999, tzinfo=UTC)
    assert format_moment(moment) == "2026-01-31T12:00:59Z"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"absent\.yaml: cannot be read"):
        load_yaml_file(Sample, tmp_path / "absent.yaml")
