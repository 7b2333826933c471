"""Whatever a train answers: a release within the contract, or a named refusal; never a fault, and never without a charge."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from egress_documents import COUNTS, METRIC, ORDER, Bench, head, manifest, moved, policy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from map_documents import map_manifest
from roster_kit import roster
from safetensors.numpy import load, save

from policies.documents import canonical_json
from policies.privacy import Query
from policies.refusals import Reason, RefusalCode, Refused
from policies.rows import HIDDEN
from policies.splits import Split
from policies.wire.arrays import TensorShape, open_tensor, raw_dtype, read_layout
from policies.wire.arrays_writing import canonical_layout
from policies.wire.floats import as_float
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld


def examples(least: int) -> settings:
    """So many examples, or more where the profile asks for more."""
    return settings(
        deadline=None,
        max_examples=max(least, settings().max_examples),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


METRICS = [METRIC, {**METRIC, "key": "n", "type": "int", "required": False, "minimum": -3.0}]
TRAIN = manifest(metrics=METRICS)
RULES = policy(metrics=["loss", "n"], maximum_bytes=2000)
NOISE = {
    "differential_privacy": {"noise_multiplier": 1.0, "epsilon": 1000.0, "delta": 1e-6},
    "timing_quantum_s": 1.0,
    "tensors": {"clipping_norm": 1.0, "float_buffers": "withhold"},
}

ROWS = {
    "columns": [
        {"name": "age", "type": "int", "minimum": 0, "maximum": 100},
        {"name": "share", "type": "float", "minimum": -1.0, "maximum": 1.0, "missing": True},
        {"name": "sex", "type": "category", "categories": ["F", "M"]},
    ]
}
FEW: dict[str, Any] = {"split": "training", "minimum_cell_count": 5}
AGGREGATES = [
    {"key": "ages", "column": "age", "edges": [30, 60], "by": "sex", **FEW},
    {"key": "sexes", "column": "sex", **FEW},
    {"key": "shares", "column": "share", "measure": "sum", "decimals": 2, "by": "sex", **FEW},
    {"key": "median", "column": "age", "edges": [30, 60], "measure": "quantiles", "probabilities": [0.25, 0.5], **FEW},
    {"key": "ends", "column": "outcome", **FEW},
]  # fmt: skip
COUNTING = manifest("analysis", metrics=[{**METRIC, "stage": "analyse"}], rows=ROWS, aggregates=AGGREGATES)
TOLD = [item["key"] for item in AGGREGATES if item["key"] != "sexes"]
PATIENTS = 30
ROSTER = roster(training=PATIENTS)
FEW_COUNTS = CohortCounts({Split.TRAINING: SplitCounts(PATIENTS, 2 * PATIENTS)})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from([0, 10, 11, 10**30, -0.0, -0.0004, 1e308])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
keys = st.sampled_from(["loss", "n", "ages", "extra", "", "type", "age", "sex"]) | st.text(max_size=6)
metrics_said = st.dictionaries(keys, scalars | values, max_size=3) | values
strange_heads = values | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["reply", "reply", "hello"]) | scalars,
        "id": scalars,
        "metrics": metrics_said,
        "rows": st.dictionaries(keys, st.lists(scalars, max_size=3) | values, max_size=2) | values,
        "tables": values,
        "error": st.none() | scalars,
        "more": scalars,
    },
)
numbers = st.floats(0, 100) | st.integers(0, 100) | st.sampled_from([0.0005, 1e-9, -0.0])
near_heads = st.fixed_dictionaries(
    {
        "type": st.just("reply"),
        "metrics": st.fixed_dictionaries({"loss": numbers}, optional={"n": numbers | scalars}),
    },
    optional={"id": scalars, "rows": st.just({}), "error": st.none()},
)
heads = near_heads | near_heads | strange_heads


def column(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A column of rows: right, or with one value of something else, or of another length, or nothing like it."""
    lists = st.lists(good, min_size=PATIENTS, max_size=PATIENTS)
    spoilt = st.tuples(lists, st.integers(0, PATIENTS - 1), scalars).map(
        lambda drawn: [*drawn[0][: drawn[1]], drawn[2], *drawn[0][drawn[1] + 1 :]]
    )
    return st.integers(0, 9).flatmap(
        lambda kind: (
            lists if kind < 7 else spoilt if kind < 9 else st.lists(good | scalars, max_size=4) | values
        )
    )


columns = {
    "age": column(st.integers(0, 100) | st.sampled_from([10, 40, 70])),
    "share": column(st.none() | st.floats(-1.0, 1.0) | st.sampled_from([-0.0, 0.1])),
    "sex": column(st.sampled_from(["F", "M"])),
}
near_rows = st.fixed_dictionaries(columns)
rows_said = (
    near_rows
    | near_rows
    | st.fixed_dictionaries(columns, optional={"outcome": values, "extra": values})
    | values
)


