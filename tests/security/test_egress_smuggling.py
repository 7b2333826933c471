"""Attack: a train hides bytes in everything the reply has room for. None of them leaves."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import COUNTS, METRIC, Bench, head, manifest, moved, policy
from safetensors.numpy import load_file, save, save_file

from policies.refusals import RefusalCode
from station.egress.guard import Guard
from station.egress.release import Release, Withheld

SECRET = b"name: J. Jansen, born 1961-02-03"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def refused(outcome: Release | Withheld) -> RefusalCode:
    assert isinstance(outcome, Withheld)
    for reason in outcome.reasons:
        assert SECRET.decode() not in reason.detail
    return outcome.code


def with_header(content: bytes, change: Any) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = change(json.loads(content[8 : 8 + length]))
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


def test_in_an_extra_tensor(bench: Bench) -> None:
    extra = {**moved(bench.inbound_tensors), "extra": np.frombuffer(SECRET, np.uint8)}
    outcome = bench.guard().check(bench.request(), head(), bench.answer(extra))
    assert refused(outcome) is RefusalCode.RELEASE_TENSOR_EXTRA


def test_in_a_tensors_name(bench: Bench) -> None:
    extra = {**moved(bench.inbound_tensors), SECRET.decode(): np.zeros(1, np.float32)}
    outcome = bench.guard().check(bench.request(), head(), bench.answer(extra))
    assert refused(outcome) is RefusalCode.RELEASE_UNPARSEABLE


def test_in_the_files_metadata(bench: Bench) -> None:
    save_file(moved(bench.inbound_tensors), bench.reply, metadata={"note": SECRET.decode()})
    assert (
        refused(bench.guard().check(bench.request(), head(), bench.reply)) is RefusalCode.RELEASE_UNPARSEABLE
    )


def test_behind_the_last_tensor(bench: Bench) -> None:
    bench.reply.write_bytes(save(moved(bench.inbound_tensors)) + SECRET)
    assert (
        refused(bench.guard().check(bench.request(), head(), bench.reply)) is RefusalCode.RELEASE_UNPARSEABLE
    )


def test_in_a_hole_between_tensors(bench: Bench) -> None:
    def push_last(header: dict[str, Any]) -> dict[str, Any]:
        last = max(header, key=lambda name: header[name]["data_offsets"][1])
        header[last]["data_offsets"] = [offset + len(SECRET) for offset in header[last]["data_offsets"]]
        return header

    bench.reply.write_bytes(with_header(save(moved(bench.inbound_tensors)) + SECRET, push_last))
    assert (
        refused(bench.guard().check(bench.request(), head(), bench.reply)) is RefusalCode.RELEASE_UNPARSEABLE
    )


def test_in_the_spaces_and_the_order_of_the_header(bench: Bench) -> None:
    """Spacing, order and padding are free in a safetensors header: the released file has its own."""
    plain = bench.guard().check(bench.request(), head(), bench.answer())
    assert isinstance(plain, Release)
    expected = bench.out.read_bytes()

    def reorder(header: dict[str, Any]) -> bytes:
        return json.dumps(dict(reversed(header.items())), indent=3).encode() + b" \t\n" * 40

    bench.reply.write_bytes(with_header(save(moved(bench.inbound_tensors)), reorder))
    assert isinstance(bench.guard().check(bench.request(), head(), bench.reply), Release)
    assert bench.out.read_bytes() == expected


def test_in_the_bits_of_nan(bench: Bench) -> None:
    after = moved(bench.inbound_tensors)
    after["layer.bias"] = (np.frombuffer(SECRET[:16], np.uint32) & 0x3FFFFF | 0x7FC00000).view(np.float32)
    assert np.isnan(after["layer.bias"]).all()
    outcome = bench.guard().check(bench.request(), head(), bench.answer(after))
    assert refused(outcome) is RefusalCode.RELEASE_TENSOR_NOT_FINITE


def test_in_the_signs_of_zeros(bench: Bench) -> None:
    inbound = {"w": np.zeros(256, np.float32)}
    save_file(inbound, bench.inbound)
    bits = np.unpackbits(np.frombuffer(SECRET, np.uint8))
    signs = np.where(bits, np.float32(-0.0), np.float32(0.0)).astype(np.float32)
    outcome = bench.guard().check(bench.request(), head(), bench.answer({"w": signs}))
    assert isinstance(outcome, Release)
    assert bench.out.read_bytes().endswith(bytes(4 * 256))


def test_in_the_low_bits_that_precision_takes_away(bench: Bench) -> None:
    inbound = {"w": np.zeros(256, np.float32)}
    save_file(inbound, bench.inbound)
    bits = np.unpackbits(np.frombuffer(SECRET, np.uint8)).astype(np.uint32)
    hidden = (np.full(256, 0x3C000000, np.uint32) | bits).view(np.float32)
    guard = bench.guard(rules=policy(tensors={"precision": "bfloat16"}))
    assert isinstance(guard.check(bench.request(), head(), bench.answer({"w": hidden})), Release)
    data = bench.out.read_bytes()
    assert data.endswith(struct.pack("<H", 0x3C00) * 256)


def test_in_a_counter_that_stays_here(bench: Bench) -> None:
    after = {
        **moved(bench.inbound_tensors),
        "norm.num_batches_tracked": np.array(int.from_bytes(SECRET[:7], "big")),
    }
    outcome = bench.guard().check(bench.request(), head(), bench.answer(after))
    assert isinstance(outcome, Release)
    assert "norm.num_batches_tracked" not in load_file(bench.out)


def test_in_the_digits_of_a_metric(bench: Bench) -> None:
    outcome = bench.guard().check(bench.request(), head(metrics={"loss": 0.1230000000314159}), bench.answer())
    assert isinstance(outcome, Release)
    assert outcome.metrics == {"loss": 0.123}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"note": SECRET.decode()}, RefusalCode.RELEASE_UNPARSEABLE),
        ({"error": SECRET.decode()}, RefusalCode.RELEASE_UNPARSEABLE),
        ({"metrics": {"loss": 0.1, SECRET.decode(): 1.0}}, RefusalCode.RELEASE_METRIC_EXTRA),
        ({"metrics": {"loss": SECRET.decode()}}, RefusalCode.RELEASE_METRIC_RANGE),
        ({"metrics": {"loss": 0.1}, "rows": {SECRET.decode(): [1]}}, RefusalCode.RELEASE_ROWS_SHAPE),
        ({"rows": {"counts": [SECRET.decode()]}}, RefusalCode.RELEASE_ROWS_SHAPE),
        ({"tables": {"counts": [list(SECRET)]}}, RefusalCode.RELEASE_UNPARSEABLE),
    ],
)
def test_in_the_head(bench: Bench, fields: dict[str, Any], code: RefusalCode) -> None:
    contract = bench.contract(manifest(metrics=[METRIC]), policy())
    reply = head(**fields)
    assert refused(Guard(contract, COUNTS).check(bench.request(), reply, bench.answer())) is code


def test_as_a_link_to_a_file_of_the_station(bench: Bench, tmp_path: Path) -> None:
    """The reply's file is written by the station; were it a link all the same, it is not followed."""
    from policies.errors import StorageError

    bench.reply.symlink_to(bench.inbound)
    with pytest.raises(StorageError):
        bench.guard().check(bench.request(), head(), bench.reply)
