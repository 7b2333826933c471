"""A noisy update: its norm is bounded as whole numbers, whatever the train sends, and what leaves lies on the grid."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import Bench, Tensors, policy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from policies.errors import StateError
from policies.policy import DifferentialPrivacy
from policies.privacy import Query, QueryKind
from policies.privacy.grid import NoiseGrid
from policies.refusals import RefusalCode, Refused
from policies.wire.arrays import read_layout
from policies.wire.arrays_writing import WrittenArrays
from station.egress.privacy.drawing import ChargedNoise, charged_noise
from station.egress.training import noising
from station.egress.training.noising import UPDATE, MeasuredUpdate, measure_update

PRIVACY = DifferentialPrivacy(noise_multiplier=1.0, epsilon=500.0, delta=1e-5)
RULES = {"clipping_norm": 1.0, "float_buffers": "withhold"}


def noise(multiplier: float = 1.0) -> ChargedNoise:
    privacy = PRIVACY.model_copy(update={"noise_multiplier": multiplier})
    charged = charged_noise(privacy, (UPDATE,), lambda _: None)
    assert isinstance(charged, ChargedNoise)
    return charged


def measure(bench: Bench, reply: Tensors, **tensors: Any) -> MeasuredUpdate | tuple[Any, ...]:
    rules = policy(
        tensors={**RULES, **tensors},
        timing_quantum_s=60.0,
        differential_privacy=PRIVACY.model_dump(),
    )
    return measure_update(bench.contract(rules=rules), bench.answer(reply), bench.inbound)


def measured(bench: Bench, reply: Tensors, **tensors: Any) -> MeasuredUpdate:
    found = measure(bench, reply, **tensors)
    assert isinstance(found, MeasuredUpdate)
    return found


def released(bench: Bench, update: MeasuredUpdate, multiplier: float = 1.0) -> Tensors:
    assert isinstance(update.write(noise(multiplier), bench.out), WrittenArrays)
    return load_file(bench.out)


def flat(tensors: Tensors) -> NDArray[np.float64]:
    return np.concatenate([tensors[name].astype(np.float64).reshape(-1) for name in sorted(tensors)])


@pytest.fixture
def wide(tmp_path: Path) -> Bench:
    return Bench(tmp_path, {"a": np.zeros((300, 400), np.float32), "b": np.zeros(80_000, np.float32)})


def test_the_noise_is_what_the_policy_says_and_the_signal_stays(wide: Bench) -> None:
    direction = np.random.default_rng(3).normal(size=200_000).astype(np.float32)
    reply = {"a": direction[:120_000].reshape(300, 400), "b": direction[120_000:]}
    update = measured(wide, reply)
    assert update.norm == pytest.approx(float(np.linalg.norm(direction)), rel=1e-6)
    told = flat(released(wide, update))
    signal = direction.astype(np.float64) * update.scale
    assert np.linalg.norm(signal) == pytest.approx(0.99, rel=1e-6)
    sigma = 2.0 * update.grid.bound * update.grid.step
    assert 1.99 < sigma <= 2.0
    # Six standard deviations of the estimate of a standard deviation, and of a projection: below 1e-8 each.
    assert told.std() == pytest.approx(sigma, rel=6 / math.sqrt(2 * 200_000))
    assert float(signal @ told) == pytest.approx(0.99**2, abs=6 * 0.99 * sigma)


def test_what_leaves_lies_on_the_grid_and_has_no_minus_zero(wide: Bench) -> None:
    reply = {"a": np.full((300, 400), 1e-5, np.float32), "b": np.zeros(80_000, np.float32)}
    update = measured(wide, reply)
    told = flat(released(wide, update, 0.01))
    steps = told / update.grid.step  # a power of two: exact
    assert np.array_equal(steps, np.rint(steps))
    assert not np.signbit(told[told == 0.0]).any()
    assert read_layout(wide.out).tensors[0].dtype == "float32"


def test_a_small_update_is_not_scaled_and_rounding_keeps_its_expectation(tmp_path: Path) -> None:
    """Without noise to speak of: a tenth of a step becomes one step a tenth of the time."""
    bench = Bench(tmp_path, {"a": np.zeros(100_000, np.float32)})
    grid = NoiseGrid.of(1.0, 100_000)
    update = measured(bench, {"a": np.full(100_000, grid.step / 10, np.float32)})
    assert update.scale == 1.0
    rounded = noising._Rounding(update.grid, update.norm).rounded(np.full(100_000, grid.step / 10))
    assert set(rounded.tolist()) == {0, 1}
    # Hoeffding: further off with a probability below 1e-9.
    assert abs(rounded.mean() - 0.1) < math.sqrt(math.log(2e9) / (2 * 100_000))


def test_rounding_that_would_go_over_the_bound_goes_towards_zero() -> None:
    grid = NoiseGrid(step=1.0, bound=100)
    nearly = np.array([0.0, 99.9999, 0.0])  # would be 100 in all but one of ten thousand tries
    rounding = noising._Rounding(grid, 99.9999)
    assert rounding.rounded(nearly).tolist() == [0, 99, 0]
    assert rounding.squares == 99**2
    # One piece after another: what is to come has its room kept, so it can be told whole.
    several = noising._Rounding(grid, math.sqrt(2 * 70.5**2))
    assert several.rounded(np.array([70.5])).tolist() in ([70], [71])
    assert several.rounded(np.array([70.5])).tolist() in ([70], [71])
    assert several.squares <= grid.bound**2
    # With 71 in the first piece, the second has no room for it.
    tight = [noising._Rounding(NoiseGrid(step=1.0, bound=100), 99.9) for _ in range(64)]
    firsts = [each.rounded(np.array([70.6])).tolist()[0] for each in tight]
    seconds = [each.rounded(np.array([70.67])).tolist()[0] for each in tight]
    assert (71, 71) not in set(zip(firsts, seconds, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 500),
    st.floats(-30, 30),
    st.floats(-12, 12),
    st.sampled_from(["one", "equal", "spread", "tiny-and-huge"]),
)
def test_the_norm_as_whole_numbers_never_passes_its_bound(
    count: int, size: float, norm: float, shape: str
) -> None:
    """Whatever the numbers, and whatever floating point does with them."""
    random = np.random.default_rng(count)
    values = {
        "one": np.eye(1, count)[0],
        "equal": np.ones(count),
        "spread": random.normal(size=count),
        "tiny-and-huge": 10.0 ** random.uniform(-20, 10, count),
    }[shape] * 10.0**size
    clipping_norm = 2.0**norm
    grid = NoiseGrid.of(clipping_norm, count)
    length = math.sqrt(float(values @ values))
    scale = min(1.0, 0.99 * clipping_norm / length) if length > 0 else 1.0
    rounding = noising._Rounding(grid, length * scale)
    whole = np.concatenate([rounding.rounded(piece * scale) for piece in np.array_split(values, 7)])
    exact = sum(int(item) ** 2 for item in whole)
    assert exact == rounding.squares <= grid.bound**2
    assert Fraction(grid.bound) * Fraction(grid.step) <= Fraction(clipping_norm)


@given(st.floats(2.0**-80, 2.0**80), st.integers(1, 1 << 34))
def test_the_grid_is_fine_enough_and_a_power_of_two(norm: float, count: int) -> None:
    grid = NoiseGrid.of(norm, count)
    assert math.frexp(grid.step)[0] == 0.5
    assert grid.bound >= 2048
    assert grid.step * math.sqrt(count) <= norm / 16 * (1 + 1e-12)
    assert (grid.bound + 1) * Fraction(grid.step) > Fraction(norm)
    assert grid.sensitivity_squared == 4 * grid.bound**2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_coarser_precision_is_rounding_of_noisy_numbers(tmp_path: Path, precision: str) -> None:
    bench = Bench(tmp_path, {"a": np.zeros(1000, np.float32)})
    update = measured(bench, {"a": np.ones(1000, np.float32)}, precision=precision, clipping_norm=2.0**40)
    assert isinstance(update.write(noise(), bench.out), WrittenArrays)
    layout = read_layout(bench.out)
    assert layout.tensors[0].dtype == precision
    if precision == "float16":
        told = load_file(bench.out)["a"]
        assert np.isfinite(told).all()  # beyond the largest: the largest
        assert float(np.abs(told).max()) == float(np.finfo(np.float16).max)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (math.nan, RefusalCode.RELEASE_TENSOR_NOT_FINITE),
        (math.inf, RefusalCode.RELEASE_TENSOR_NOT_FINITE),
        (3e38, RefusalCode.RELEASE_TENSOR_RANGE),
        (2e6, RefusalCode.RELEASE_TENSOR_RANGE),
    ],
)
def test_what_is_not_finite_or_out_of_range_withholds_before_anything_is_drawn(
    wide: Bench, value: float, code: RefusalCode
) -> None:
    reply = {"a": np.zeros((300, 400), np.float32), "b": np.zeros(80_000, np.float32)}
    reply["b"][17] = value
    found = measure(wide, reply)
    assert isinstance(found, tuple)
    assert [reason.code for reason in found] == [code]


def test_buffers_stay_at_the_station(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    update = measured(bench, bench.inbound_tensors)
    assert {pair.name for pair in update.pairs} == {"layer.weight", "layer.bias"}
    assert set(released(bench, update)) == {"layer.weight", "layer.bias"}


def test_other_tensors_than_the_contracts_withhold(wide: Bench) -> None:
    found = measure(wide, {"a": np.zeros((300, 400), np.float32)})
    assert isinstance(found, tuple)
    assert found[0].code is RefusalCode.RELEASE_TENSOR_MISSING


def test_a_norm_over_its_bound_lets_nothing_leave(wide: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be; were it, the last look would see it."""
    reply = {"a": np.ones((300, 400), np.float32), "b": np.zeros(80_000, np.float32)}
    update = measured(wide, reply)
    monkeypatch.setattr(noising._Rounding, "rounded", _careless)
    found = update.write(noise(), wide.out)
    assert isinstance(found, tuple)
    assert found[0].code is RefusalCode.STATION_FAULT
    assert not wide.out.exists()


