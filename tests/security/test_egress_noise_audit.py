"""Attack: a train turns its whole answer round by one patient, and who reads the releases tells from them whether the patient is there.

The noise cannot be foreseen, so neither can the outcome of these tests; with the noise that was promised, one of them fails by chance with a
probability below 1e-7 in all (bounds: `privacy_audit.MISTAKE` each; that the attack finds enough: more than six standard deviations).
With half the noise the same audit finds more than was promised, which is tested too.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from egress_documents import COUNTS, ORDER, Bench, head, policy
from map_documents import map_manifest
from numpy.typing import NDArray
from privacy_audit import Audit
from roster_kit import roster
from safetensors.numpy import load_file

from policies.privacy import Spent, epsilon
from station.egress.analyses.tally import Tally
from station.egress.contract import ReleaseContract
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release

DELTA = 1e-5
MULTIPLIER = 1.0
RELEASES = 4000
TABLES = 6000
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


ROWS = {
    "columns": [
        {"name": "arm", "type": "category", "categories": ["a", "b"]},
        {"name": "dose", "type": "float", "minimum": -1000.0, "maximum": 1000.0},
    ]
}
AGGREGATES = [
    {"key": "arms", "column": "arm", "split": "training"},
    {"key": "doses", "column": "dose", "measure": "sum", "decimals": 0, "split": "training"},
]


def tables(folder: Path, multiplier: float) -> tuple[Audit, Audit]:
    """Audits of a table of counts and of a sum, of releases by the guard of what the station counted.

    One patient of sixty is in the second arm and has the greatest dose; or in the first, and has the least.
    """
    train = map_manifest(rows=ROWS, aggregates=AGGREGATES)
    rules = policy(
        "analysis",
        metrics=[],
        tables=["arms", "doses"],
        trust_statement=None,
        timing_quantum_s=60.0,
        differential_privacy={"noise_multiplier": multiplier, "epsilon": 10_000.0, "delta": DELTA},
    )
    contract = ReleaseContract.build(train, rules, None)
    guard = Guard(contract, COUNTS, charge=lambda _: None)
    request = GuardRequest(ORDER, 1, "analyse", None, folder / "out")
    seen: dict[bool, tuple[Floats, Floats]] = {}
    for there in (True, False):
        tally = Tally(train, roster(training=60, validation=20))
        for number in range(59):
            tally.answered(f"training{number}", {"arm": "ab"[number % 2], "dose": 0.0})
        assert tally.answered("training59", {"arm": "ab"[there], "dose": 1000.0 if there else -1000.0})
        counts, sums = np.empty(TABLES), np.empty(TABLES)
        for number in range(TABLES):
            release = guard.count(request, tally)
            assert isinstance(release, Release)
            # In standard deviations of the promised noise, from the middle between both worlds.
            (first,), (second,) = release.tables["arms"]
            counts[number] = (second - first + 1.0) / (2 * MULTIPLIER)
            sums[number] = release.tables["doses"][0][1] / (2 * 1000.0 * MULTIPLIER)
        seen[there] = counts, sums
    found = [Audit(seen[True][item], seen[False][item]) for item in (0, 1)]
    return found[0], found[1]


def test_tables_tell_no_more_than_was_promised_and_not_far_less(memory: Path) -> None:
    for audit in tables(memory, MULTIPLIER):
        assert audit.epsilon(0.1, [-0.5, 0.0, 0.5]) <= promised(1, 0.1)
        assert 0.4 * promised(1) <= audit.gaussian_epsilon(DELTA, 0.0) <= promised(1)


def test_half_the_noise_would_be_found_in_tables_without_any_assumption(memory: Path) -> None:
    for audit in tables(memory, MULTIPLIER / 2):
        assert audit.epsilon(0.1, [-0.5, 0.0, 0.5]) > promised(1, 0.1)
        assert audit.gaussian_epsilon(DELTA, 0.0) > promised(1)
