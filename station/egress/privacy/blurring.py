"""A release with noise, made in the order that matters: every rule first, then the charge, then one draw, nothing after it.

    rules passed -> charged (durable) -> noise on update, metrics and tables -> figures and arrays that may leave

What is charged are the queries of the documents (`policies.privacy.queries_of_stage`), always all of them: a train that leaves an
optional metric out, or a table that too few patients are in, changes neither what is charged nor, where it leaves, that it leaves.
Nothing here looks at the exact numbers to decide anything: what is left out is so by the cohort's size, which noise does not
cover and which is told, rounded, as a count.

Pure but for the file that is written and for what charges.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.aggregates import AggregateOutput, ends_of
from policies.order import Stage
from policies.policy import DifferentialPrivacy
from policies.privacy import Query
from policies.refusals import Reason, RefusalCode, Refused
from policies.rows import OUTCOME
from policies.splits import Split
from policies.wire.arrays import TensorShape
from policies.wire.arrays_writing import WrittenArrays, canonical_layout
from policies.wire.instructions import MAX_REPLY_BYTES
from station.egress.analyses.counting import Table
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract
from station.egress.figures import Figures
from station.egress.privacy.drawing import Charge, ChargedNoise, charged_noise
from station.egress.privacy.mechanisms import noisy_metric, noisy_table
from station.egress.release import Decimal, Suppressed
from station.egress.training.noising import MeasuredUpdate

# The most that a number takes in JSON with its comma, and a key with its marks.
_NUMBER_BYTES: Final = 26
_KEY_BYTES: Final = 72
_WITHHELD: Final = RefusalCode.RELEASE_TOO_FEW_PATIENTS
REPLY_ROOM: Final = 16 * 1024
"""What a reply's own fields (digests, heads, status) may take beside the figures."""


def nobody_charges(_queries: tuple[Query, ...]) -> Refused | None:
    """Where nobody keeps what noise costs, none is drawn."""
    return Refused.because(RefusalCode.BUDGET_PRIVACY, "nobody here charges patients for noise")


def everybody_pays(_queries: tuple[Query, ...]) -> Refused | None:
    """Charge nobody: for a dry run on generated patients, who have no privacy to lose."""
    return None


@dataclass(frozen=True, slots=True)
class Passed:
    """What passed every rule but is not yet to leave.

    Attributes:
        stage: of the message.
        figures: the metrics that the train stated.
        tally: the rows; None where the train has none.
        update: its deltas; None where the stage has none.
    """

    stage: Stage
    figures: Figures
    tally: Tally | None
    update: MeasuredUpdate | None


@dataclass(frozen=True, slots=True)
class Blurred:
    """What may leave."""

    figures: Figures
    arrays: WrittenArrays | None


class Blurring:
    """Makes what passed leave with noise.

    Args:
        privacy: the policy's.
        contract: what may leave.
        counts: of the cohort.
        charge: charges everybody, durably, before it returns.
    """

    def __init__(
        self, privacy: DifferentialPrivacy, contract: ReleaseContract, counts: CohortCounts, charge: Charge
    ) -> None:
        self._privacy = privacy
        self._contract = contract
        self._counts = counts
        self._charge = charge

    def blurred(self, passed: Passed, out: Path) -> Blurred | tuple[Reason, ...]:
        """Charge for a release and draw its noise, once.

        1. It cannot be larger than the policy's ceiling, whatever the noise is: what would be withheld after it was paid for.
        2. Every query of the stage is charged, or nothing is drawn.
        3. Noise on the update, on each metric and on each table that the policy permits.

        Args:
            passed: what passed every rule.
            out: the file to write deltas to.

        Returns:
            What may leave, or why nothing may.

        Raises:
            StorageError: the charge could not be recorded, or the file not be written.
        """
        # 1
        numbers = self._most_number_bytes(passed)
        most = numbers + (0 if passed.update is None else _size_of(passed.update))
        if most > self._contract.maximum_bytes or numbers > MAX_REPLY_BYTES - REPLY_ROOM:
            ceiling = self._contract.maximum_bytes
            text = (
                f"up to {most:,} bytes, of which {numbers:,} of numbers; release.maximum_bytes is {ceiling:,}"
            )
            return (Reason(RefusalCode.RELEASE_TOO_LARGE, text),)
        # 2
        queries = self._contract.queries.get(passed.stage, ())
        if not queries:
            return Blurred(passed.figures, None)
        noise = charged_noise(self._privacy, queries, self._charge)
        if isinstance(noise, Refused):
            return noise.reasons
        # 3
        arrays: WrittenArrays | None = None
        if passed.update is not None:
            written = passed.update.write(noise, out)
            if isinstance(written, tuple):
                return written
            arrays = written
        return Blurred(self._figures(passed, noise), arrays)

    def _figures(self, passed: Passed, noise: ChargedNoise) -> Figures:
        contract = self._contract
        blurred = Figures(suppressed=list(passed.figures.suppressed))
        for metric in contract.metrics:
            if metric.stage != passed.stage or metric.key not in contract.permitted_metrics:
                continue
            if self._is_small(metric.split):
                if metric.key not in {item.key for item in blurred.suppressed}:
                    blurred.suppressed.append(Suppressed(metric.key, _WITHHELD))
                continue
            told = noisy_metric(noise, metric, passed.figures.metrics.get(metric.key))
            blurred.metrics[metric.key] = told if isinstance(told, int) else Decimal(told)
        if passed.tally is not None:
            self._add_tables(blurred, passed.tally, noise)
        return blurred

    def _add_tables(self, blurred: Figures, tally: Tally, noise: ChargedNoise) -> None:
        contract = self._contract
        for item in contract.aggregates:
            if item.key not in contract.permitted_tables:
                blurred.suppressed.append(Suppressed(item.key, RefusalCode.RELEASE_NOT_PERMITTED))
            elif self._is_small(item.split):
                blurred.suppressed.append(Suppressed(item.key, _WITHHELD))
            else:
                blurred.tables[item.key] = self._table(item, tally, noise)

    def _is_small(self, split: Split) -> bool:
        return self._counts.of(split).patients < self._contract.minimum_patients_per_metric

    def _table(self, item: AggregateOutput, tally: Tally, noise: ChargedNoise) -> Table:
        exact = tally.exact(item, item.minimum_cell_count, self._contract.error_codes)
        ends = ends_of(item, tally.manifest.outputs.rows) if item.measure == "quantiles" else ()
        table = noisy_table(noise, item, exact, ends)
        if item.column != OUTCOME:
            return table
        # Error codes that the policy does not grant: always zero, as everybody knows.
        told = dict(zip(tally.outcome_lines(self._contract.error_codes), table, strict=True))
        return tuple(told.get(name, (0,)) for name in tally.manifest.aggregate_lines(item))

    def _most_number_bytes(self, passed: Passed) -> int:
        contract = self._contract
        numbers = sum(1 for metric in contract.metrics if metric.stage == passed.stage)
        keys = numbers
        if passed.tally is not None:
            manifest = passed.tally.manifest
            for item in contract.aggregates:
                width = max(3, len(manifest.aggregate_columns(item)))
                numbers += max(len(item.probabilities), len(manifest.aggregate_lines(item))) * width
                keys += 1
        return numbers * _NUMBER_BYTES + keys * _KEY_BYTES


def _size_of(update: MeasuredUpdate) -> int:
    shapes = (TensorShape(pair.name, pair.released, pair.rule.reply.shape) for pair in update.pairs)
    return canonical_layout(shapes).file_bytes
