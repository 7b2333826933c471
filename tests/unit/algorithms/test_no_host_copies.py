"""What a GPU is spared while it trains: nothing is read back before the round ends, images go over once, memory is laid out channels last.

No GPU is needed to see it. Torch's `meta` device has no numbers: whatever asks for one (`item`, `cpu`, a tensor in an `if`, indexing by
a mask) raises there, and on a GPU waits for all steps that were asked before. What goes over from the host is counted beside that.
Automatic casting is left out, which `meta` does not have: it casts where the tensors lie (`test_cxr_resume.py`). So is the scaling that
float16 needs: torch's scaler reads one number per step back, to leave out steps that overflowed. GPUs with bfloat16 need none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from cxr_kit import ask as ask_cxr
from cxr_kit import lay_cohort, mounted
from monai.networks.nets import DenseNet
from monai.transforms import RandAffine
from segmentation_kit import ask as ask_ct
from segmentation_kit import forget, make_case, write_cohort
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from algorithms.clientapp import precision
from algorithms.ct_segmentation import sampling
from algorithms.ct_segmentation import training as ct
from algorithms.ct_segmentation.networks import segresnet, unet
from algorithms.ct_segmentation.sampling import Sampling
from algorithms.cxr_classification import augmentation
from algorithms.cxr_classification import training as cxr
from algorithms.cxr_classification.initial_weights import initial_weights

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

GPU = torch.device("meta")
"""In a GPU's place."""
PATCH = (32, 32, 32)


class Crossings(TorchDispatchMode):
    """Notes how many numbers go over from the host at a time; what comes back raises by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        before, after = (
            [each for each in tree_leaves(leaves) if isinstance(each, torch.Tensor)]
            for leaves in ((args, kwargs), out)
        )
        if any(each.device.type == "cpu" for each in before) and any(each.is_meta for each in after):
            self.sizes.append(max(each.numel() for each in before if each.device.type == "cpu"))
        return out


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the trains read at the end of a round, once: the mean loss. It stays unread here."""
    seen: list[torch.Tensor] = []

    class WithoutCasting(precision.MixedPrecision):
        def autocast(self) -> AbstractContextManager[None]:  # type: ignore[override]
            return nullcontext()

    for module in (cxr, ct):
        monkeypatch.setattr(module, "finite_loss", seen.append)
        monkeypatch.setattr(module, "MixedPrecision", WithoutCasting)
    return seen


def recipe(**changes: Any) -> cxr.Recipe:
    return cxr.Recipe(**{"learning_rate": 1e-3, "local_epochs": 2, "batch_size": 4, "seed": 1} | changes)


@pytest.mark.parametrize(
    "changes", [{}, {"proximal_mu": 0.5}, {"plain_sgd": True, "frozen_statistics": True}]
)
def test_a_classifiers_round_takes_images_over_once_and_reads_one_number(
    read: list[torch.Tensor], changes: dict[str, Any]
) -> None:
    images, labels = torch.randn(10, 1, 32, 32), torch.ones(10, 2)
    labels[0, 1] = torch.nan
    # As DenseNet121, but that many layers take minutes without numbers too.
    model = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(1, 1)).to(GPU)
    with Crossings() as over:
        cxr.train(model, TensorDataset(images, labels), recipe(augment=False, **changes), GPU)
    assert over.sizes == [images.numel(), labels.numel()]
    assert [each.shape for each in read] == [()]


