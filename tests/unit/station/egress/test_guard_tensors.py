"""The guard on arrays: deltas, clipping, precision, buffers, canonical form."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import COUNTS, ORDER, Bench, head, manifest, moved, policy, weights
from safetensors.numpy import load_file, save, save_file

from policies.documents import digest_of_file
from policies.errors import StorageError
from policies.refusals import RefusalCode
from policies.wire.arrays import TensorShape, open_tensor, read_layout
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.floats import float32_from_bfloat16
from station.egress.contract import ReleaseContract
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld
from station.egress.training.pairing import pair_tensors

COUNTER = "norm.num_batches_tracked"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def released(outcome: Release | Withheld) -> dict[str, np.ndarray]:
    assert isinstance(outcome, Release), outcome
    assert outcome.arrays is not None
    assert outcome.arrays.digest == digest_of_file(outcome.arrays.path)
    assert outcome.arrays.size == outcome.arrays.path.stat().st_size
    return load_file(outcome.arrays.path)


def codes(outcome: Release | Withheld) -> set[RefusalCode]:
    assert isinstance(outcome, Withheld), outcome
    return {reason.code for reason in outcome.reasons}


def test_what_leaves_is_the_difference_and_not_the_weights(bench: Bench) -> None:
    deltas = released(bench.guard().check(bench.request(), head(), bench.answer()))
    after = moved(bench.inbound_tensors)
    assert set(deltas) == {"layer.weight", "layer.bias", "norm.running_mean"}
    for name, delta in deltas.items():
        np.testing.assert_array_equal(delta, after[name] - bench.inbound_tensors[name])


def test_the_file_is_canonical(bench: Bench) -> None:
    outcome = bench.guard().check(bench.request(), head(), bench.answer())
    assert bench.out.read_bytes() == save(released(outcome))


def test_a_release_names_its_place_its_rules_and_the_stations_own_count(bench: Bench) -> None:
    outcome = bench.guard().check(bench.request(round_=3), head(), bench.answer())
    assert isinstance(outcome, Release)
    assert (outcome.order_digest, outcome.round, outcome.stage) == (ORDER, 3, "train")
    assert outcome.num_examples == 70
    assert outcome.rules_digest == bench.contract().rules_digest
    assert outcome.rules_digest != bench.contract(rules=policy(maximum_bytes=5)).rules_digest


def test_integer_buffers_leave_as_differences_where_the_policy_says_so(bench: Bench) -> None:
    guard = bench.guard(rules=policy(tensors={"integer_buffers": "release"}))
    deltas = released(guard.check(bench.request(), head(), bench.answer()))
    assert deltas[COUNTER].dtype == np.int64
    assert deltas[COUNTER] == 1


def test_an_integer_difference_that_would_wrap_is_withheld(bench: Bench) -> None:
    guard = bench.guard(rules=policy(tensors={"integer_buffers": "release", "maximum_absolute": 1e30}))
    after = {**moved(bench.inbound_tensors), COUNTER: np.array(np.iinfo(np.int64).min, np.int64)}
    outcome = guard.check(bench.request(), head(), bench.answer(after))
    assert codes(outcome) == {RefusalCode.RELEASE_TENSOR_RANGE}


def test_float_buffers_can_be_withheld_and_are_then_not_looked_at(bench: Bench) -> None:
    guard = bench.guard(rules=policy(tensors={"float_buffers": "withhold"}))
    after = {**moved(bench.inbound_tensors), "norm.running_mean": np.full(4, np.nan, np.float32)}
    assert set(released(guard.check(bench.request(), head(), bench.answer(after)))) == {
        "layer.weight",
        "layer.bias",
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["layer.weight", "norm.running_mean"])
def test_what_is_not_finite_is_withheld_and_named(bench: Bench, value: float, name: str) -> None:
    after = moved(bench.inbound_tensors)
    after[name].flat[1] = value
    outcome = bench.guard().check(bench.request(), head(), bench.answer(after))
    assert codes(outcome) == {RefusalCode.RELEASE_TENSOR_NOT_FINITE}
    assert isinstance(outcome, Withheld)
    assert outcome.reasons[0].detail == name
    assert not bench.out.exists()


def test_infinite_inbound_weights_do_not_open_a_way(tmp_path: Path) -> None:
    inbound = {**weights(), "layer.bias": np.full(4, np.inf, np.float32)}
    bench = Bench(tmp_path, inbound)
    outcome = bench.guard().check(bench.request(), head(), bench.answer(moved(inbound)))
    assert codes(outcome) == {RefusalCode.RELEASE_TENSOR_NOT_FINITE}


def test_a_step_beyond_the_policys_bound_is_withheld(bench: Bench) -> None:
    after = moved(bench.inbound_tensors)
    after["layer.bias"][2] += 5.0
    guard = bench.guard(rules=policy(tensors={"maximum_absolute": 4.0}))
    assert codes(guard.check(bench.request(), head(), bench.answer(after))) == {
        RefusalCode.RELEASE_TENSOR_RANGE
    }


def test_a_step_beyond_the_released_type_is_withheld(bench: Bench) -> None:
    after = moved(bench.inbound_tensors)
    after["layer.bias"][2] += 70_000.0
    guard = bench.guard(rules=policy(tensors={"precision": "float16"}))
    assert codes(guard.check(bench.request(), head(), bench.answer(after))) == {
        RefusalCode.RELEASE_TENSOR_RANGE
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("norm", [1e-3, 0.5, 1.0])
def test_clipping_holds_over_all_parameters_together_after_rounding(
    bench: Bench, precision: str, norm: float
) -> None:
    guard = bench.guard(rules=policy(tensors={"clipping_norm": norm, "precision": precision}))
    after = moved(bench.inbound_tensors, by=1.0)
    outcome = guard.check(bench.request(), head(), bench.answer(after))
    assert isinstance(outcome, Release)
    layout = read_layout(bench.out)
    values = {}
    for entry in layout.entries:
        items = open_tensor(bench.out, entry)
        assert entry.tensor.dtype == precision
        values[entry.name] = (float32_from_bfloat16(items) if precision == "bfloat16" else items).astype(
            np.float64
        )
    parameters = np.concatenate([values["layer.weight"].ravel(), values["layer.bias"].ravel()])
    assert 0.98 * norm < np.linalg.norm(parameters) <= norm
    # Buffers are not part of the norm and are not scaled.
    step = after["norm.running_mean"].astype(np.float64) - bench.inbound_tensors["norm.running_mean"]
    np.testing.assert_allclose(values["norm.running_mean"], step, rtol=2**-7)


def test_a_small_step_is_not_scaled(bench: Bench) -> None:
    guard = bench.guard(rules=policy(tensors={"clipping_norm": 1000.0}))
    deltas = released(guard.check(bench.request(), head(), bench.answer()))
    after = moved(bench.inbound_tensors)
    np.testing.assert_array_equal(
        deltas["layer.weight"], after["layer.weight"] - bench.inbound_tensors["layer.weight"]
    )


def test_precision_rounds_the_delta_and_narrows_the_file(bench: Bench) -> None:
    guard = bench.guard(rules=policy(tensors={"precision": "bfloat16"}))
    outcome = guard.check(bench.request(), head(), bench.answer())
    assert isinstance(outcome, Release)
    assert all(tensor.dtype == "bfloat16" for tensor in read_layout(bench.out).tensors)


def test_bfloat16_weights_are_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    shapes = [TensorShape("w", "bfloat16", (2,))]
    for path, bits in ((bench.inbound, [0x3F80, 0x4000]), (bench.reply, [0x3F90, 0x4000])):
        with ArraysWriter(path, shapes) as writer:
            writer.write("w", np.array(bits, np.uint16))
            writer.close()
    outcome = bench.guard().check(bench.request(), head(), bench.reply)
    assert isinstance(outcome, Release)
    (entry,) = read_layout(bench.out).entries
    np.testing.assert_array_equal(float32_from_bfloat16(open_tensor(bench.out, entry)), [0.125, 0.0])


def test_a_bool_that_is_neither_true_nor_false_is_withheld(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"w": np.ones(2, np.float32), "mask": np.array([True, False])})
    guard = bench.guard(rules=policy(tensors={"integer_buffers": "release"}))
    deltas = released(
        guard.check(
            bench.request(),
            head(),
            bench.answer({"w": np.ones(2, np.float32), "mask": np.array([False, False])}),
        )
    )
    np.testing.assert_array_equal(deltas["mask"], [-1, 0])
    bench.reply.write_bytes(bench.reply.read_bytes()[:-2] + b"\x07\x00")
    assert codes(guard.check(bench.request(), head(), bench.reply)) == {RefusalCode.RELEASE_TENSOR_RANGE}


def test_minus_zero_leaves_as_zero(bench: Bench) -> None:
    for precision in ("float32", "float16", "bfloat16"):
        after = {name: values.copy() for name, values in bench.inbound_tensors.items()}
        after["layer.bias"] = np.nextafter(after["layer.bias"], np.float32(-100), dtype=np.float32)
        # So small a step rounds to minus zero in float16.
        guard = bench.guard(rules=policy(tensors={"precision": precision, "clipping_norm": 1e-30}))
        outcome = guard.check(bench.request(), head(), bench.answer(after))
        assert isinstance(outcome, Release)
        for entry in read_layout(bench.out).entries:
            items = np.array(open_tensor(bench.out, entry))
            bits = items.view(f"u{items.dtype.itemsize}")
            assert not (bits == 1 << (8 * items.dtype.itemsize - 1)).any()


def test_empty_and_scalar_tensors_pass(tmp_path: Path) -> None:
    inbound = {"none": np.zeros((0, 3), np.float32), "one": np.array(2.0, np.float32)}
    bench = Bench(tmp_path, inbound)
    deltas = released(
        bench.guard().check(
            bench.request(), head(), bench.answer({**inbound, "one": np.array(2.5, np.float32)})
        )
    )
    assert deltas["one"] == 0.5
    assert deltas["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"hidden": np.zeros(1, np.float32)}, RefusalCode.RELEASE_TENSOR_EXTRA),
        ({"layer.bias": None}, RefusalCode.RELEASE_TENSOR_MISSING),
        ({COUNTER: None}, RefusalCode.RELEASE_TENSOR_MISSING),
        ({"layer.bias": np.zeros(5, np.float32)}, RefusalCode.RELEASE_TENSOR_SHAPE),
        ({"layer.bias": np.zeros((4, 1), np.float32)}, RefusalCode.RELEASE_TENSOR_SHAPE),
        ({"layer.bias": np.zeros(4, np.float16)}, RefusalCode.RELEASE_TENSOR_DTYPE),
        ({"layer.bias": np.zeros(4, np.float64)}, RefusalCode.RELEASE_TENSOR_DTYPE),
        ({COUNTER: np.array(1, np.int32)}, RefusalCode.RELEASE_TENSOR_DTYPE),
    ],
)
def test_a_tensor_that_is_not_as_declared_withholds_all(
    bench: Bench, change: dict[str, np.ndarray | None], code: RefusalCode
) -> None:
    after = {
        name: values
        for name, values in {**moved(bench.inbound_tensors), **change}.items()
        if values is not None
    }
    outcome = bench.guard().check(bench.request(), head(), bench.answer(after))
    assert codes(outcome) == {code}
    assert isinstance(outcome, Withheld)
    assert outcome.reasons[0].detail == next(iter(change))
    assert not bench.out.exists()


def test_a_reply_without_arrays_is_withheld(bench: Bench) -> None:
    assert codes(bench.guard().check(bench.request(), head(), None)) == {RefusalCode.RELEASE_TENSOR_MISSING}


def test_without_inbound_weights_nothing_trained_leaves(bench: Bench) -> None:
    unknown = Guard(ReleaseContract.build(manifest(), policy(), None), COUNTS)
    assert codes(unknown.check(bench.request(), head(), bench.answer())) == {
        RefusalCode.RELEASE_NOT_PERMITTED
    }
    request = GuardRequest(ORDER, 1, "train", None, bench.out)
    assert codes(bench.guard().check(request, head(), bench.answer())) == {RefusalCode.RELEASE_NOT_PERMITTED}


def test_other_inbound_weights_than_the_contracts_withhold(bench: Bench, tmp_path: Path) -> None:
    guard = bench.guard()
    save_file({**weights(), "layer.bias": np.zeros(9, np.float32)}, bench.inbound)
    assert codes(guard.check(bench.request(), head(), bench.answer(moved(weights())))) == {
        RefusalCode.STATION_FAULT
    }


def test_a_release_over_the_policys_ceiling_is_withheld_and_removed(bench: Bench) -> None:
    whole = bench.guard().check(bench.request(), head(), bench.answer())
    assert isinstance(whole, Release)
    assert whole.arrays is not None
    # Room for the update, and none for the numbers beside it: found when both are there.
    guard = bench.guard(rules=policy(maximum_bytes=whole.arrays.size))
    bench.out.unlink()
    assert codes(guard.check(bench.request(), head(), bench.answer())) == {RefusalCode.RELEASE_TOO_LARGE}
    assert not bench.out.exists()


def test_an_update_that_can_never_leave_is_found_before_anything_is_trained(bench: Bench) -> None:
    whole = bench.guard().check(bench.request(), head(), bench.answer())
    assert isinstance(whole, Release)
    assert whole.arrays is not None
    for short, found in ((0, []), (1, [RefusalCode.RELEASE_TOO_LARGE])):
        contract = bench.contract(rules=policy(maximum_bytes=whole.arrays.size - short))
        assert [reason.code for reason in contract.problems] == found


def test_the_ceiling_for_reading_follows_the_contract(bench: Bench) -> None:
    contract = bench.contract()
    assert contract.reply_arrays_limit("evaluate") == 0
    assert contract.reply_arrays_limit("train") >= bench.answer().stat().st_size
    huge = {**moved(bench.inbound_tensors), "padding": np.zeros(1 << 22, np.float32)}
    assert codes(bench.guard().check(bench.request(), head(), bench.answer(huge))) == {
        RefusalCode.RELEASE_UNPARSEABLE
    }


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """48 MiB of weights pass through a few chunks (numpy tells tracemalloc what it allocates)."""
    inbound = {name: np.ones((4096, 1024), np.float32) for name in ("a", "b", "c")}
    bench = Bench(tmp_path, inbound)
    bench.answer({name: values * np.float32(1.5) for name, values in inbound.items()})
    guard = bench.guard(rules=policy(tensors={"clipping_norm": 1.0, "precision": "bfloat16"}))
    tracemalloc.start()
    try:
        outcome = guard.check(bench.request(), head(), bench.reply)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Release)
    assert peak < 12 << 20


ONE_TENSOR = """
import resource, sys
from pathlib import Path
from egress_documents import Bench, policy
from station.egress.training.updates import release_update
from policies.wire.arrays import read_layout
import numpy as np