def assert_refused_by_name(outcome: Withheld) -> None:
    assert all(isinstance(reason.code, RefusalCode) for reason in outcome.reasons)
    assert all(len(reason.detail) < 600 for reason in outcome.reasons)


def assert_metrics(said: Mapping[str, float], declared: Mapping[str, tuple[float, float]]) -> None:
    assert set(said) <= set(declared)
    for key, value in said.items():
        low, high = declared[key]
        assert math.isfinite(value)
        assert low <= value <= high
        assert round(value, 3) == value
        assert math.copysign(1.0, value) == 1.0 or value < 0, "no minus zero"


def assert_arrays(outcome: Release, contract: ReleaseContract) -> None:
    """The file holds the contract's tensors and no bit beside them, in the one form in which they can be written."""
    assert outcome.arrays is not None
    path = outcome.arrays.path
    layout = read_layout(path)
    expected = [item.released for item in contract.tensors or () if item.released is not None]
    assert layout == canonical_layout(expected)
    assert outcome.arrays.size == path.stat().st_size == layout.file_bytes
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    assert b"__metadata__" not in header
    assert list(json.loads(header)) == [tensor.name for tensor in layout.tensors]
    rules = contract.tensor_rules
    assert rules is not None
    squares = 0.0
    roles = {item.reply.name: item.role for item in contract.tensors or ()}
    for entry in layout.entries:
        items = open_tensor(path, entry)
        if entry.tensor.dtype == "int64":
            assert bool((np.abs(items.astype(np.float64)) <= rules.maximum_absolute).all())
            continue
        wide = as_float(items, entry.tensor.dtype).astype(np.float64)
        assert bool(np.isfinite(wide).all())
        assert not bool((np.signbit(wide) & (wide == 0)).any())
        squares += float((wide * wide).sum()) if roles[entry.name] == "parameter" else 0.0
    if rules.clipping_norm is not None and contract.privacy is None:
        assert math.sqrt(squares) <= rules.clipping_norm


def assert_within(outcome: Release | Withheld, contract: ReleaseContract, out: Path) -> None:
    if isinstance(outcome, Withheld):
        assert_refused_by_name(outcome)
        assert not out.exists(), "nothing of what is withheld is left"
        return
    assert_metrics(outcome.metrics, {"loss": (0.0, 100.0), "n": (-3.0, 100.0)})
    assert not outcome.tables
    size = outcome.arrays.size if outcome.arrays else 0
    figures = canonical_json({"metrics": dict(outcome.metrics), "tables": dict(outcome.tables)})
    assert size + len(figures) <= contract.maximum_bytes
    assert outcome.capacity_bits == contract.capacity_bits[outcome.stage] > 0
    assert_arrays(outcome, contract)


@examples(300)
@given(reply=heads)
def test_any_head(tmp_path: Path, reply: Any) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(TRAIN, RULES)
    bench.out.unlink(missing_ok=True)
    assert_within(Guard(contract, COUNTS).check(bench.request(), reply, bench.answer()), contract, bench.out)


