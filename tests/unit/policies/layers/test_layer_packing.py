"""Packed layers, unpacked under ceilings as they pass."""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_kit import gzipped

from policies.layers import Ceilings, LayerFault, LayerRefusedError, unpacked

SMALL = Ceilings(bytes=100_000, entries=10, ratio=20, ratio_free_bytes=5000)


def fault(data: bytes, ceilings: Ceilings = SMALL) -> LayerFault:
    with pytest.raises(LayerRefusedError) as caught:
        list(unpacked([data], ceilings))
    return caught.value.fault


@given(
    content=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 4000), max_size=5),
    members=st.integers(1, 3),
)
@settings(deadline=None)
def test_what_was_packed_comes_out(content: bytes, cuts: list[int], members: int) -> None:
    data = gzipped(content) * members
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert b"".join(unpacked(data[a:b] for a, b in itertools.pairwise(edges))) == content * members


def test_a_bomb_stops_at_the_ratio_and_not_at_its_end() -> None:
    pulled = []

    def endless() -> Iterator[bytes]:
        packer = zlib.compressobj(9, wbits=31)
        while True:
            pulled.append(packer.compress(b"\0" * (1 << 20)))
            yield pulled[-1]

    with pytest.raises(LayerRefusedError) as caught:
        max(map(len, unpacked(endless())))
    assert caught.value.fault is LayerFault.RATIO
    assert len(pulled) < 100


def test_too_many_bytes() -> None:
    assert fault(gzipped(os.urandom(100_001))) is LayerFault.BYTES


def test_too_many_members() -> None:
    assert fault(gzipped(b"x") * 30) is LayerFault.ENTRIES


@pytest.mark.parametrize("data", [b"", gzipped(b"x" * 500)[:-1], gzipped(b"x") + gzipped(b"y")[:5]])
def test_cut_short(data: bytes) -> None:
    assert fault(data) is LayerFault.CUT_SHORT


@pytest.mark.parametrize(
    "data", [b"plain", gzipped(b"x") + b"junk", gzipped(b"x") + b"\0\0", gzip.compress(b"x")[:-8] + b"\1" * 8, b"(\xb5/\xfd zstd"]
)  # fmt: skip
def test_what_is_no_gzip(data: bytes) -> None:
    assert fault(data) is LayerFault.PACKING


@given(data=st.binary(max_size=400), at=st.integers(0, 100), value=st.integers(0, 255))
@settings(deadline=None)
def test_no_bytes_make_it_raise_anything_else(data: bytes, at: int, value: int) -> None:
    changed = bytearray(gzipped(data))
    changed[at % len(changed)] = value
    for attempt in (data, bytes(changed)):
        try:
            list(unpacked([attempt], SMALL))
        except LayerRefusedError:
            continue
