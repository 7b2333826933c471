"""The orchestrator's own check of what stations send, against the same contract their guards hold trains to.

A station is another organisation: its reply may be wrong or hostile, and one bad reply must not spoil a round. Each
is judged by itself before a strategy sees any of them; what fails is left out with a code.
"""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.federation.tensors import DTYPE_NAMES, TensorFile
from policies.documents import digest_of_file
from policies.errors import WireError
from policies.manifest import TableOutput, TrainManifest
from policies.refusals import RefusalCode
from policies.wire.instructions import Blob, Instruction, StationReply, Status


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
    return _check_tables(
        reply, {table.key: table for table in manifest.outputs.tables if table.stage == stage}
    )


def check_release(release: Blob, path: Path, inbound: TensorFile, manifest: TrainManifest) -> Verdict:
    """Judge a release's bytes: digest, names, shapes, types, finite.

    Args:
        release: what the reply says it is.
        path: the bytes.
        inbound: the weights that the delta starts from.
        manifest: the train's.
    """
    if path.stat().st_size != release.size or digest_of_file(path) != release.digest:
        return Rejected("RELEASE_DIGEST")
    try:
        delta = TensorFile(path)
    except WireError:
        return Rejected(RefusalCode.RELEASE_UNPARSEABLE)
    expected = _expected(inbound, manifest)
    if delta.tensors.keys() - expected.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_EXTRA)
    if expected.keys() - delta.tensors.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_MISSING)
    if expected.keys() - inbound.tensors.keys():
        return Rejected(RefusalCode.RELEASE_TENSOR_EXTRA)
    for name, (dtype, shape) in expected.items():
        if delta.tensors[name].dtype != inbound.tensors[name].dtype:
            return Rejected(RefusalCode.RELEASE_TENSOR_DTYPE)
        if delta.tensors[name].shape != inbound.tensors[name].shape:
            return Rejected(RefusalCode.RELEASE_TENSOR_SHAPE)
        if delta.tensors[name].shape != shape:
            return Rejected(RefusalCode.RELEASE_TENSOR_SHAPE)
        if DTYPE_NAMES[delta.tensors[name].dtype] != dtype:
            return Rejected(RefusalCode.RELEASE_TENSOR_DTYPE)
    if not all(delta.is_finite(name) for name in delta.tensors):
        return Rejected(RefusalCode.RELEASE_TENSOR_NOT_FINITE)
    return Accepted()


def sum_tables(tables: list[dict[str, list[list[float | int]]]]) -> dict[str, list[list[float | int]]]:
    """Add up the tables that every station released in the same shape; the others are left out."""
    if not tables:
        return {}
    merged: dict[str, list[list[float | int]]] = {}
    for key in sorted(set.intersection(*(set(table) for table in tables))):
        rows = [table[key] for table in tables]
        shapes = {tuple(len(row) for row in table) for table in rows}
        if len(shapes) == 1:
            merged[key] = [
                [sum(cells) for cells in zip(*lines, strict=True)] for lines in zip(*rows, strict=True)
            ]
    return merged


def _check_tables(reply: StationReply, declared: dict[str, TableOutput]) -> Verdict:
    for key, rows in reply.tables.items():
        if key not in declared:
            return Rejected(RefusalCode.RELEASE_TABLE_EXTRA)
        table = declared[key]
        if len(rows) != table.rows or any(len(row) != len(table.columns) for row in rows):
            return Rejected(RefusalCode.RELEASE_TABLE_SHAPE)
    return Accepted()


def _expected(inbound: TensorFile, manifest: TrainManifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors = manifest.outputs.tensors
    if tensors is not None and tensors.layout == "listed":
        return {spec.name: (spec.dtype, tuple(spec.shape)) for spec in tensors.listed}
    return {name: (DTYPE_NAMES[tensor.dtype], tensor.shape) for name, tensor in inbound.tensors.items()}
