"""One full-batch step over three hospitals is the step on all their volumes; what each release rule costs of that.

Every step goes through the train's own ClientApp, the guard under the example policy (with the rules that a test names), and the
orchestrator's FedAvg. The networks normalise each patch by itself, so that nothing of a hospital's is mixed in. What is left between the
two is float32: a bias of the last layer has its gradient summed over two million voxels. In float64 the two are 1e-9 apart.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from round_kit import Round, Weights, policy_with
from segmentation_kit import ask, forget, make_case, weights, write_cohort
from told_kit import TRAINS, shipped

from policies.documents import load_yaml_file
from policies.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

NAMES = {"unet": "ct-segmentation", "segresnet": "ct-segmentation-segresnet"}
SIZES = {"amstel": 20, "berkel": 20, "dommel": 30}
"""Cases: counts that the station's rounding to tens leaves as they are."""
STEP: Mapping[str, float] = {
    "plain_sgd": True, "batch_size": 128, "patches_per_case": 1, "learning_rate": 0.01,
}  # fmt: skip


def answer(cohort: Path, start: Weights, settings: Mapping[str, float]) -> RecordDict:
    """What the train answers at a hospital, in a container of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHT_DATA", str(cohort))
        forget()
        content = ask("train", start, **settings)
        forget()
    return content


def step_of(cohort: Path, start: Weights) -> Weights:
    return {name: each.numpy() for name, each in answer(cohort, start, STEP)["arrays"].items()}


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    made = {}
    for name, size in SIZES.items():
        folder = made[name] = tmp_path_factory.mktemp(name)
        write_cohort(folder, {"training": [make_case(folder, f"{name}{each}") for each in range(size)]})
    return made


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pooled")
    names = [f"{name}{each}" for name, size in SIZES.items() for each in range(size)]
    return write_cohort(folder, {"training": [make_case(folder, name) for name in names]})


@pytest.fixture(scope="module")
def central(pooled: Path) -> dict[str, Weights]:
    """Where the step on all volumes leads, by network."""
    return {kind: step_of(pooled, weights(kind)) for kind in NAMES}


def round_of(folder: Path, hospitals: Mapping[str, Path], kind: str, policy: Policy) -> Round:
    return Round(folder, hospitals, shipped(NAMES[kind]), policy, answer)


def policy_of(kind: str) -> Policy:
    return load_yaml_file(Policy, TRAINS.parent / "policies" / "examples" / f"{NAMES[kind]}.yaml")


def furthest(one: Weights, other: Weights) -> float:
    return max(float(np.abs(one[name].astype(np.float64) - other[name]).max()) for name in one)


@pytest.mark.parametrize("kind", NAMES)
def test_the_federated_step_is_the_pooled_one(
    kind: str, hospitals: dict[str, Path], central: dict[str, Weights], tmp_path: Path
) -> None:
    # Release rules: float32 deltas, no clipping, no noise, counts to the nearest ten.
    policy, start = policy_of(kind), weights(kind)
    assert policy.release.tensors is not None
    assert (policy.release.tensors.precision, policy.release.tensors.clipping_norm) == ("float32", None)
    federated = round_of(tmp_path / "round", hospitals, kind, policy).run(start, **STEP)
    apart = furthest(federated, central[kind])
    assert apart <= 1e-5
    # It is a step, and what one hospital alone would do is far from it.
    assert furthest(central[kind], start) > 1e-3
    assert all(furthest(step_of(cohort, start), central[kind]) > 20 * apart for cohort in hospitals.values())


@pytest.mark.parametrize("kind", NAMES)
def test_what_rounding_costs(
    kind: str, hospitals: dict[str, Path], central: dict[str, Weights], tmp_path: Path
) -> None:
    # Release rule: deltas in bfloat16, 8 bits of precision. A hospital's step is off by 2^-9 of itself at most.
    start = weights(kind)
    policy = policy_with(policy_of(kind), {"precision": "bfloat16"})
    rounded = round_of(tmp_path / "round", hospitals, kind, policy).run(start, **STEP)
    step = max(furthest(step_of(cohort, start), start) for cohort in hospitals.values())
    assert 1e-6 < furthest(rounded, central[kind]) <= step * 2**-9 + 1e-6


def test_what_noise_costs(hospitals: dict[str, Path], central: dict[str, Weights], tmp_path: Path) -> None:
    # Release rules: clipping at a norm that nothing reaches, noise of multiplier 0.01, no metrics.
    # Each hospital's noise has 0.01 x 2 x norm as its standard deviation; of the mean of three, weighted by w, it is that times |w|.
    norm, multiplier = 5.0, 0.01
    noisy = policy_with(
        policy_of("unet"),
        {"clipping_norm": norm, "float_buffers": "withhold"},
        metrics=[],
        differential_privacy={"noise_multiplier": multiplier, "epsilon": 1e9, "delta": 1e-5},
    )
    federated = round_of(tmp_path / "round", hospitals, "unet", noisy).run(weights(), **STEP)
    off = np.concatenate(
        [(federated[name].astype(np.float64) - each).ravel() for name, each in central["unet"].items()]
    )
    shares = np.array(list(SIZES.values())) / sum(SIZES.values())
    expected = multiplier * 2 * norm * float(np.linalg.norm(shares))
    assert off.std() == pytest.approx(expected, rel=0.05)
    assert abs(off.mean()) < 5 * expected / np.sqrt(off.size)
