"""The orchestrator's own check of what stations send, against the same contract their guards hold trains to.

A station is another organisation: its reply may be wrong or hostile, and one bad reply must not spoil a round. Each
is judged by itself before a strategy sees any of them; what fails is left out with a code.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.documents import digest_of_file
from policies.errors import WireError
from policies.manifest import TrainManifest
from policies.refusals import RefusalCode
from policies.rows import HIDDEN
from policies.wire.arrays import (
    FLOAT_DTYPES,
    ArrayLimits,
    TensorEntry,
    chunks_of,
    open_tensor,
    raw_dtype,
    read_layout,
)
from policies.wire.floats import as_float
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from policies.wire.releases import ReleaseTensor


@dataclass(frozen=True, slots=True)
class Accepted:
    """The reply keeps the contract."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The reply does not.

    Attributes:
        code: why, as the run's page shows it.
    """

    code: str


Verdict = Accepted | Rejected


def check_reply(reply: StationReply, instruction: Instruction, manifest: TrainManifest) -> Verdict:
    """Judge a reply's address, metrics, tables and example count; its arrays are `check_release`'s matter."""
    asked = (instruction.order_digest, instruction.kind, instruction.round)
    if (reply.order_digest, reply.kind, reply.round) != asked:
        return Rejected("REPLY_OF_ANOTHER_MESSAGE")
    if reply.status is not Status.RELEASED:
        return Accepted()
    stage = instruction.kind.value
    if reply.num_examples <= 0:
        return Rejected("REPLY_WITHOUT_EXAMPLES")
    if (reply.release is not None) != (stage == "train" and manifest.outputs.tensors is not None):
        return Rejected(RefusalCode.RELEASE_NOT_PERMITTED)
    declared = {metric.key: metric for metric in manifest.outputs.metrics if metric.stage == stage}
    for key, value in reply.metrics.items():
        if key not in declared:
            return Rejected(RefusalCode.RELEASE_METRIC_EXTRA)
        if not declared[key].minimum <= value <= declared[key].maximum:
            return Rejected(RefusalCode.RELEASE_METRIC_RANGE)
    return _check_tables(reply, _shapes(manifest, stage))


def check_release(release: Blob, path: Path, inbound: Path, expected: tuple[ReleaseTensor, ...]) -> Verdict:
    """Judge a release's bytes: digest, names, shapes, types, finite; whole numbers stay in their tensor's range.

    Args:
        release: what the reply says it is.
        path: the bytes.
        inbound: the weights that the delta starts from.
        expected: from `policies.wire.releases.release_tensors`, which the station's guard uses too.
    """
    if path.stat().st_size != release.size or digest_of_file(path) != release.digest:
        return Rejected("RELEASE_DIGEST")
    try:
        found = read_layout(path, ArrayLimits(max_bytes=release.size)).by_name()
    except WireError:
        return Rejected(RefusalCode.RELEASE_UNPARSEABLE)
    wanted = {tensor.reply.name: tensor.released for tensor in expected if tensor.released is not None}
    if found.keys() - wanted.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_EXTRA)
    if wanted.keys() - found.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_MISSING)
    if any(found[name].tensor.shape != tensor.shape for name, tensor in wanted.items()):
        return Rejected(RefusalCode.RELEASE_TENSOR_SHAPE)
    if any(found[name].tensor.dtype != tensor.dtype for name, tensor in wanted.items()):
        return Rejected(RefusalCode.RELEASE_TENSOR_DTYPE)
    weights = read_layout(inbound).by_name()
    for name, entry in found.items():
        if entry.tensor.dtype in FLOAT_DTYPES:
            if not _is_finite((path, entry)):
                return Rejected(RefusalCode.RELEASE_TENSOR_NOT_FINITE)
        elif not _stays_in_range((path, entry), (inbound, weights[name])):
            return Rejected(RefusalCode.RELEASE_TENSOR_RANGE)
    return Accepted()


def sum_tables(tables: list[dict[str, list[list[float | int]]]]) -> dict[str, list[list[float | int]]]:
    """Add up the tables that every station released in the same shape; the others are left out.

    A cell that one station hides is hidden in the sum: what the others have of it is no number of patients of all.
    """
    if not tables:
        return {}
    merged: dict[str, list[list[float | int]]] = {}
    for key in sorted(set.intersection(*(set(table) for table in tables))):
        rows = [table[key] for table in tables]
        shapes = {tuple(len(row) for row in table) for table in rows}
        if len(shapes) == 1:
            merged[key] = [
                [HIDDEN if HIDDEN in cells else sum(cells) for cells in zip(*lines, strict=True)]
                for lines in zip(*rows, strict=True)
            ]
    return merged


def _shapes(manifest: TrainManifest, stage: str) -> dict[str, tuple[int, int]]:
    """Return lines and columns of every table that a stage may release; a map train's are made by the station."""
    shapes = {
        table.key: (table.rows, len(table.columns))
        for table in manifest.outputs.tables
        if table.stage == stage
    }
    if stage == Kind.ANALYSE:
        for item in manifest.outputs.aggregates:
            shapes[item.key] = len(manifest.aggregate_lines(item)), len(manifest.aggregate_columns(item))
    return shapes


def _check_tables(reply: StationReply, shapes: dict[str, tuple[int, int]]) -> Verdict:
    for key, rows in reply.tables.items():
        if key not in shapes:
            return Rejected(RefusalCode.RELEASE_TABLE_EXTRA)
        lines, columns = shapes[key]
        if len(rows) != lines or any(len(row) != columns for row in rows):
            return Rejected(RefusalCode.RELEASE_TABLE_SHAPE)
        if any(type(cell) is not int or cell < HIDDEN for row in rows for cell in row):
            return Rejected(RefusalCode.RELEASE_TABLE_SHAPE)
    return Accepted()


def _is_finite(place: tuple[Path, TensorEntry]) -> bool:
    dtype = place[1].tensor.dtype
    return all(bool(np.isfinite(as_float(piece, dtype)).all()) for piece in chunks_of(open_tensor(*place)))


def _stays_in_range(delta: tuple[Path, TensorEntry], inbound: tuple[Path, TensorEntry]) -> bool:
    dtype = inbound[1].tensor.dtype
    bounds = np.iinfo(raw_dtype(dtype).name)
    low, high = (0, 1) if dtype == "bool" else (int(bounds.min), int(bounds.max))
    for step, base in zip(chunks_of(open_tensor(*delta)), chunks_of(open_tensor(*inbound)), strict=True):
        # In float64 first: a sum that overflows int64 would wrap into the range.
        moved = base.astype(np.float64) + step.astype(np.float64)
        if moved.size and (float(moved.min()) < low or float(moved.max()) > high):
            return False
    return True
