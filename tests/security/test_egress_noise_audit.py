"""Attack: a train turns its whole answer round by one patient, and who reads the releases tells from them whether the patient is there.

The noise cannot be foreseen, so neither can the outcome of these tests; with the noise that was promised, one of them fails by chance with a
probability below 1e-7 in all (bounds: `privacy_audit.MISTAKE` each; that the attack finds enough: more than six standard deviations).
With half the noise the same audit finds more than was promised, which is tested too.
"""

import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from egress_documents import COUNTS, Bench, head, policy
from numpy.typing import NDArray
from privacy_audit import Audit
from safetensors.numpy import load_file

from policies.aggregates import AggregateOutput
from policies.manifest import Split
from policies.privacy import Spent, epsilon
from policies.privacy.costs import queries_of_aggregate
from station.egress.analyses.exact import Dimension, ExactTable
from station.egress.guard import Guard
from station.egress.privacy.drawing import ChargedNoise
from station.egress.privacy.mechanisms import noisy_table
from station.egress.release import Release

DELTA = 1e-5
MULTIPLIER = 1.0
RELEASES = 4000
TABLES = 6000
PATIENTS = tuple(str(number) for number in range(60))
COUNT = AggregateOutput(key="t", column="finding", measure="count", split=Split.TRAINING)
SUM = AggregateOutput(key="t", column="dose", measure="sum", decimals=0, split=Split.TRAINING)
Floats = NDArray[np.float64]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose files need no disk, where there is one: thousands of releases are written durably."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def promised(queries: int, delta: float = DELTA) -> float:
    return epsilon(Spent.of(MULTIPLIER, queries), delta)


def releases(folder: Path, multiplier: float, count: int) -> tuple[Audit, Audit, Audit]:
    """Audits of the update, of the metric, and of both together, of releases by the guard.

    With the patient the train moves every weight by as much as it can one way and states the metric's maximum; without, the
    other way and the minimum.
    """
    bench = Bench(folder, {"layer.weight": np.zeros((8, 8), np.float32)})
    rules = policy(
        tensors={"clipping_norm": 3.0, "float_buffers": "withhold"},
        timing_quantum_s=60.0,
        differential_privacy={"noise_multiplier": multiplier, "epsilon": 10_000.0, "delta": DELTA},
    )
    guard = Guard(bench.contract(rules=rules), COUNTS, charge=lambda _: None)
    seen: dict[bool, tuple[Floats, Floats]] = {}
    for there in (True, False):
        sign = 1.0 if there else -1.0
        reply = bench.answer({"layer.weight": np.full((8, 8), sign * 1000.0, np.float32)})
        stated = head(metrics={"loss": 100.0 if there else 0.0})
        updates, metrics = np.empty(count), np.empty(count)
        for number in range(count):
            release = guard.check(bench.request(), stated, reply)
            assert isinstance(release, Release)
            assert release.arrays is not None
            # In standard deviations of the promised noise: the projection onto the direction, and the metric from its middle.
            moved = load_file(release.arrays.path)["layer.weight"].astype(np.float64)
            updates[number] = moved.sum() / 8.0 / (2 * 3.0 * MULTIPLIER)
            metrics[number] = (release.metrics["loss"] - 50.0) / (100.0 * MULTIPLIER)
        seen[there] = updates, metrics
    update, metric = (Audit(seen[True][item], seen[False][item]) for item in (0, 1))
    both = Audit(seen[True][0] + seen[True][1], seen[False][0] + seen[False][1])
    return update, metric, both