def spoilt(draw: st.DrawFn, content: bytes, start: int) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 6))):
        changed[draw(st.integers(start, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@st.composite
def files(draw: st.DrawFn, good: bytes) -> bytes:
    """Any bytes at all; a good file with some bytes changed, cut off or added to; a header of any JSON."""
    length = int.from_bytes(good[:8], "little")
    match draw(
        st.sampled_from(["bytes", "anywhere", "numbers", "numbers", "numbers", "cut", "more", "header"])
    ):
        case "bytes":
            return draw(st.binary(max_size=200))
        case "anywhere":
            return spoilt(draw, good, 0)
        case "numbers":
            return spoilt(draw, good, 8 + length)
        case "cut":
            return spoilt(draw, good, 0)[: draw(st.integers(0, len(good)))]
        case "more":
            return good + draw(st.binary(min_size=1, max_size=9))
    known = json.loads(good[8 : 8 + length])
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=2)):
        known[name] = draw(values.filter(lambda item: not isinstance(item, bytes))) or known[name]
    encoded = json.dumps(known, default=str, indent=draw(st.none() | st.integers(0, 2))).encode()
    return len(encoded).to_bytes(8, "little") + encoded + good[8 + length :]


rule_sets = st.fixed_dictionaries(
    {
        "precision": st.sampled_from(["float32", "bfloat16", "float16"]),
        "clipping_norm": st.none() | st.sampled_from([1e-6, 0.01, 1.0, 1e6]),
        "maximum_absolute": st.sampled_from([1e-3, 1.0, 1e6, 1e300]),
        "float_buffers": st.sampled_from(["release", "withhold"]),
        "integer_buffers": st.sampled_from(["release", "withhold"]),
    }
)


@examples(300)
@given(data=st.data(), rules=rule_sets)
def test_any_arrays_under_any_rules(tmp_path: Path, data: st.DataObject, rules: dict[str, Any]) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(TRAIN, policy(metrics=["loss"], tensors=rules))
    bench.out.unlink(missing_ok=True)
    bench.reply.write_bytes(data.draw(files(save(moved(bench.inbound_tensors)))))
    outcome = Guard(contract, COUNTS).check(bench.request(), head(), bench.reply)
    assert_within(outcome, contract, bench.out)


@examples(200)
@given(
    inbound=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    reply=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    rules=rule_sets,
    dtype=st.sampled_from(["float64", "float32", "bfloat16", "float16", "int64", "int8", "uint8", "bool"]),
)
@example(
    inbound=[0, 0, 0],
    reply=[0, 0, 2_126_029_814],
    rules={"precision": "float32", "clipping_norm": 0.125, "maximum_absolute": 1e39},
    dtype="float32",
)
def test_any_bits_as_weights_of_any_type(
    tmp_path: Path, inbound: list[int], reply: list[int], rules: dict[str, Any], dtype: Any
) -> None:
    """Whatever the bits mean as numbers of a type: no NaN, no infinity, no minus zero, no wrapped difference, no norm too large."""
    bench = Bench(tmp_path)
    items = 12 // raw_dtype(dtype).itemsize
    shape = TensorShape("w", dtype, (items,))
    layout = canonical_layout([shape])
    encoded = json.dumps(
        {"w": {"dtype": _CODES[dtype], "shape": [items], "data_offsets": [0, shape.nbytes]}},
        separators=(",", ":"),
    ).encode()
    encoded += b" " * (-len(encoded) % 8)
    for path, bits in ((bench.inbound, inbound), (bench.reply, reply)):
        content = np.array(bits, np.uint32).tobytes()[: shape.nbytes]
        path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)
    assert read_layout(bench.reply) == layout
    contract = bench.contract(rules=policy(tensors=rules))
    bench.out.unlink(missing_ok=True)
    outcome = Guard(contract, COUNTS).check(bench.request(), head(), bench.reply)
    if isinstance(outcome, Withheld):
        assert outcome.code in {RefusalCode.RELEASE_TENSOR_NOT_FINITE, RefusalCode.RELEASE_TENSOR_RANGE}
    assert_within(outcome, contract, bench.out)
    if isinstance(outcome, Release) and dtype in {"int64", "int8", "uint8"} and contract.tensors:
        _assert_exact_differences(bench, contract, raw_dtype(dtype))


_CODES = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64", "int8": "I8", "uint8": "U8",
    "bool": "BOOL",
}  # fmt: skip


def _assert_exact_differences(bench: Bench, contract: ReleaseContract, raw: np.dtype[Any]) -> None:
    if contract.tensors is None or contract.tensors[0].released is None:
        return
    before, after = (
        np.array(open_tensor(p, read_layout(p).entries[0]), raw) for p in (bench.inbound, bench.reply)
    )
    exact = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    assert load(bench.out.read_bytes())["w"].tolist() == exact


def charging(charged: list[tuple[Query, ...]], refuse: bool) -> Any:
    def charge(queries: tuple[Query, ...]) -> Refused | None:
        if refuse:
            return Refused((Reason(RefusalCode.BUDGET_PRIVACY),))
        charged.append(queries)
        return None

    return charge


def assert_charged(
    outcome: Release | Withheld, contract: ReleaseContract, charged: list[tuple[Query, ...]], refuse: bool
) -> None:
    if isinstance(outcome, Release):
        assert not refuse
        assert charged == [contract.queries[outcome.stage]], "every query, once"
    elif refuse:
        assert not charged


@examples(150)
@given(data=st.data(), reply=st.just(head()) | heads, refuse=st.booleans())
def test_with_noise_nothing_leaves_that_was_not_charged(
    tmp_path: Path, data: st.DataObject, reply: Any, refuse: bool
) -> None:
    bench = Bench(tmp_path)
    contract = bench.contract(TRAIN, policy(metrics=["loss", "n"], **NOISE))
    assert contract.privacy is not None
    assert not contract.problems
    bench.out.unlink(missing_ok=True)
    bench.reply.write_bytes(data.draw(files(save(moved(bench.inbound_tensors)))))
    charged: list[tuple[Query, ...]] = []
    guard = Guard(contract, COUNTS, charge=charging(charged, refuse))
    outcome = guard.check(bench.request(), reply, bench.reply)
    assert_within(outcome, contract, bench.out)
    assert_charged(outcome, contract, charged, refuse)


