"""The orchestrator's own check of what stations send, against the same contract their guards hold trains to.

A station is another organisation: its reply may be wrong or hostile, and one bad reply must not spoil a round. Each
is judged by itself before a strategy sees any of them. What no guard lets out is no mistake of a train's: whoever sends it is
out of the run. The arrays are `updates_check`'s matter, what tables can be `tables_check`'s.
"""

import math
from dataclasses import dataclass
from typing import Final

from orchestrator.federation.tables_check import table_problem
from policies.documents import canonical_json
from policies.manifest import TrainManifest
from policies.outputs import MetricOutput
from policies.policy import ReleaseRules
from policies.refusals import RefusalCode
from policies.wire.instructions import Instruction, Kind, StationReply, Status

EXAMPLES_BASE: Final = 10
"""Stations round their number of examples to multiples of this, and tell one at least."""

_STATUS: Final = {Kind.PREPARE: Status.ACCEPTED, Kind.FINISH: Status.FINISHED}


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


def check_reply(
    reply: StationReply, instruction: Instruction, manifest: TrainManifest, rules: ReleaseRules
) -> Verdict:
    """Judge a reply but for its arrays.

    1. It answers this message, with a status that such a message has.
    2. Its number of examples is rounded as stations do, and its seconds are whole quanta of the policy's.
    3. It carries arrays where the contract has them.
    4. Metrics and tables are declared and permitted, of their type, range and decimals.
    5. All together stay under the policy's ceiling.

    Args:
        reply: that claims to hold something: accepted, released or finished.
        instruction: what was asked.
        manifest: the train's.
        rules: the policy's.
    """
    asked = (instruction.order_digest, instruction.kind, instruction.round)
    if (reply.order_digest, reply.kind, reply.round) != asked:
        return Rejected("REPLY_OF_ANOTHER_MESSAGE")
    if reply.status is not _STATUS.get(instruction.kind, Status.RELEASED):
        return Rejected("REPLY_STATUS")
    if not _whole_quanta(reply.compute_s, rules.timing_quantum_s):
        return Rejected("REPLY_SECONDS")
    if reply.status is not Status.RELEASED:
        return Accepted()
    stage = instruction.kind.value
    if reply.num_examples <= 0:
        return Rejected("REPLY_WITHOUT_EXAMPLES")
    if reply.num_examples % EXAMPLES_BASE:
        return Rejected("REPLY_EXAMPLES")
    if (reply.release is not None) != (stage == "train" and manifest.outputs.tensors is not None):
        return Rejected(RefusalCode.RELEASE_NOT_PERMITTED)
    if code := _metrics_problem(reply, stage, manifest, rules) or _tables_problem(
        reply, stage, manifest, rules
    ):
        return Rejected(code)
    numbers = len(canonical_json({"metrics": reply.metrics, "tables": reply.tables}))
    arrays = reply.release.size if reply.release is not None else 0
    return Rejected(RefusalCode.RELEASE_TOO_LARGE) if numbers + arrays > rules.maximum_bytes else Accepted()


def settled_examples(said_before: int | None, says: int) -> int | None:
    """Return how many examples a station counts with; None where it says what no cohort does.

    A run's cohort is frozen. It is frozen again after a patient withdrew, or a station lost its state: then it may hold
    fewer, which count from then on, or a few more, which do not count.

    Args:
        said_before: the least that the station said at this stage of the run; None the first time.
        says: now.

    >>> settled_examples(None, 100), settled_examples(100, 90), settled_examples(90, 100), settled_examples(90, 120)
    (100, 90, 90, None)
    """
    if said_before is None or says <= said_before:
        return says
    return said_before if says <= said_before + max(EXAMPLES_BASE, said_before // 10) else None


def _whole_quanta(seconds: float, quantum_s: float) -> bool:
    # Without a quantum stations tell no seconds at all.
    return seconds == 0 if quantum_s == 0 else round(seconds / quantum_s) * quantum_s == seconds


def _metrics_problem(
    reply: StationReply, stage: str, manifest: TrainManifest, rules: ReleaseRules
) -> RefusalCode | None:
    declared = {
        metric.key: rules.narrowed(metric) for metric in manifest.outputs.metrics if metric.stage == stage
    }
    for key, value in reply.metrics.items():
        if key not in declared:
            return RefusalCode.RELEASE_METRIC_EXTRA
        if key not in rules.metrics:
            return RefusalCode.RELEASE_NOT_PERMITTED
        if not _is_metric(value, declared[key]):
            return RefusalCode.RELEASE_METRIC_RANGE
    return None


def _is_metric(value: float, metric: MetricOutput) -> bool:
    if type(value) is not (int if metric.type == "int" else float):
        return False
    if not metric.minimum <= value <= metric.maximum or (value == 0 and math.copysign(1, value) < 0):
        return False
    # A bound with more decimals may stand for a value that rounding would step over it.
    return round(value, metric.decimals) == value or value in {metric.minimum, metric.maximum}


def _tables_problem(
    reply: StationReply, stage: str, manifest: TrainManifest, rules: ReleaseRules
) -> RefusalCode | None:
    declared = {item.key: item for item in manifest.outputs.aggregates}
    for key, table in reply.tables.items():
        item = declared.get(key)
        if item is None or stage != "analyse":
            return RefusalCode.RELEASE_TABLE_EXTRA
        if key not in rules.tables:
            return RefusalCode.RELEASE_NOT_PERMITTED
        if code := table_problem(table, item, manifest, rules):
            return code
    return None
