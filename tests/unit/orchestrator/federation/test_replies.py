"""Replies judged one by one: each way to break the contract has its code."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation_samples import DIGEST, manifest
from map_documents import SHARES, map_manifest
from safetensors.numpy import save, save_file

from orchestrator.federation.replies import Accepted, Rejected, check_reply
from orchestrator.federation.strategies.tables import Table, pool_tables, summed_tables
from orchestrator.federation.updates_check import check_release
from policies.documents import digest_of
from policies.manifest import TrainManifest
from policies.policy import ReleaseRules, TensorRules
from policies.rows import HIDDEN
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from policies.wire.releases import release_tensors

WEIGHTS = {"w": np.ones((2, 3), dtype=np.float32), "norm.count": np.array([3, 250], dtype=np.uint8)}
RULES = ReleaseRules(
    tensors=TensorRules(),
    metrics=("loss", "auc"),
    tables=("lung_shares", "nodules_by_sex", "ends", "nodules_sum", "share_quantiles"),
    maximum_bytes=10_000,
)
DELTA = {"w": np.zeros((2, 3), dtype=np.float32), "norm.count": np.array([1, 2], dtype=np.int64)}


def _asked(kind: Kind) -> Instruction:
    weights = Blob(digest=DIGEST, size=1)
    return Instruction(kind=kind, order_digest=DIGEST, round=1, weights=weights, deadline_s=1)


def _reply(kind: Kind, **changes: object) -> StationReply:
    fields: dict[str, object] = {
        "order_digest": DIGEST,
        "kind": kind,
        "round": 1,
        "status": Status.RELEASED,
        "num_examples": 10,
        "release": Blob(digest=DIGEST, size=1) if kind is Kind.TRAIN else None,
    }
    return StationReply(**(fields | changes))


def test_a_reply_within_the_contract_is_accepted() -> None:
    train = _reply(Kind.TRAIN, metrics={"loss": 1.0})
    assert check_reply(train, _asked(Kind.TRAIN), manifest(), RULES) == Accepted()
    evaluate = _reply(Kind.EVALUATE, metrics={"auc": 0.5})
    assert check_reply(evaluate, _asked(Kind.EVALUATE), manifest(), RULES) == Accepted()


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        (Kind.TRAIN, {"round": 2}, "REPLY_OF_ANOTHER_MESSAGE"),
        (Kind.TRAIN, {"order_digest": "sha256:" + "b" * 64}, "REPLY_OF_ANOTHER_MESSAGE"),
        (Kind.TRAIN, {"num_examples": 0}, "REPLY_WITHOUT_EXAMPLES"),
        (Kind.TRAIN, {"release": None}, "RELEASE_NOT_PERMITTED"),
        (Kind.EVALUATE, {"release": Blob(digest=DIGEST, size=1)}, "RELEASE_NOT_PERMITTED"),
        (Kind.TRAIN, {"metrics": {"auc": 0.5}}, "RELEASE_METRIC_EXTRA"),
        (Kind.TRAIN, {"metrics": {"loss": 101.0}}, "RELEASE_METRIC_RANGE"),
        (Kind.EVALUATE, {"tables": {"names": [[1, 2]]}}, "RELEASE_TABLE_EXTRA"),
    ],
)
def test_a_reply_outside_the_contract_is_rejected(kind: Kind, changes: dict[str, object], code: str) -> None:
    assert check_reply(_reply(kind, **changes), _asked(kind), manifest(), RULES) == Rejected(code)


def _judge(folder: Path, data: bytes, *, claimed: Blob | None = None, **rules: str) -> object:
    save_file(WEIGHTS, folder / "inbound")
    (folder / "release").write_bytes(data)
    outputs = manifest().outputs.tensors
    assert outputs is not None
    tensors = TensorRules(**({"integer_buffers": "release"} | rules))
    expected = release_tensors(outputs, tensors, read_layout(folder / "inbound").tensors)
    release = claimed or Blob(digest=digest_of(data), size=len(data))
    allowed = RULES.model_copy(update={"tensors": tensors})
    return check_release(release, folder / "release", folder / "inbound", expected, allowed)


def test_a_release_of_the_declared_tensors_is_accepted(tmp_path: Path) -> None:
    assert _judge(tmp_path, save(DELTA)) == Accepted()
    half = {"w": np.zeros((2, 3), dtype=np.float16)}
    assert _judge(tmp_path, save(half), precision="float16", integer_buffers="withhold") == Accepted()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"extra": np.zeros(1, dtype=np.float32)}, "RELEASE_TENSOR_EXTRA"),
        ({"w": None}, "RELEASE_TENSOR_MISSING"),
        ({"w": np.zeros((3, 2), dtype=np.float32)}, "RELEASE_TENSOR_SHAPE"),
        ({"w": np.zeros((2, 3), dtype=np.float64)}, "RELEASE_TENSOR_DTYPE"),
        ({"norm.count": np.zeros(2, dtype=np.uint8)}, "RELEASE_TENSOR_DTYPE"),
        ({"w": np.full((2, 3), np.nan, dtype=np.float32)}, "RELEASE_TENSOR_NOT_FINITE"),
        ({"w": np.full((2, 3), np.inf, dtype=np.float32)}, "RELEASE_TENSOR_NOT_FINITE"),
        ({"norm.count": np.array([0, 6])}, "RELEASE_TENSOR_RANGE"),
        ({"norm.count": np.array([-4, 0])}, "RELEASE_TENSOR_RANGE"),
        ({"norm.count": np.array([2**63 - 1, 0])}, "RELEASE_TENSOR_RANGE"),
    ],
)
def test_a_release_of_other_tensors_is_rejected(
    tmp_path: Path, change: dict[str, np.ndarray | None], code: str
) -> None:
    arrays = {name: value for name, value in (DELTA | change).items() if value is not None}
    assert _judge(tmp_path, save(arrays)) == Rejected(code)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\xff" * 64, save(DELTA)[:-1], save(DELTA) + b"\0"])
def test_bytes_that_are_no_arrays_are_rejected(tmp_path: Path, data: bytes) -> None:
    assert _judge(tmp_path, data) == Rejected("RELEASE_UNPARSEABLE")


def test_a_release_is_what_its_digest_says(tmp_path: Path) -> None:
    data = save(DELTA)
    assert _judge(tmp_path, data, claimed=Blob(digest=DIGEST, size=len(data))) == Rejected("RELEASE_DIGEST")
    assert _judge(tmp_path, data, claimed=Blob(digest=digest_of(data), size=1)) == Rejected("RELEASE_DIGEST")


ALL_MEASURES = [
    SHARES,
    {"key": "nodules_sum", "column": "nodules", "measure": "sum", "by": "sex", "decimals": 1, "split": "training"},
    {"key": "share_quantiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
     "probabilities": [0.25, 0.5, 0.75], "split": "training"},
]  # fmt: skip
MEASURED = map_manifest(aggregates=ALL_MEASURES)
SUMS: list[list[float | int]] = [[20, 31.5, 99.0], [12, 0.0, 0.0], [HIDDEN, 0.0, 0.0]]
QUANTILES: list[list[float | int]] = [[0.0, 0.25], [0.25, 0.5], [0.25, 0.5]]


def sum_tables(tables: list[dict[str, Table]], manifest: TrainManifest) -> dict[str, Table]:
    named = {f"station-{number}": each for number, each in enumerate(tables)}
    return summed_tables(pool_tables(named, manifest, ReleaseRules(maximum_bytes=1)), manifest)


def test_counts_and_sums_add_up_and_quantiles_do_not() -> None:
    first = {"lung_shares": [[10], [0], [0], [HIDDEN]], "nodules_sum": SUMS, "share_quantiles": QUANTILES}
    second = {
        "lung_shares": [[5], [7], [HIDDEN], [30]],
        "nodules_sum": [[10, 0.1, 1.0], [HIDDEN, 0.0, 0.0], [11, 1.0, 1.0]],
        "share_quantiles": QUANTILES,
    }
    assert sum_tables([first, second], MEASURED) == {
        "lung_shares": [[15], [7], [HIDDEN], [HIDDEN]],
        "nodules_sum": [[30, 31.6, 100.0], [HIDDEN, 0.0, 0.0], [HIDDEN, 0.0, 0.0]],
    }
    assert sum_tables([first, {"nodules_sum": SUMS}], MEASURED).keys() == {"nodules_sum"}
    assert sum_tables([first, {"lung_shares": [[1]]}], MEASURED) == {}
    assert sum_tables([], MEASURED) == {}


def test_means_and_variances_over_stations_follow_exactly() -> None:
    ages = [[float(age) for age in range(40, 70)], [float(age) for age in range(55, 90)]]
    tables: list[dict[str, list[list[float | int]]]] = [
        {
            "nodules_sum": [
                [len(each), sum(each), sum(age * age for age in each)],
                [0, 0.0, 0.0],
                [0, 0.0, 0.0],
            ]
        }
        for each in ages
    ]
    patients, total, squares = sum_tables(tables, MEASURED)["nodules_sum"][0]
    assert total / patients == statistics.fmean([*ages[0], *ages[1]])
    assert (squares - total * total / patients) / patients == pytest.approx(
        statistics.pvariance([*ages[0], *ages[1]]), rel=1e-12
    )


HOSTILE: list[dict[str, Any]] = [
    {"nodules_sum": [[20, 31.5, 99.0]]},
    {"nodules_sum": [[20, 31.5], [12, 0.0], [1, 0.0]]},
    {"nodules_sum": [[20.5, 31.5, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[-2, 0.0, 0.0], *SUMS[1:]]},
    {"nodules_sum": [[20, 31.55, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[20, 1e9, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[20, -1.0, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[20, 31.5, -0.1], *SUMS[1:]]},
    {"nodules_sum": [[20, 10**400, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[10**9, 31.5, 99.0], *SUMS[1:]]},
    # What is hidden tells nothing beside it.
    {"nodules_sum": [[HIDDEN, 31.5, 99.0], *SUMS[1:]]},
    {"nodules_sum": [[HIDDEN, 0.0, 1.0], *SUMS[1:]]},
    {"share_quantiles": [[0.0, 0.3], *QUANTILES[1:]]},
    {"share_quantiles": [[0.25, 0.25], *QUANTILES[1:]]},
    {"share_quantiles": [[0.5, 0.25], *QUANTILES[1:]]},
    {"share_quantiles": [[0.5, 1.0], *QUANTILES[1:]]},
    {"share_quantiles": [[HIDDEN, HIDDEN], *QUANTILES[1:]]},
    {"share_quantiles": QUANTILES[:2]},
    {"lung_shares": [[10**7], [0], [0], [0]]},
    {"lung_shares": [[1.0], [0], [0], [0]]},
]


@pytest.mark.parametrize("tables", HOSTILE)
def test_a_table_that_no_guard_makes_is_rejected(tables: dict[str, Any]) -> None:
    asked = Instruction(kind=Kind.ANALYSE, order_digest=DIGEST, round=1, deadline_s=1)
    good = {"lung_shares": [[12], [HIDDEN], [HIDDEN], [0]], "nodules_sum": SUMS, "share_quantiles": QUANTILES}
    assert check_reply(_analysed(tables=good), asked, MEASURED, RULES) == Accepted()
    reply = _analysed().model_copy(update={"tables": {**good, **tables}})
    assert check_reply(reply, asked, MEASURED, RULES) == Rejected("RELEASE_TABLE_SHAPE")


def _analysed(**changes: object) -> StationReply:
    return _reply(Kind.ANALYSE, release=None, **changes)


def test_a_map_trains_tables_have_the_shapes_that_its_manifest_says() -> None:
    asked = Instruction(kind=Kind.ANALYSE, order_digest=DIGEST, round=1, deadline_s=1)
    shares, by_sex, ends = [[12], [-1], [-1], [0]], [[10, 10, -1]] * 3, [[20]] + [[0]] * 6
    whole = {"lung_shares": shares, "nodules_by_sex": by_sex, "ends": ends}
    assert check_reply(_analysed(tables=whole), asked, map_manifest(), RULES) == Accepted()
    assert check_reply(_analysed(tables={"lung_shares": shares}), asked, map_manifest(), RULES) == Accepted()
    for wrong, code in (
        ({"names": shares}, "RELEASE_TABLE_EXTRA"),
        ({"lung_shares": shares[:3]}, "RELEASE_TABLE_SHAPE"),
        ({"nodules_by_sex": shares}, "RELEASE_TABLE_SHAPE"),
        ({"lung_shares": [[12], [-2], [0], [0]]}, "RELEASE_TABLE_SHAPE"),
        ({"lung_shares": [[12], [0.5], [0], [0]]}, "RELEASE_TABLE_SHAPE"),
    ):
        assert check_reply(_analysed(tables=wrong), asked, map_manifest(), RULES) == Rejected(code)
