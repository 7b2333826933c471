"""Flat arrays: what is refused, what is canonical, what bfloat16 rounds to."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from policies.errors import StateError, StorageError, WireError
from policies.wire.arrays import ArrayLimits, TensorShape, chunks_of, open_tensor, read_layout, released_dtype
from policies.wire.arrays_writing import ArraysWriter, canonical_layout
from policies.wire.floats import bfloat16_from_float32, float32_from_bfloat16

TENSORS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([1, -2, 3], np.int64),
    "flag": np.array(True),
    "empty": np.zeros((0, 2), np.float16),
    "half": np.array([1.5, -2.5], np.float16),
    "wide": np.array([[1e300]], np.float64),
    "bytes": np.array([1, 2, 255], np.uint8),
}


def raw(header: object, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "arrays.safetensors"


def copy_through_writer(source: Path, target: Path, chunk: int = 2) -> str:
    layout = read_layout(source)
    with ArraysWriter(target, layout.tensors) as writer:
        for item in writer.layout.entries:
            for piece in chunks_of(open_tensor(source, layout.by_name()[item.name]), chunk):
                writer.write(item.name, piece)
        return writer.close().digest


def test_a_stock_file_is_read_and_written_again_byte_for_byte(file: Path, tmp_path: Path) -> None:
    save_file(TENSORS, file)
    digest = copy_through_writer(file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert digest.startswith("sha256:")


def test_what_is_written_loads_in_the_stock_library(file: Path, tmp_path: Path) -> None:
    save_file(TENSORS, file)
    copy_through_writer(file, tmp_path / "copy")
    loaded = load_file(tmp_path / "copy")
    assert loaded.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert loaded[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded[name], values)


def test_every_tensor_starts_at_a_multiple_of_its_item_size(file: Path) -> None:
    save_file(TENSORS, file)
    layout = canonical_layout(read_layout(file).tensors)
    for item in layout.entries:
        assert item.offset % max(1, item.tensor.nbytes // max(1, item.tensor.elements)) == 0
    assert layout.file_bytes == file.stat().st_size


def test_a_mapped_tensor_cannot_be_written(file: Path) -> None:
    save_file(TENSORS, file)
    layout = read_layout(file)
    for item in layout.entries:
        assert not open_tensor(file, item).flags.writeable


def test_empty_metadata_and_spaces_are_read(file: Path) -> None:
    file.write_bytes(
        raw(b'{ "__metadata__" : {} , "t":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"} }   ', b"\0" * 4)
    )
    assert read_layout(file).tensors == (TensorShape("t", "float32", (1,)),)


def test_a_file_without_tensors_is_read(file: Path) -> None:
    file.write_bytes(raw(b"{}      "))
    assert read_layout(file).entries == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "shorter than its header"),
        (b"\x02\0\0\0\0\0\0", "shorter than its header"),
        (struct.pack("<Q", 1 << 60) + b"{}", "longer than the file"),
        (struct.pack("<Q", 9) + b"{}", "longer than the file"),
        (raw(b"[]"), "not a JSON object"),
        (raw(b" {}"), "not a JSON object"),
        (raw(b"{"), "one form"),
        (raw(b"{} x"), "not of the one form|not a JSON"),
        (raw(b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} x', b"\0" * 4), "behind the header"),
        (raw({"__metadata__": {"note": "hidden"}}), "metadata"),
        (raw(b'{"__metadata__":{},"__metadata__":{}}'), "metadata"),
        (raw({"t": entry("F8_E4M3", offsets=(0, 1))}, b"\0"), "dtype"),
        (raw({"t": entry("U64", offsets=(0, 8))}, b"\0" * 8), "dtype"),
        (raw({"t": {**entry(), "dtype": 4}}, b"\0" * 4), "dtype"),
        (raw({"t": entry()}, b"\0" * 5), "longer or shorter"),
        (raw({"t": entry()}, b"\0" * 3), "longer or shorter"),
        (raw({"t": entry(offsets=(4, 8))}, b"\0" * 8), "hole or overlap"),
        (raw({"t": entry(), "u": entry()}, b"\0" * 4), "hole or overlap"),
        (raw({"t": entry(), "u": entry(offsets=(2, 6))}, b"\0" * 6), "hole or overlap"),
        (raw({"t": entry(), "u": entry(offsets=(8, 12))}, b"\0" * 12), "hole or overlap"),
        (raw({"t": entry(shape=(2,))}, b"\0" * 4), "hole or overlap"),
        (raw({"t": entry(shape=(-1,))}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(shape=(1.0,))}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(shape=(True,))}, b"\0" * 4), "whole numbers"),
        (raw({"t": {**entry(), "shape": 1}}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(shape=[1] * 9)}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(offsets=(0, 4, 4))}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(offsets=(0,))}, b"\0" * 4), "whole numbers"),
        (raw({"t": entry(shape=(0, 1 << 40, 1 << 40), offsets=(0, 0))}), "larger than any file"),
        (raw({"t": {**entry(), "note": 1}}, b"\0" * 4), "other keys"),
        (raw({"t": {"dtype": "F32"}}, b"\0" * 4), "other keys"),
        (raw(b'{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), "not JSON"),
        (
            raw(b'{"t":{"dtype":"F32","shape":[' + b"9" * 300 + b'],"data_offsets":[0,4]}}', b"\0" * 4),
            "whole numbers",
        ),
        (raw({"t\n": entry()}, b"\0" * 4), "one form"),
        (raw({"tést": entry()}, b"\0" * 4), "one form"),
        (raw({"": entry()}, b"\0" * 4), "one form"),
        (raw({"t" * 201: entry()}, b"\0" * 4), "one form"),
        (
            raw(
                b'{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
            ),
            "twice",
        ),
        (raw(b'{"t":' + b"[" * 5000 + b"}"), "one form"),
    ],
)
def test_a_malformed_file_is_refused(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    with pytest.raises(WireError, match=says):
        read_layout(file)


def test_ceilings_hold(file: Path) -> None:
    save_file(TENSORS, file)
    with pytest.raises(WireError, match="at most 10 are read"):
        read_layout(file, ArrayLimits(max_bytes=10))
    with pytest.raises(WireError, match="ceiling"):
        read_layout(file, ArrayLimits(max_header_bytes=64))
    with pytest.raises(WireError, match="more than 2 tensors"):
        read_layout(file, ArrayLimits(max_tensors=2))


def test_links_folders_and_pipes_are_refused(file: Path, tmp_path: Path) -> None:
    import os

    save_file(TENSORS, file)
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError):
        read_layout(tmp_path / "link")
    with pytest.raises(WireError, match="plain file"):
        read_layout(tmp_path / "pipe")
    with pytest.raises(WireError, match="plain file"):
        read_layout(tmp_path)
    with pytest.raises(StorageError):
        read_layout(tmp_path / "missing")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_file_does_more_than_refuse(file: Path, data: st.DataObject) -> None:
    good = bytearray(save(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(
        bytes(good[: data.draw(st.integers(0, len(good)))]) if data.draw(st.booleans()) else bytes(good)
    )
    try:
        layout = read_layout(file)
    except WireError:
        return
    assert sum(item.tensor.nbytes for item in layout.entries) <= file.stat().st_size
    for item in layout.entries:
        assert open_tensor(file, item).shape == item.tensor.shape


def test_a_writer_takes_exactly_what_its_layout_says(file: Path) -> None:
    shapes = [TensorShape("a", "float32", (2,)), TensorShape("b", "float32", (1,))]
    with ArraysWriter(file, shapes) as writer:
        with pytest.raises(StateError):
            writer.write("b", np.zeros(1, np.float32))
        with pytest.raises(StateError):
            writer.write("a", np.zeros(1, np.float64))
        with pytest.raises(StateError):
            writer.write("a", np.zeros(3, np.float32))
        writer.write("a", np.zeros(2, np.float32))
        with pytest.raises(StateError, match="missing"):
            writer.close()
    assert list(file.parent.iterdir()) == []


def test_names_stand_once(file: Path) -> None:
    with pytest.raises(WireError):
        canonical_layout([TensorShape("a", "float32", ()), TensorShape("a", "int8", ())])
    with pytest.raises(WireError):
        canonical_layout([TensorShape("__metadata__", "float32", ())])


def test_a_full_disk_is_a_storage_fault_and_leaves_nothing(tmp_path: Path) -> None:
    # RLIMIT_FSIZE gives a real EFBIG from the kernel, as a quota would.
    import resource
    import signal

    many = [TensorShape(f"tensor.{number}", "uint8", (0,)) for number in range(100)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(StorageError, match="cannot be written"),
            ArraysWriter(tmp_path / "out", [TensorShape("a", "uint8", (5000,))]) as writer,
        ):
            writer.write("a", np.zeros(5000, np.uint8))
        with pytest.raises(StorageError, match="cannot be written"):
            ArraysWriter(tmp_path / "out", many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_keeps_what_it_can_hold_and_rounds_ties_to_even() -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    finite = every[np.isfinite(float32_from_bfloat16(every))]
    np.testing.assert_array_equal(bfloat16_from_float32(float32_from_bfloat16(finite)), finite)
    # 1 + 2^-8 lies between 1 and 1 + 2^-7: the even one is 1; 1 + 3 * 2^-8 goes up.
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)], np.float32)
    np.testing.assert_array_equal(float32_from_bfloat16(bfloat16_from_float32(ties)), [1.0, 1 + 2**-6, -1.0])


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1))
def test_bfloat16_is_within_half_a_step(values: list[float]) -> None:
    given_values = np.array(values, np.float32)
    back = float32_from_bfloat16(bfloat16_from_float32(given_values))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(given_values))
    normal = np.isfinite(given_values) & np.isfinite(back) & (np.abs(given_values) > 1e-37)
    wide, there = back[normal].astype(np.float64), given_values[normal].astype(np.float64)
    assert (np.abs(wide - there) <= np.abs(there) * 2.0**-8).all()


def test_bfloat16_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    theirs = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(bfloat16_from_float32(values)[numbers], theirs[numbers])


def test_released_dtype_never_widens_a_float() -> None:
    assert released_dtype("float64", "float32") == "float32"
    assert released_dtype("bfloat16", "float32") == "bfloat16"
    assert released_dtype("float32", "float16") == "float16"
    assert released_dtype("bool", "bfloat16") == "int64"
