"""Layers of an image as streams: against Python's own tar reader, against folders on a disk, and against hostile bytes."""

import hashlib
import io
import shutil
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_kit import Entry, tar

from policies.board.contents import layers as layers_module
from policies.board.contents import tree as tree_module
from policies.board.contents.layers import Ceilings, Layer, read_layer
from policies.board.contents.tar_stream import MAX_PAX_BYTES, Kind, TarEntry, TarStream
from policies.board.contents.tree import Tree
from policies.documents import digest_of
from policies.errors import DocumentError, TrustError

NAMES = st.sampled_from(["a", "b", "c", "d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def entries(data: bytes) -> list[TarEntry]:
    return list(TarStream(io.BytesIO(data)).entries())


def layer(data: bytes, ceilings: Ceilings | None = None) -> Layer:
    return read_layer(io.BytesIO(data), digest_of(data), len(data), lambda *_: True, ceilings or Ceilings())


def tree(*layers: bytes) -> Tree:
    found = Tree()
    for each in layers:
        found.add(layer(each))
    return found


def paths(found: Tree) -> list[str]:
    return [path for path, placed in found if placed.file.kind is not Kind.FOLDER]


def header(name: bytes, *, size: bytes = b"00000000000", kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A ustar header by hand, with its right checksum."""
    block = struct.pack(
        "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x",
        name, b"0000644", b"0000000", b"0000000", size, b"00000000000", b" " * 8, kind, link, b"ustar\x0000",
        b"", b"", b"", b"", b"",
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def resealed(block: bytes, place: int, data: bytes) -> bytes:
    """A header with other bytes at a place, and the checksum that goes with them."""
    block = block[:place] + data + block[place + len(data) :]
    return block[:148] + b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:]) + block[156:]


def long_name(name: bytes) -> bytes:
    """A GNU header for a long name."""
    return header(b"././@LongLink", kind=b"L", size=b"%011o" % len(name)) + name.ljust(512, b"\0")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=150).filter(
                lambda name: name not in {".", ".."}
            ),
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_reads_what_python_writes(written: list[tuple[str, bytes, int]], form: int) -> None:
    data = tar(*(Entry(f"folder/{name}", content, mode) for name, content, mode in written), form=form)
    found = [(each.name, each.size, each.mode) for each in entries(data)]
    assert found == [(f"folder/{name}", len(content), mode) for name, content, mode in written]


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


def laid(root: Path, applied: list[list[tuple[str, str]]]) -> list[str]:
    """Lay layers on a real folder, as an engine does: the oracle. Each is (what to do, path)."""
    for changes in applied:
        for what, path in changes:
            if what == "hide":
                target = root / path
                if target.is_dir():
                    shutil.rmtree(target)
                elif target.is_file():
                    target.unlink()
            elif what == "opaque" and (root / path).is_dir():
                shutil.rmtree(root / path)
                (root / path).mkdir()
        for what, path in changes:
            if what != "add":
                continue
            target = root / path
            for parent in reversed(target.relative_to(root).parents[:-1]):
                if (root / parent).is_file():
                    (root / parent).unlink()
                (root / parent).mkdir(exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            target.write_bytes(b"x")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["add", "hide", "opaque"]), PATHS), max_size=5), max_size=4)
)
@settings(max_examples=150)
def test_layers_over_each_other_are_what_a_folder_would_hold(applied: list[list[tuple[str, str]]]) -> None:
    names = {"add": "{0}/{1}", "hide": "{0}/.wh.{1}", "opaque": "{0}/{1}/.wh..wh..opq"}
    written = [
        tar(
            *(
                Entry(names[what].format(*("/" + path).rsplit("/", 1)), b"x" if what == "add" else b"")
                for what, path in changes
            )
        )
        for changes in applied
    ]
    with folder() as root:
        assert sorted(paths(tree(*written))) == laid(root, applied)


@given(st.binary(max_size=4096))
def test_bytes_that_are_no_archive_are_refused_by_name(data: bytes) -> None:
    if data.strip(b"\0"):
        with pytest.raises(DocumentError, match="not a tar archive as image builders write it"):
            entries(data)


@given(st.data())
def test_a_damaged_archive_never_ends_in_anything_but_our_error(data: st.DataObject) -> None:
    whole = bytearray(
        tar(Entry("a" * 120, b"content" * 100, pax={"comment": "x"}), Entry("b", kind=b"2", link="a"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        entries(cut)
    except DocumentError:
        return


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tar(Entry("../outside", b"x")), "leaves the archive"),
        (tar(Entry("a/../../b", b"x")), "leaves the archive"),
        (tar(Entry("x", kind=tarfile.LNKTYPE, link="../../etc/shadow")), "leaves the archive"),
        (tar(Entry("x" * 5000)), "a name of more than 4096 bytes"),
        (tar(Entry("/".join("d" * 65))), "nested more than 64 deep"),
        (tar(Entry("x", kind=tarfile.SYMTYPE, link="y" * 5000)), "a link to nowhere, or with a name too long"),
        (header(b"x", kind=b"2"), "a link to nowhere"),
        (header(b"x", kind=b"x", size=b"77777777777"), f"a header of more than {MAX_PAX_BYTES} bytes"),
        (header(b"x", kind=b"L", size=b"77777777777"), f"a header of more than {MAX_PAX_BYTES} bytes"),
        (header(b"x", size=b"\x80" + b"\xff" * 11), "a file of more than"),
        (header(b"x", size=b"\xff" * 12), "a negative number"),
        (header(b"x", size=b"0000000009x"), "a number that is none"),
        (header(b"x", size=b"00000001000"), "cut short"),
        (header(b"x", kind=b"S"), "a kind that image builders do not write"),
        (header(b"x/", kind=b"\0", size=b"00000001000"), "a folder with content"),
        (header(b"x")[:300], "cut short"),
        (header(b"x").replace(b"x", b"y", 1), "another checksum"),
        (resealed(header(b"x"), 508, b"tar\0"), "another place for times"),
        (resealed(resealed(header(b"x"), 257, b"ustar  \0"), 345, b"folder"), "in the place of a folder"),
        (long_name(b"one") + header(b"g", kind=b"x", size=b"00000000013") + b"11 path=xy\n".ljust(512, b"\0") + header(b"x"), "two names"),
        (bytes(512) + header(b"x"), "an end in the middle"),
        (tar(Entry("a", pax={"GNU.sparse.major": "1"})), "a kind that image builders do not write"),
        (header(b"g", kind=b"g", size=b"00000000013") + b"11 path=xy\n".ljust(512, b"\0"), "names files"),
        (header(b"g", kind=b"x", size=b"00000000013") + b"99 path=xy\n".ljust(512, b"\0"), "cannot be read"),
        (header(b"g", kind=b"x", size=b"00000000013") + b"0 path=xyz\n".ljust(512, b"\0"), "cannot be read"),
        (header(b"g", kind=b"x", size=b"00000000013") + b"11 path=xy\n".ljust(512, b"\0"), "cut short"),
    ],
)  # fmt: skip
def test_a_hostile_archive_is_refused_with_what_is_wrong(data: bytes, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        entries(data)


def test_contents_behind_a_link_are_not_skipped() -> None:
    # Engines take a link's size for 0: what follows it is the next header, not its content.
    hidden = header(b"innocent", kind=b"1", link=b"a", size=b"00000001000") + header(b"evil") + bytes(1024)
    assert [each.name for each in entries(hidden)] == ["innocent", "evil"]


def test_a_folder_may_stand_in_the_prefix_of_a_posix_header() -> None:
    assert [each.name for each in entries(resealed(header(b"x"), 345, b"opt/folder"))] == ["opt/folder/x"]
    assert [each.name for each in entries(long_name(b"other") + header(b"x"))] == ["other"]


def test_bytes_behind_the_end_are_pointed_out() -> None:
    assert layer(tar(Entry("a"))).oddities == []
    refused, behind = layer(tar(Entry("a")) + b"secret").oddities
    assert behind == "holds bytes behind the archive's end, which no engine unpacks"
    assert refused.startswith("every station refuses this layer")


@pytest.mark.parametrize(
    "entry",
    [
        Entry("dev/mem", kind=tarfile.CHRTYPE),
        Entry("pipe", kind=tarfile.FIFOTYPE),
        Entry("a", link="../b", kind=tarfile.SYMTYPE),
    ],
)
def test_what_stations_refuse_is_said(entry: Entry) -> None:
    """By the same reader as a station's, so that the board is not asked for what cannot run."""
    assert any(text.startswith("every station refuses this layer") for text in layer(tar(entry)).oddities)


def test_a_name_added_and_hidden_in_one_layer_is_pointed_out() -> None:
    assert "adds and hides the same path" in layer(tar(Entry("a"), Entry(".wh.a"))).oddities[1]


def test_markers_that_no_engine_obeys_are_pointed_out() -> None:
    found = layer(tar(Entry(".wh..wh.plnk"), Entry(".wh..")))
    assert len(found.oddities) == 3
    assert not found.entries


def test_entries_behind_a_link_of_the_same_layer_are_pointed_out() -> None:
    found = tree(tar(Entry("lib", kind=tarfile.SYMTYPE, link="/etc"), Entry("lib/passwd", b"x")))
    assert "1 entries lie behind a link" in found.oddities[0]
    # A folder over a lower layer's link is what `docker build` makes; it replaces the link.
    found = tree(tar(Entry("lib", kind=tarfile.SYMTYPE, link="/etc")), tar(Entry("lib/passwd", b"x")))
    assert (found.oddities, paths(found)) == ([], ["lib/passwd"])


def test_links_lead_to_files_and_circles_nowhere() -> None:
    found = tree(
        tar(
            Entry("etc/real", b"content"),
            Entry("usr/link", kind=tarfile.SYMTYPE, link="../etc"),
            Entry("hard", kind=tarfile.LNKTYPE, link="etc/real"),
            Entry("out", kind=tarfile.SYMTYPE, link="../../../etc/real"),
            Entry("one", kind=tarfile.SYMTYPE, link="two"),
            Entry("two", kind=tarfile.SYMTYPE, link="one"),
        )
    )
    digest = hashlib.sha256(b"content").digest()
    for path in ("usr/link/real", "hard", "out"):
        reached = found.follow(path)
        assert reached is not None
        assert reached.digest == digest
    assert found.follow("one") is None
    assert found.follow("usr/link/nothing") is None


def test_a_layer_is_described_only_as_what_its_digest_names() -> None:
    data = tar(Entry("a", b"x"))
    with pytest.raises(TrustError):
        read_layer(io.BytesIO(data), digest_of(b"other"), len(data), lambda *_: False, Ceilings())


def test_ceilings_hold_over_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "MAX_ENTRIES", 3)
    ceilings = Ceilings()
    layer(tar(Entry("a"), Entry("b")), ceilings)
    with pytest.raises(DocumentError, match="more than 3 files"):
        layer(tar(Entry("c"), Entry("d")), ceilings)


def test_ceilings_on_names_on_what_is_kept_and_on_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "MAX_NAMES_BYTES", 10)
    with pytest.raises(DocumentError, match="names too long to list"):
        layer(tar(Entry("n" * 11)))
    monkeypatch.undo()
    monkeypatch.setattr(layers_module, "MAX_KEPT_BYTES", 10)
    ceilings = Ceilings()
    found = layer(
        tar(Entry("small", b"1234"), Entry("large", b"1234567"), Entry("last", b"123456")), ceilings
    )
    assert [file.data for _, file in found.entries] == [b"1234", None, b"123456"]
    assert ceilings.not_kept == 1
    monkeypatch.undo()
    # Folders that no entry names are made all the same.
    monkeypatch.setattr(tree_module, "MAX_PATHS", 5)
    with pytest.raises(DocumentError, match="more than 5 paths"):
        tree(tar(Entry("a/b/c/d/e/f")))


def test_layers_that_hide_and_bring_again() -> None:
    brings = tar(*(Entry(f"d/{number}") for number in range(500)), Entry("d/.wh..wh..opq"))
    hides = tar(*(Entry(f"d/.wh.{number}") for number in range(500)))
    found = tree(*([brings, hides] * 12), brings)
    assert len(paths(found)) == 500
