"""A run that is broken off and goes on from its checkpoint, in a new process, ends at the same bytes; and augmentation, precision."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cxr_kit import ROOT, ask, lay_cohort, mounted, trained
from round_kit import Weights
from safetensors.numpy import load_file, save_file
from torch import nn

from algorithms.clientapp.precision import MixedPrecision
from algorithms.clientapp.proximal import ProximalTerm
from algorithms.cxr_classification.augmentation import augmentation
from algorithms.cxr_classification.initial_weights import initial_weights

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")
CPU = torch.device("cpu")
ROUND = """
import sys
from pathlib import Path
import torch
from cxr_kit import mounted, trained
from safetensors.numpy import load_file, save_file
torch.set_num_threads(1)
with mounted(Path(sys.argv[1])):
    weights = load_file(sys.argv[2])
    for number in range(2, 4):
        weights = trained(weights, **{"server-round": number})
save_file(weights, sys.argv[2])
"""


@pytest.fixture
def cohort(tmp_path: Path) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lay_cohort(tmp_path / "cohort", {"training": 9, "validation": 4})
    torch.set_num_threads(before)


def _bytes(weights: Weights) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in weights.items()}


def test_a_run_that_goes_on_from_its_checkpoint_ends_as_one_without_a_break(
    cohort: Path, tmp_path: Path
) -> None:
    weights = initial_weights()
    with mounted(cohort):
        for number in range(1, 4):
            weights = trained(weights, **{"server-round": number})
            # What is asked between rounds changes nothing of the next.
            ask("evaluate", weights)
            if number == 1:
                save_file(weights, tmp_path / "checkpoint")
                first = weights
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ROUND, str(cohort), str(tmp_path / "checkpoint")],
        check=True,
        env=environment,
        timeout=300,
    )
    assert _bytes(load_file(tmp_path / "checkpoint")) == _bytes(weights)
    # Rounds differ in their order and augmentation: the third from the first's weights is another.
    with mounted(cohort):
        second, other = (trained(first, **{"server-round": number}) for number in (2, 3))
    assert _bytes(second) != _bytes(other)


def test_augmentation_follows_from_its_seed_and_keeps_the_size() -> None:
    image = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(1))
    one, same, other = (
        [torch.as_tensor(change(image)) for _ in range(8)]
        for change in (augmentation(3, 40), augmentation(3, 40), augmentation(4, 40))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(each.shape == image.shape and torch.isfinite(each).all() for each in one)
    # Changed, but still that radiograph: no change turns black to white.
    assert sum(not torch.equal(each, image) for each in one) >= 6
    assert all(abs(each.mean()) < 0.3 and 0.5 < each.std() < 1.5 for each in one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_leaves_gradients_at_their_own_size(dtype: torch.dtype) -> None:
    def steps(kind: torch.dtype) -> torch.Tensor:
        torch.manual_seed(2)
        model = nn.Linear(8, 1)
        inputs, targets = torch.randn(32, 8), torch.randn(32, 1)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        precision, proximal = MixedPrecision(CPU, kind), ProximalTerm(model.parameters(), 2.0)
        for _ in range(6):
            optimiser.zero_grad(set_to_none=True)
            with precision.autocast():
                answer = model(inputs)
            assert answer.dtype is kind
            precision.backward(nn.functional.mse_loss(answer.float(), targets), optimiser)
            proximal.add_gradient()
            precision.step(optimiser)
        return torch.cat([each.detach().ravel() for each in model.parameters()])

    # The pull is added to gradients of their own size: scaled ones, 65536 times as large, would drown it.
    assert torch.allclose(steps(dtype), steps(torch.float32), atol=0.01)
    assert MixedPrecision(CPU).dtype is torch.float32
