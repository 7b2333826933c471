"""Whatever a train answers: a release within the contract, or a named refusal; never a fault."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from egress_documents import COUNTS, METRIC, ORDER, Bench, head, manifest, moved, policy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from policies.documents import canonical_json
from policies.refusals import RefusalCode
from policies.wire.arrays import read_layout
from station.egress.contract import ReleaseContract
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld

TRAIN = manifest(metrics=[METRIC, {**METRIC, "key": "n", "type": "int", "required": False}])
RULES = policy(metrics=["loss", "n"], maximum_bytes=2000)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.sampled_from([0, 10, 11, 10**30, -0.0, 1e308])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
keys = st.sampled_from(["loss", "n", "counts", "extra", "", "type"]) | st.text(max_size=6)
heads = values | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["reply", "reply", "hello"]) | scalars,
        "id": scalars,
        "metrics": st.dictionaries(keys, scalars | values, max_size=3) | values,
        "rows": st.dictionaries(keys, st.lists(scalars, max_size=3) | values, max_size=2) | values,
        "tables": values,
        "error": st.none() | scalars,
        "more": scalars,
    },
)


def assert_within(outcome: Release | Withheld, contract: ReleaseContract) -> None:
    if isinstance(outcome, Withheld):
        assert all(isinstance(reason.code, RefusalCode) for reason in outcome.reasons)
        return
    assert set(outcome.metrics) <= {"loss", "n"}
    for value in outcome.metrics.values():
        assert math.isfinite(value)
        assert 0.0 <= value <= 100.0
        assert round(value, 3) == value
    assert not outcome.tables
    size = outcome.arrays.size if outcome.arrays else 0
    assert (
        size + len(canonical_json({"metrics": dict(outcome.metrics), "tables": dict(outcome.tables)})) <= 2000
    )
    if outcome.arrays:
        layout = read_layout(outcome.arrays.path)
        allowed = {tensor.released for tensor in contract.tensors or ()}
        assert set(layout.tensors) == allowed - {None}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=heads)
def test_any_head(tmp_path: Path, reply: Any) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(TRAIN, RULES)
    assert_within(Guard(contract, COUNTS).check(bench.request(), reply, bench.answer()), contract)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_arrays(tmp_path: Path, data: st.DataObject) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(TRAIN, RULES)
    content = bytearray(save(moved(bench.inbound_tensors)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    bench.reply.write_bytes(bytes(content))
    reply = head(metrics={"loss": 1.0})
    assert_within(Guard(contract, COUNTS).check(bench.request(), reply, bench.reply), contract)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    inbound=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    reply=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    norm=st.none() | st.floats(1e-6, 1e6),
)
@example(inbound=[0, 0, 0], reply=[0, 0, 2_126_029_814], precision="float32", norm=0.125)
def test_any_bits_as_weights(
    tmp_path: Path, inbound: list[int], reply: list[int], precision: str, norm: float | None
) -> None:
    bench = Bench(tmp_path, {"w": np.array(inbound, np.uint32).view(np.float32)})
    rules = policy(tensors={"precision": precision, "clipping_norm": norm, "maximum_absolute": 1e39})
    contract = bench.contract(rules=rules)
    answer = bench.answer({"w": np.array(reply, np.uint32).view(np.float32)})
    outcome = Guard(contract, COUNTS).check(bench.request(), head(), answer)
    if isinstance(outcome, Withheld):
        assert outcome.code in {RefusalCode.RELEASE_TENSOR_NOT_FINITE, RefusalCode.RELEASE_TENSOR_RANGE}
        return
    data = bench.out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    bits = data[8 + length :]
    if precision == "bfloat16":
        values_ = np.frombuffer(
            b"".join(b"\0\0" + bits[i : i + 2] for i in range(0, len(bits), 2)), np.float32
        )
    else:
        values_ = np.frombuffer(bits, np.dtype(precision))
    wide = values_.astype(np.float64)
    assert np.isfinite(wide).all()
    assert not (np.signbit(wide) & (wide == 0)).any()
    if norm is not None:
        assert math.sqrt(float((wide * wide).sum())) <= norm


@given(st.binary(max_size=200))
def test_a_request_without_arrays_never_faults(junk: bytes) -> None:
    contract = ReleaseContract.build(TRAIN, RULES, None)
    try:
        reply = json.loads(junk)
    except ValueError:
        reply = junk
    request = GuardRequest(ORDER, 1, "train", None, Path("/nonexistent/out"))
    assert isinstance(Guard(contract, COUNTS).check(request, reply, None), Withheld)
