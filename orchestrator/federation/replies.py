"""The orchestrator's own check of what stations send, against the same contract their guards hold trains to.

A station is another organisation: its reply may be wrong or hostile, and one bad reply must not spoil a round. Each
is judged by itself before a strategy sees any of them; what fails is left out with a code.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from policies.aggregates import ends_of, sum_bounds
from policies.documents import digest_of_file
from policies.errors import WireError
from policies.manifest import AggregateOutput, TrainManifest
from policies.refusals import RefusalCode
from policies.rows import HIDDEN, MAX_PATIENTS
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
from policies.wire.instructions import Blob, Instruction, StationReply, Status
from policies.wire.releases import ReleaseTensor

Table = list[list[float | int]]

_ROUNDED: Final = 500
"""By so many patients at most a policy rounds a count down (`release.count_rounding`)."""


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
    return _check_tables(reply, manifest)


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


def sum_tables(
    tables: list[dict[str, list[list[float | int]]]], manifest: TrainManifest
) -> dict[str, list[list[float | int]]]:
    """Add up the tables that every station released; quantiles are no sums, so each station's stand alone.

    A count that one station hides is hidden in the sum: what the others have of it is no number of patients of all. So is a line of
    sums of which one station hides the patients. Means and variances over all stations follow from the sums exactly.
    """
    merged: dict[str, list[list[float | int]]] = {}
    for item in manifest.outputs.aggregates:
        found = [table[item.key] for table in tables if item.key in table]
        if item.measure == "quantiles" or not found or len(found) < len(tables):
            continue
        shape = (len(manifest.aggregate_lines(item)), len(manifest.aggregate_columns(item)))
        if any((len(table), *{len(line) for line in table}) != shape for table in found):
            continue
        lines = [list(zip(*parts, strict=True)) for parts in zip(*found, strict=True)]
        if item.measure == "count":
            merged[item.key] = [
                [HIDDEN if HIDDEN in cells else sum(cells) for cells in line] for line in lines
            ]
        else:
            merged[item.key] = [_sum_of_line(line, item.decimals or 0) for line in lines]
    return merged


def _sum_of_line(cells: list[tuple[float | int, ...]], decimals: int) -> list[float | int]:
    patients, totals, squares = cells
    if HIDDEN in patients:
        return [HIDDEN, 0.0, 0.0]
    return [sum(patients), round(math.fsum(totals), decimals), round(math.fsum(squares), decimals)]


def _check_tables(reply: StationReply, manifest: TrainManifest) -> Verdict:
    """Judge every table by what its measure can be: shapes, whole numbers of patients, sums within what so many can have, edges."""
    declared = {item.key: item for item in manifest.outputs.aggregates}
    for key, table in reply.tables.items():
        item = declared.get(key)
        if item is None:
            return Rejected(RefusalCode.RELEASE_TABLE_EXTRA)
        width = len(manifest.aggregate_columns(item))
        if len(table) != len(manifest.aggregate_lines(item)) or any(len(line) != width for line in table):
            return Rejected(RefusalCode.RELEASE_TABLE_SHAPE)
        good = (
            _is_quantiles
            if item.measure == "quantiles"
            else _is_sums
            if item.measure == "sum"
            else _is_counts
        )
        if not good(table, item, manifest):
            return Rejected(RefusalCode.RELEASE_TABLE_SHAPE)
    return Accepted()


def _is_count(value: float) -> bool:
    return type(value) is int and HIDDEN <= value <= MAX_PATIENTS


def _is_counts(table: Table, _item: AggregateOutput, _manifest: TrainManifest) -> bool:
    return all(_is_count(cell) for line in table for cell in line)


def _is_sums(table: Table, item: AggregateOutput, manifest: TrainManifest) -> bool:
    decimals = item.decimals or 0
    for patients, total, squares in table:
        if not _is_count(patients) or not all(_has_decimals(each, decimals) for each in (total, squares)):
            return False
        if patients == HIDDEN:
            if total != 0 or squares != 0:
                return False
            continue
        # Patients may be rounded by the policy: a few more can be in the sum than are told.
        most = sum_bounds(item, manifest.outputs.rows, int(patients) + _ROUNDED)
        slack = 0.5 / 10**decimals
        least = [min(0.0, low) for low, _ in most]
        if not all(
            low - slack <= each <= max(0.0, high) + slack
            for each, low, (_, high) in zip((total, squares), least, most, strict=True)
        ):
            return False
    return True


def _has_decimals(value: float, decimals: int) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and round(value, decimals) == value


def _is_quantiles(table: Table, item: AggregateOutput, manifest: TrainManifest) -> bool:
    """Whether each line is two of the declared edges in order, and the lines do not fall."""
    ends = ends_of(item, manifest.outputs.rows)
    if not all(low in ends and high in ends and low < high for low, high in table):
        return False
    return all(one[0] <= other[0] and one[1] <= other[1] for one, other in pairwise(table))


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