bench = Bench(Path(sys.argv[1]), {"w": np.zeros(4, np.float32)})
for name in ("inbound", "reply"):
    setattr(bench, name, Path(sys.argv[1]) / f"large-{name}")
contract = bench.contract(rules=policy(tensors={"clipping_norm": 1.0}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = release_update(contract, bench.reply, bench.inbound, bench.out)
print(type(made).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_one_large_tensor_takes_no_more_of_the_process_than_many_small_ones(tmp_path: Path) -> None:
    """As the kernel counts it: pages of mapped files too, which tracemalloc does not see."""
    shape = TensorShape("w", "float32", (1 << 24,))
    for name, value in (("inbound", 1.0), ("reply", 1.5)):
        with ArraysWriter(tmp_path / f"large-{name}", [shape]) as writer:
            for _ in range(16):
                writer.write("w", np.full(1 << 20, value, np.float32))
            writer.close()
    tests = Path(__file__).parents[3]
    paths = {"PYTHONPATH": f"{tests}:{tests.parent}"}
    done = subprocess.run(
        [sys.executable, "-c", ONE_TENSOR, str(tmp_path)],
        check=True, capture_output=True, text=True, env={**os.environ, **paths},
    )  # fmt: skip
    kind, grown_kib = done.stdout.split()
    assert kind == "WrittenArrays"
    assert int(grown_kib) < 40 << 10, "of two files of 64 MiB each"


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize("which", ["reply", "inbound"])
def test_a_file_that_shrinks_while_it_is_read_is_a_fault_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, cut: int
) -> None:
    bench = Bench(tmp_path, {"w": np.ones(1 << 20, np.float32)})
    bench.answer({"w": np.zeros(1 << 20, np.float32)})
    whole = pair_tensors

    def shrunk(*given: Any) -> Any:
        found = whole(*given)
        path = bench.reply if which == "reply" else bench.inbound
        os.truncate(path, path.stat().st_size - cut)
        return found

    monkeypatch.setattr("station.egress.training.updates.pair_tensors", shrunk)
    with pytest.raises(StorageError, match="cannot be read any more"):
        bench.guard().check(bench.request(), head(), bench.reply)
    assert {path.name for path in tmp_path.iterdir()} == {"reply.safetensors", "inbound.safetensors"}


def test_twenty_thousand_tensors_scalars_and_empty_ones(tmp_path: Path) -> None:
    inbound = {f"t{number:05}": np.full((number % 3,), number, np.float32) for number in range(20_000)}
    bench = Bench(tmp_path, inbound)
    guard = bench.guard(rules=policy(tensors={"clipping_norm": 1e9}))
    deltas = released(
        guard.check(bench.request(), head(), bench.answer({n: v + 1 for n, v in inbound.items()}))
    )
    assert len(deltas) == 20_000
    assert all((delta == 1).all() for delta in deltas.values())
