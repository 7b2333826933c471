"""One full-batch step over three hospitals is the step on their pooled images; what each release rule costs of that.

Every step goes through the train's own ClientApp, the guard under the example policy (with the rules that a test names), and the
orchestrator's FedAvg. The network normalises by statistics that are held still: BatchNorm's own would be each hospital's.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cxr_kit import lay_cohort, mounted, round_of, shipped, trained
from round_kit import Weights, policy_with

from algorithms.cxr_classification.initial_weights import initial_weights

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

STEP: Mapping[str, float] = {
    "learning_rate": 0.01, "batch_size": 4096, "augment": False, "plain_sgd": True, "frozen_statistics": True,
    "positive_weight": 1.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three of 20, 30 and 40 training images: counts that the station's rounding to tens leaves as they are."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("hospitals")
    sizes = {"amstel": 20, "berkel": 30, "dommel": 40}
    return {name: lay_cohort(folder / name, {"training": count}, seed=count) for name, count in sizes.items()}


@pytest.fixture(scope="module")
def start(hospitals: dict[str, Path]) -> Weights:
    """A network that has seen images, so that its statistics are some."""
    with mounted(hospitals["amstel"]):
        return trained(initial_weights(), local_epochs=2)


def joined(hospitals: Mapping[str, Path], folder: Path) -> Path:
    folder.mkdir()
    cases = [
        case | {"image": str(cohort / case["image"])}
        for cohort in hospitals.values()
        for case in json.loads((cohort / "datalist.json").read_text())["training"]
    ]
    (folder / "datalist.json").write_text(json.dumps({"training": cases}))
    return folder


@pytest.fixture(scope="module")
def central(hospitals: dict[str, Path], start: Weights, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    with mounted(joined(hospitals, tmp_path_factory.mktemp("pooled") / "cohort")):
        return trained(start, **STEP)


@pytest.fixture(scope="module")
def alone(hospitals: dict[str, Path], start: Weights) -> list[Weights]:
    """Where each hospital's own step leads."""
    found = []
    for cohort in hospitals.values():
        with mounted(cohort):
            found.append(trained(start, **STEP))
    return found


def furthest(one: Weights, other: Weights) -> float:
    return max(
        float(np.abs(one[name].astype(np.float64) - other[name]).max())
        for name in one
        if one[name].dtype.kind == "f"
    )


def test_the_federated_step_is_the_pooled_one(
    hospitals: dict[str, Path], start: Weights, central: Weights, alone: list[Weights], tmp_path: Path
) -> None:
    # Release rules: float32 deltas, no clipping, no noise, float buffers leave, integer buffers stay.
    _, policy = shipped()
    assert policy.release.tensors is not None
    assert (policy.release.tensors.precision, policy.release.tensors.clipping_norm) == ("float32", None)
    federated = round_of(tmp_path / "round", hospitals, policy).run(start, **STEP)
    assert furthest(federated, central) <= 1e-5
    # The step is one, and no hospital's own is like it.
    assert furthest(central, start) > 1e-3
    assert all(furthest(own, central) > 1e-4 for own in alone)
    # The statistics were held still, and the counters with them.
    still = [name for name in start if "running_" in name or "num_batches" in name]
    assert all(np.array_equal(central[name], start[name]) for name in still)


def test_hospitals_that_weigh_by_their_own_prevalence_take_another_step(
    hospitals: dict[str, Path], start: Weights, central: Weights, tmp_path: Path
) -> None:
    _, policy = shipped()
    unlike = dict(hospitals) | {"dommel": _fewer_positives(hospitals["dommel"], tmp_path / "dommel")}
    with mounted(joined(unlike, tmp_path / "pooled")):
        pooled = {given: trained(start, **STEP | {"positive_weight": given}) for given in (0.0, 1.5)}
    own, common = (
        round_of(tmp_path / f"round-{given}", unlike, policy).run(start, **STEP | {"positive_weight": given})
        for given in (0.0, 1.5)
    )
    assert furthest(common, pooled[1.5]) <= 1e-5
    assert furthest(own, pooled[0.0]) > 1e-5


def _fewer_positives(cohort: Path, to: Path) -> Path:
    to.mkdir()
    cases = json.loads((cohort / "datalist.json").read_text())["training"]
    for number, case in enumerate(cases):
        case["label"] *= int(number % 6 == 1)
        case["image"] = str(cohort / case["image"])
    (to / "datalist.json").write_text(json.dumps({"training": cases, "validation": [], "testing": []}))
    return to


def test_what_rounding_costs(
    hospitals: dict[str, Path], start: Weights, central: Weights, alone: list[Weights], tmp_path: Path
) -> None:
    # Release rule: deltas in bfloat16, 8 bits of precision. A hospital's step is off by 2^-9 of itself at most.
    _, policy = shipped()
    rounded = round_of(tmp_path / "round", hospitals, policy_with(policy, {"precision": "bfloat16"})).run(
        start, **STEP
    )
    step = max(furthest(own, start) for own in alone)
    assert 1e-7 < furthest(rounded, central) <= step * 2**-9 + 1e-6


def test_what_rounding_the_count_of_images_costs(
    hospitals: dict[str, Path], start: Weights, tmp_path: Path
) -> None:
    # Of 24 and 26 images a station tells 20 and 30: the mean is 40 to 60 where it should be 48 to 52.
    _, policy = shipped()
    two = {
        "amstel": lay_cohort(tmp_path / "amstel", {"training": 24}, seed=1),
        "berkel": lay_cohort(tmp_path / "berkel", {"training": 26}, seed=2),
    }
    with mounted(joined(two, tmp_path / "pooled")):
        pooled = trained(start, **STEP)
    federated = round_of(tmp_path / "round", two, policy).run(start, **STEP)
    steps = []
    for cohort in two.values():
        with mounted(cohort):
            steps.append(trained(start, **STEP))
    expected = {
        name: 0.4 * steps[0][name].astype(np.float64) + 0.6 * steps[1][name]
        for name in start
        if start[name].dtype.kind == "f"
    }
    assert max(float(np.abs(federated[name] - value).max()) for name, value in expected.items()) <= 1e-5
    assert furthest(federated, pooled) <= 0.08 * furthest(steps[0], steps[1]) + 1e-5


def test_what_noise_costs(
    hospitals: dict[str, Path], start: Weights, central: Weights, tmp_path: Path
) -> None:
    # Release rules: clipping at a norm that nothing reaches, noise of multiplier 0.01, buffers stay.
    # Each hospital's noise has 0.01 x 2 x norm as its standard deviation; of the mean of three, weighted by w, it is that times |w|.
    norm, multiplier = 5.0, 0.01
    _, policy = shipped()
    noisy = policy_with(
        policy,
        {"clipping_norm": norm, "float_buffers": "withhold"},
        metrics=[],
        differential_privacy={"noise_multiplier": multiplier, "epsilon": 1e9, "delta": 1e-5},
    )
    federated = round_of(tmp_path / "round", hospitals, noisy).run(start, **STEP)
    moved = [name for name in start if name.endswith(("weight", "bias"))]
    off = np.concatenate([(federated[name].astype(np.float64) - central[name]).ravel() for name in moved])
    shares = np.array([20, 30, 40]) / 90
    expected = multiplier * 2 * norm * float(np.linalg.norm(shares))
    assert off.std() == pytest.approx(expected, rel=0.02)
    assert abs(off.mean()) < 5 * expected / np.sqrt(off.size)