def _careless(self: Any, values: NDArray[np.float64]) -> NDArray[np.int64]:
    whole = np.ceil(values * self._per_step * 1.1)
    self.squares += int(np.sum(whole * whole))
    return whole.astype(np.int64)


def test_noise_is_drawn_once_and_only_where_it_was_charged(wide: Bench) -> None:
    update = measured(wide, {"a": np.zeros((300, 400), np.float32), "b": np.zeros(80_000, np.float32)})
    paid = noise()
    assert isinstance(update.write(paid, wide.out), WrittenArrays)
    with pytest.raises(StateError, match="drawn before"):
        update.write(paid, wide.out)
    other = charged_noise(PRIVACY, (Query(QueryKind.METRIC, "loss"),), lambda _: None)
    assert isinstance(other, ChargedNoise)
    with pytest.raises(StateError, match="not charged"):
        update.write(other, wide.out)


def test_whoever_is_not_charged_gets_no_noise() -> None:
    asked: list[Any] = []

    def refuse(queries: Any) -> Refused:
        asked.append(queries)
        return Refused.because(RefusalCode.BUDGET_PRIVACY, "spent")

    assert isinstance(charged_noise(PRIVACY, [UPDATE], refuse), Refused)
    assert asked == [(UPDATE,)]


def test_the_same_update_twice_has_other_noise(wide: Bench) -> None:
    reply = {"a": np.zeros((300, 400), np.float32), "b": np.zeros(80_000, np.float32)}
    update = measured(wide, reply)
    one, other = flat(released(wide, update)), flat(released(wide, update))
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 6.5 / math.sqrt(len(one))
