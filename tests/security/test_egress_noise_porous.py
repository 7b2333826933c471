"""Attack: the low bits of noisy numbers tell what was there before the noise (Mironov 2012).

Floating-point noise has values that are far apart where it is large and close together where it is small. Added to one it leaves other sums than
added to zero, so a single number can say for certain which of two neighbours it came from, however much noise there is. The
attack is tried on numpy's noise first, where it must succeed, and then on what the guard releases.
"""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from egress_documents import COUNTS, Bench, head, policy
from numpy.typing import NDArray
from safetensors.numpy import load_file

from policies.outputs import MetricOutput
from policies.privacy import Query, QueryKind
from policies.splits import Split
from station.egress.guard import Guard
from station.egress.privacy.drawing import ChargedNoise
from station.egress.privacy.mechanisms import noisy_metric
from station.egress.release import Release

Floats = NDArray[np.float64]


def surely_without(told: Floats) -> NDArray[np.bool_]:
    """Whether each number cannot have come from one: near zero, one plus anything is a multiple of 2^-53."""
    near = np.abs(told) < 0.25
    steps = np.ldexp(told, 53)
    return near & (steps != np.rint(steps))


def test_the_attack_succeeds_on_floating_point_noise() -> None:
    random = np.random.default_rng()
    noise = random.normal(size=(2, 20_000))
    without, there = 0.0 + noise[0], 1.0 + noise[1]
    # About 0.2 * 3/4 of all: certain, where a guess by size alone would be a matter of chance.
    assert surely_without(without).mean() > 0.1
    assert not surely_without(there).any()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, {"layer.weight": np.zeros(20_000, np.float32)})


def weights(bench: Bench, value: float, multiplier: float) -> Floats:
    """What leaves of a train that moves every weight by one value."""
    rules = policy(
        # Divided by the square root of how many: each weight moves by up to one.
        tensors={"clipping_norm": math.sqrt(20_000) / 0.99, "float_buffers": "withhold"},
        timing_quantum_s=60.0,
        differential_privacy={"noise_multiplier": multiplier, "epsilon": 1e6, "delta": 1e-5},
    )
    guard = Guard(bench.contract(rules=rules), COUNTS, charge=lambda _: None)
    reply = bench.answer({"layer.weight": np.full(20_000, value, np.float32)})
    release = guard.check(bench.request(), head(), reply)
    assert isinstance(release, Release)
    assert release.arrays is not None
    return load_file(release.arrays.path)["layer.weight"].astype(np.float64)


def test_the_attack_finds_nothing_in_an_update(bench: Bench) -> None:
    """The noise is about as wide as in the attack that succeeds."""
    # Sigma is 0.01 * 2 * 142.8 on each weight.
    without, there = (weights(bench, value, 0.01) for value in (0.0, 1.0))
    assert there.mean() - without.mean() == pytest.approx(1.0, abs=0.3)
    assert (np.abs(without) < 0.25).any()
    assert (np.abs(there) < 0.25).any()
    assert not surely_without(without).any()
    assert not surely_without(there).any()


def test_every_weight_lies_on_one_grid_and_its_last_bit_tells_nothing(bench: Bench) -> None:
    step = 2.0**-4  # the power of two below 142.9 / (16 sqrt(20 000))
    for value in (0.0, 1.0, -1.0, 0.3):
        steps = weights(bench, value, 1.0) / step
        assert np.array_equal(steps, np.rint(steps))
        odd = float((np.abs(steps) % 2).mean())
        # Hoeffding: further off with a probability below 1e-9.
        assert abs(odd - 0.5) < math.sqrt(math.log(2e9) / (2 * 20_000))


def test_a_metric_has_the_same_values_whatever_it_was() -> None:
    """Each of eleven has a probability above 0.026: that one is missing in 1500 has one below 1e-15."""
    item = MetricOutput(
        key="auc", stage="evaluate", minimum=0.0, maximum=1.0, decimals=1, split=Split.VALIDATION
    )
    seen = []
    for value in (0.0, 1.0):
        paid = (ChargedNoise(Fraction(1), [Query(QueryKind.METRIC, "auc")]) for _ in range(1500))
        seen.append({noisy_metric(noise, item, value) for noise in paid})
    assert seen[0] == seen[1] == {number / 10 for number in range(11)}