def test_an_update_and_a_metric_tell_no_more_than_was_promised_and_not_far_less(memory: Path) -> None:
    update, metric, both = releases(memory, MULTIPLIER, RELEASES)
    for audit in (update, metric):
        assert audit.epsilon(0.05, [-0.5, 0.0, 0.5]) <= promised(1, 0.05)
        assert 0.4 * promised(1) <= audit.gaussian_epsilon(DELTA, 0.0) <= promised(1)
    # Together they tell more than each, and that is what two queries are charged.
    assert promised(1) < promised(2)
    assert both.epsilon(0.05, [-0.5, 0.0, 0.5]) <= promised(2, 0.05)
    assert 0.4 * promised(2) <= both.gaussian_epsilon(DELTA, 0.0) <= promised(2)


def test_half_the_noise_would_be_found_in_an_update_and_in_a_metric(memory: Path) -> None:
    update, metric, both = releases(memory, MULTIPLIER / 2, RELEASES // 2)
    assert update.gaussian_epsilon(DELTA, 0.0) > promised(1)
    assert metric.gaussian_epsilon(DELTA, 0.0) > promised(1)
    assert both.gaussian_epsilon(DELTA, 0.0) > promised(2)


def counted(there: bool) -> ExactTable:
    """Sixty patients in two cells; who is replaced is in the second, or in the first."""
    return ExactTable(
        key="t",
        measure="count",
        split=Split.TRAINING,
        dimensions=(Dimension("finding", (), 2),),
        patients=PATIENTS,
        cells=np.array([0] * 30 + [1] * 29 + [int(there)], np.int32),
        values=None,
        value_column=None,
        minimum=10,
    )


def summed(there: bool) -> ExactTable:
    """Sixty patients whose values add up to nothing, but for one who has the greatest, or the least."""
    return ExactTable(
        key="t",
        measure="sum",
        split=Split.TRAINING,
        dimensions=(Dimension("all", (), 1),),
        patients=PATIENTS,
        cells=np.zeros(60, np.int32),
        values=np.array([0.0] * 59 + [1000.0 if there else -1000.0]),
        value_column="dose",
        minimum=10,
        bounds=(-1000.0, 1000.0),
    )


def tables(item: AggregateOutput, multiplier: float, told: Callable[[Floats], float]) -> Audit:
    """An audit of one table."""
    seen = []
    for table in (summed(True), summed(False)) if item.measure == "sum" else (counted(True), counted(False)):
        draws = np.empty(TABLES)
        for number in range(TABLES):
            noise = ChargedNoise(Fraction(multiplier), queries_of_aggregate(item))
            draws[number] = told(np.array(noisy_table(noise, item, table), np.float64))
        seen.append(draws)
    return Audit(seen[0], seen[1])


def moved_count(cells: Floats) -> float:
    """In standard deviations of the promised noise, from the middle between both worlds."""
    return float(cells[1, 0] - cells[0, 0] + 1.0) / (2 * MULTIPLIER)


def moved_sum(cells: Floats) -> float:
    """Likewise, of the column that holds the sum."""
    return float(cells[0, 1]) / (2 * 1000.0 * MULTIPLIER)


CASES = [pytest.param(COUNT, moved_count, id="count"), pytest.param(SUM, moved_sum, id="sum")]


@pytest.mark.parametrize(("item", "told"), CASES)
def test_a_table_tells_no_more_than_was_promised_and_not_far_less(
    item: AggregateOutput, told: Callable[[Floats], float]
) -> None:
    audit = tables(item, MULTIPLIER, told)
    assert audit.epsilon(0.1, [-0.5, 0.0, 0.5]) <= promised(1, 0.1)
    assert 0.4 * promised(1) <= audit.gaussian_epsilon(DELTA, 0.0) <= promised(1)


@pytest.mark.parametrize(("item", "told"), CASES)
def test_half_the_noise_would_be_found_in_a_table_without_any_assumption(
    item: AggregateOutput, told: Callable[[Floats], float]
) -> None:
    audit = tables(item, MULTIPLIER / 2, told)
    assert audit.epsilon(0.1, [-0.5, 0.0, 0.5]) > promised(1, 0.1)
    assert audit.gaussian_epsilon(DELTA, 0.0) > promised(1)