def assert_tables(outcome: Release, noisy: bool) -> None:
    assert set(outcome.tables) <= set(TOLD)
    shapes = {
        "ages": (3, 2),
        "shares": (2, 3),
        "median": (2, 2),
        "ends": (len(outcome.tables.get("ends", ())), 1),
    }
    for key, table in outcome.tables.items():
        lines, columns = shapes[key]
        assert len(table) == lines
        assert all(len(line) == columns for line in table)
        cells = [cell for line in table for cell in line]
        assert all(math.isfinite(cell) for cell in cells)
        assert all(math.copysign(1.0, cell) == 1.0 or cell < 0 for cell in cells), "no minus zero"
        if key == "median":
            assert set(cells) <= {0.0, 30.0, 60.0, 100.0}
            continue
        counts = [line[0] for line in table] if key == "shares" else cells
        assert all(type(count) is int for count in counts)
        if noisy:
            assert all(count >= 0 for count in counts)
            continue
        assert all(count in (HIDDEN, 0) or 5 <= count <= PATIENTS for count in counts)
        if key == "shares":
            for count, total, squares in table:
                assert (abs(total) <= count) if count != HIDDEN else (total, squares) == (0, 0)
                assert 0 <= squares <= max(count, 0)
                assert (round(total, 2), round(squares, 2)) == (total, squares)


def counting_rules(**rules: Any) -> Any:
    return policy(
        "analysis", metrics=["loss"], tables=TOLD, minimum_cell_count=5, trust_statement=None,
        data={"minimum_patients": 1}, **rules,
    )  # fmt: skip


COUNTING_REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))


@examples(150)
@given(rows=rows_said, metrics=st.just({"loss": 1.0}) | metrics_said)
def test_any_rows(rows: Any, metrics: Any) -> None:
    """Counts, crosstabs, sums, quantiles and how it ended, of whatever a train calls rows."""
    contract = ReleaseContract.build(COUNTING, counting_rules(), None)
    assert not contract.problems
    guard = Guard(contract, FEW_COUNTS, ROSTER)
    said = {"type": "reply", "metrics": metrics, "rows": rows}
    outcome = guard.check(COUNTING_REQUEST, said, None)
    if isinstance(outcome, Withheld):
        assert_refused_by_name(outcome)
        return
    assert outcome.arrays is None
    assert_metrics(outcome.metrics, {"loss": (0.0, 100.0)})
    assert_tables(outcome, noisy=False)
    assert outcome.capacity_bits == contract.capacity_bits["analyse"]


one_row = st.fixed_dictionaries(
    {
        "age": st.integers(0, 100),
        "share": st.none() | st.floats(-1.0, 1.0),
        "sex": st.sampled_from(["F", "M"]),
    },
    optional={"outcome": values},
)


@examples(100)
@given(
    answers=st.lists(one_row | one_row | values, max_size=PATIENTS), noisy=st.booleans(), refuse=st.booleans()
)
def test_any_answers_of_one_patient_each(answers: list[Any], noisy: bool, refuse: bool) -> None:
    train = map_manifest(rows=ROWS, aggregates=AGGREGATES)
    noise = {key: value for key, value in NOISE.items() if key != "tensors"} if noisy else {}
    contract = ReleaseContract.build(train, counting_rules(**noise), None)
    assert not contract.problems
    tally = Tally(train, ROSTER)
    for patient, answer in zip(ROSTER.patients, answers, strict=False):
        tally.answered(patient, answer)
    charged: list[tuple[Query, ...]] = []
    outcome = Guard(contract, FEW_COUNTS, ROSTER, charging(charged, refuse)).count(COUNTING_REQUEST, tally)
    if isinstance(outcome, Withheld):
        assert_refused_by_name(outcome)
    else:
        assert_tables(outcome, noisy)
    if noisy:
        assert_charged(outcome, contract, charged, refuse)
    else:
        assert not charged


@given(st.binary(max_size=200))
def test_a_request_without_arrays_never_faults(junk: bytes) -> None:
    contract = ReleaseContract.build(TRAIN, RULES, None)
    try:
        reply = json.loads(junk)
    except ValueError:
        reply = junk
    request = GuardRequest(ORDER, 1, "train", None, Path("/nonexistent/out"))
    assert isinstance(Guard(contract, COUNTS).check(request, reply, None), Withheld)
