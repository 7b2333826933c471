"""Attack: a train carries data out in what is no parameter: running means, counters, masks, and tensors that it calls something else.

Each kind of tensor has a rule of its own, and what the policy withholds is not in the file: neither its numbers nor its name.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import METRIC, Bench, Tensors, head, manifest, policy
from safetensors.numpy import load_file

from policies.refusals import RefusalCode
from policies.rules.capacity import release_bits
from station.egress.release import Release, Withheld

SECRET = b"name: J. Jansen, born 1961-02-03"
NUMBERS = np.frombuffer(SECRET, np.uint8)
INBOUND: Tensors = {
    "conv.weight": np.zeros(32, np.float32),
    "norm.running_mean": np.zeros(32, np.float32),
    "norm.num_batches_tracked": np.full(32, 1000, np.int64),
    "mask": np.zeros(32, np.bool_),
    "table": np.zeros(32, np.uint8),
}
WITHHELD = {"float_buffers": "withhold", "integer_buffers": "withhold"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, INBOUND)


def answered(bench: Bench, tensors: Tensors, **rules: Any) -> Release | Withheld:
    reply = {name: tensors.get(name, items) for name, items in INBOUND.items()}
    return bench.guard(rules=policy(tensors=rules)).check(bench.request(), head(), bench.answer(reply))


def released(bench: Bench, outcome: Release | Withheld) -> Tensors:
    assert isinstance(outcome, Release), outcome
    found: Tensors = load_file(bench.out)
    return found


@pytest.mark.parametrize("name", ["norm.running_mean", "norm.num_batches_tracked", "mask", "table"])
def test_a_withheld_buffer_leaves_no_trace(bench: Bench, name: str) -> None:
    """With the secret in it and without, the same bytes leave."""
    bits = np.unpackbits(NUMBERS)[:32].astype(INBOUND[name].dtype)
    changed = INBOUND[name] + (bits if name == "mask" else NUMBERS.astype(INBOUND[name].dtype))
    files = []
    for tensors in ({}, {name: changed}):
        assert set(released(bench, answered(bench, tensors, **WITHHELD))) == {"conv.weight"}
        files.append(bench.out.read_bytes())
    assert files[0] == files[1]
    assert name.encode() not in files[0]


def test_what_a_policy_does_not_say_of_counters_keeps_them_here(bench: Bench) -> None:
    tensors = {"norm.num_batches_tracked": INBOUND["norm.num_batches_tracked"] + NUMBERS}
    assert set(released(bench, answered(bench, tensors))) == {"conv.weight", "norm.running_mean"}


def test_a_permitted_buffer_is_a_channel_and_is_counted_as_one(bench: Bench) -> None:
    """Honest: what is permitted to leave can carry the secret; the bound on bits says so."""
    tensors = {
        "norm.running_mean": NUMBERS.astype(np.float32),
        "norm.num_batches_tracked": INBOUND["norm.num_batches_tracked"] + NUMBERS,
        "table": NUMBERS.copy(),
    }
    outcome = answered(bench, tensors, integer_buffers="release")
    found = released(bench, outcome)
    for name in tensors:
        assert found[name].astype(np.uint8).tobytes() == SECRET
    assert isinstance(outcome, Release)
    closed = answered(bench, {}, **WITHHELD)
    assert isinstance(closed, Release)
    # 32 floats of 31 bits, 32 differences of at most a million, 32 bytes, 32 yes or no.
    assert outcome.capacity_bits - closed.capacity_bits == pytest.approx(32 * (31.2 + 20.9 + 8 + 1), rel=0.01)


def test_clipping_does_not_reach_buffers_and_the_range_does(bench: Bench) -> None:
    tensors = {"norm.running_mean": NUMBERS.astype(np.float32) * 1000}
    found = released(bench, answered(bench, tensors, clipping_norm=1e-3))
    assert found["norm.running_mean"].max() > 100_000
    outcome = answered(bench, tensors, clipping_norm=1e-3, maximum_absolute=1.0)
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_TENSOR_RANGE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm.num_batches_tracked", np.int64(np.iinfo(np.int64).max)),
        ("norm.num_batches_tracked", np.int64(np.iinfo(np.int64).min)),
        ("norm.num_batches_tracked", np.int64(1001 + 10**6)),
    ],
)
def test_a_counter_that_jumps_is_withheld(bench: Bench, name: str, value: np.int64) -> None:
    tensors = {name: np.where(np.arange(32) == 3, value, INBOUND[name])}
    outcome = answered(bench, tensors, integer_buffers="release")
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_TENSOR_RANGE


def test_a_difference_that_would_wrap_to_a_small_one_is_withheld(tmp_path: Path) -> None:
    ends = np.iinfo(np.int64)
    bench = Bench(tmp_path, {"w": np.zeros(2, np.float32), "steps": np.array([ends.max, 0], np.int64)})
    reply = {"w": np.zeros(2, np.float32), "steps": np.array([ends.min, 0], np.int64)}
    guard = bench.guard(rules=policy(tensors={"integer_buffers": "release"}))
    outcome = guard.check(bench.request(), head(), bench.answer(reply))
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_TENSOR_RANGE


def test_whole_numbers_declared_as_parameters_are_buffers_all_the_same(bench: Bench) -> None:
    """The manifest calls nothing a buffer: the floats are parameters, and clipped; the whole numbers stay buffers."""
    train = manifest(metrics=[METRIC], tensors={"layout": "same-as-input"})
    rules = policy(tensors={"clipping_norm": 1.0})
    reply = {**INBOUND, "table": NUMBERS.copy(), "norm.running_mean": NUMBERS.astype(np.float32)}
    outcome = bench.guard(train, rules).check(bench.request(), head(), bench.answer(reply))
    found = released(bench, outcome)
    assert set(found) == {"conv.weight", "norm.running_mean"}
    assert np.linalg.norm(found["norm.running_mean"]) <= 1.0


def test_the_bound_on_bits_follows_the_rules(bench: Bench) -> None:
    def bits(**rules: Any) -> int:
        contract = bench.contract(rules=policy(tensors=rules))
        return release_bits(policy(tensors=rules).release, manifest(), "train", contract.tensors or ())

    assert (
        bits(**WITHHELD)
        < bits(integer_buffers="withhold")
        < bits(integer_buffers="release")
        == bench.contract(rules=policy(tensors={"integer_buffers": "release"})).capacity_bits["train"]
    )