@pytest.mark.parametrize(
    "work",
    [
        lambda numbers: numbers.sum().item(),
        lambda numbers: numbers.cpu(),
        lambda numbers: numbers[numbers > 0],
        lambda numbers: bool(numbers.max() > 1),
    ],
)
def test_whatever_reads_numbers_back_is_seen(work: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        work(torch.zeros(3, device=GPU))


@pytest.mark.parametrize(("augment", "proximal_mu"), [(True, 0.5), (False, 0.0)])
def test_a_segmentations_round_takes_each_patch_over_once_and_reads_one_number(
    read: list[torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    augment: bool,
    proximal_mu: float,
) -> None:
    monkeypatch.setattr(sampling, "_moved", lambda tensor, place: tensor.to(place))
    items = [
        {key: str(tmp_path / path) if "/" in path else path for key, path in entry.items()}
        for entry in (make_case(tmp_path, "a"), make_case(tmp_path, "b"))
    ]
    drawn = Sampling((2.2, 2.2, 3.0), PATCH, 2, 0.5, (-1000.0, 400.0), augment=augment, seed=7, classes=2)
    chosen = ct.Recipe(0.01, 2, 3, plain_sgd=False, proximal_mu=proximal_mu, round=1)
    network = unet(2, 2).to(GPU)
    with Crossings() as over:
        ct.train(network, items, chosen, drawn, GPU)  # type: ignore[arg-type]
    # Two cases, two patches, two epochs; an image and its label map each.
    assert over.sizes == [32**3] * 16
    assert [each.shape for each in read] == [()]


@pytest.fixture
def convolved() -> Iterator[list[tuple[nn.Module, torch.Tensor]]]:
    """Every convolution that is called, and what it answers."""
    seen: list[tuple[nn.Module, torch.Tensor]] = []

    def note(module: nn.Module, _given: Any, answer: Any) -> None:
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.training:
            seen.append((module, answer.detach()))

    # With one thread torch convolves small volumes by another kernel, which keeps to no layout.
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    hook = nn.modules.module.register_module_forward_hook(note)
    yield seen
    hook.remove()
    torch.set_num_threads(before)


def laid_out(seen: Sequence[tuple[nn.Module, torch.Tensor]], layout: torch.memory_format) -> bool:
    """Whether weights and answers lie in this layout, and not in both: where a side is 1 that is nothing."""
    tensors = [each for module, answer in seen for each in (module.weight, answer)]
    told = [
        each for each in tensors if not each.is_contiguous() or not each.is_contiguous(memory_format=layout)
    ]
    assert len(told) > len(seen) / 2
    return all(each.is_contiguous(memory_format=layout) for each in told)


def test_a_classifier_is_trained_channels_last(
    convolved: list[tuple[nn.Module, torch.Tensor]], tmp_path: Path
) -> None:
    cohort = lay_cohort(tmp_path / "cohort", {"training": 2})
    with mounted(cohort):
        ask_cxr("train", initial_weights())
    assert len(convolved) == 120
    assert laid_out(convolved, torch.channels_last)


@pytest.mark.parametrize("build", [lambda: unet(2, 2), lambda: segresnet(2, 8)])
def test_a_segmentation_is_trained_channels_last(
    build: Callable[[], nn.Module],
    convolved: list[tuple[nn.Module, torch.Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_cohort(tmp_path, {"training": [make_case(tmp_path, "a")]})
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    forget()
    ask_ct("train", {name: each.numpy() for name, each in build().state_dict().items()})
    forget()
    assert len(convolved) > 10
    assert laid_out(convolved, torch.channels_last_3d)


def test_augmentation_takes_over_a_few_numbers_of_each_image(read: list[torch.Tensor]) -> None:
    images, labels = torch.randn(8, 1, 32, 32), torch.ones(8, 1)
    model = DenseNet(2, 1, 1, init_features=8, growth_rate=4, block_config=(1, 1)).to(GPU)
    with Crossings() as over:
        cxr.train(model, TensorDataset(images, labels), recipe(local_epochs=1), GPU)
    assert over.sizes[:2] == [images.numel(), labels.numel()]
    assert 0 < len(over.sizes[2:]) <= 8
    assert max(over.sizes[2:]) <= 9
    assert len(read) == 1


def test_images_are_turned_and_moved_as_monai_does_it() -> None:
    image = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(2))
    given: dict[str, Any] = {
        "prob": 0.8,
        "rotate_range": 0.1,
        "translate_range": 40 / 32,
        "scale_range": 0.1,
        "padding_mode": "border",
        "cache_grid": False,
    }
    ours, theirs = augmentation._Moved(**given), RandAffine(**given)
    ours.set_random_state(seed=3)
    theirs.set_random_state(seed=3)
    pairs = [(torch.as_tensor(ours(image)), torch.as_tensor(theirs(image))) for _ in range(12)]
    assert sum(not torch.equal(one, image) for one, _ in pairs) >= 6
    assert all(torch.allclose(one, other, atol=2e-4) for one, other in pairs)
