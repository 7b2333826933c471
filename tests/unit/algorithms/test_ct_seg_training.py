"""The CT segmentation train as its container runs it: a cohort on disk, Flower messages in and out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_kit import SAMPLING, ask, forget, make_case, same, trained, weights, write_cohort
from told_kit import shipped

from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.precision import _best
from algorithms.ct_segmentation import client_app, training
from algorithms.ct_segmentation.agreement import summary
from algorithms.ct_segmentation.networks import unet
from algorithms.ct_segmentation.sampling import patches
from algorithms.ct_segmentation.training import Recipe, train

# MONAI looks for a decoder plugin of a package that neither we nor the image have, and says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodec"),
    # MONAI 1.6.1 calls its own function with an argument that it has deprecated itself.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges"),
]


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Four cases to train on and six to score on, two of whom have nothing marked."""
    write_cohort(
        tmp_path,
        {
            "training": [make_case(tmp_path, f"t{number}") for number in range(4)],
            "validation": [make_case(tmp_path, f"v{number}", marked=number < 4) for number in range(6)],
        },
    )
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    # Three, so that six small cases are enough; the number itself is tested by itself.
    monkeypatch.setattr(client_app, "summary", partial(summary, minimum=3))
    torch.set_num_threads(1)
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize("kind", ["unet", "segresnet"])
def test_a_round_returns_every_tensor_changed_and_a_loss(kind: str, cohort: Path) -> None:
    before = weights(kind)
    content = ask("train", before)
    after = {name: array.numpy() for name, array in content["arrays"].items()}
    assert after.keys() == before.keys()
    assert all(after[name].shape == before[name].shape for name in before)
    assert all(after[name].dtype == before[name].dtype == np.float32 for name in before)
    changed = [name for name in before if not np.array_equal(after[name], before[name])]
    assert len(changed) > 0.9 * len(before)
    assert set(content["metrics"]) == {"loss"}
    assert 0 < content["metrics"]["loss"] < 5


@pytest.mark.parametrize("kind", ["unet", "segresnet"])
def test_equal_seeds_give_equal_bytes_and_others_do_not(kind: str, cohort: Path) -> None:
    first = trained(weights(kind))
    forget()
    assert same(first, trained(weights(kind)))
    assert not same(first, trained(weights(kind), seed=8))
    assert not same(first, trained(weights(kind), **{"server-round": 2}))


def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(cohort: Path) -> None:
    unbroken = [weights()]
    for number in (1, 2, 3):
        unbroken.append(trained(unbroken[-1], **{"server-round": number}))
    forget()
    # A new process begins with the third round, from the checkpoint of the second.
    assert same(trained(unbroken[2], **{"server-round": 3}), unbroken[3])


def test_volumes_held_in_memory_give_the_very_weights_that_the_map_gives(cohort: Path) -> None:
    mapped = trained(weights(), cache_share=0.0)
    assert client_app._training_cases.cache_info().currsize == 1
    assert same(mapped, trained(weights(), cache_share=0.5))


def test_the_loss_of_a_batch_is_the_mean_of_its_patches() -> None:
    """What lets steps over hospitals add up: each patch's loss is its own, however large its structure is."""
    random = torch.Generator().manual_seed(2)
    logits = torch.randn((3, 2, 8, 8, 8), generator=random)
    labels = torch.zeros((3, 1, 8, 8, 8), dtype=torch.uint8)
    labels[0, :, :2], labels[1, :, :, :7] = 1, 1
    each = [float(training.criterion()(logits[at : at + 1], labels[at : at + 1])) for at in range(3)]
    assert float(training.criterion()(logits, labels)) == pytest.approx(sum(each) / 3, abs=1e-6)
    assert max(each) - min(each) > 0.01


def test_the_messages_proximal_mu_holds_training_near_its_start(cohort: Path) -> None:
    start = weights()
    # Two epochs of two steps: at the first step nothing has moved yet, and there is nothing to hold.
    plain = trained(start, local_epochs=2)
    held = trained(start, local_epochs=2, **{"proximal-mu": 1000.0})
    far, near = (
        sum(float(np.sum((after[name] - start[name]) ** 2)) for name in start) for after in (plain, held)
    )
    assert near < 0.7 * far


def test_rounds_find_the_structure(cohort: Path) -> None:
    model = weights()
    before = ask("evaluate", model)["metrics"]
    for number in range(1, 6):
        model = trained(model, patches_per_case=6, **{"server-round": number})
    content = ask("evaluate", model)
    assert "arrays" not in content
    after = content["metrics"]
    assert set(after) == {
        "loss",
        "dice_nodule",
        "hd95_mm_nodule",
    }  # false alarms are of two patients: too few to tell
    assert after["dice_nodule"] > max(0.75, before["dice_nodule"] + 0.3)
    assert after["hd95_mm_nodule"] < 10
    assert before["hd95_mm_nodule"] > 50
    assert after["loss"] < before["loss"] - 0.3


def test_each_case_has_its_own_loss_whatever_stands_beside_it(cohort: Path) -> None:
    model = weights()
    losses = ask("query.score", model)["scores"]["loss"]
    assert len(losses) == 6
    assert np.mean(losses) == pytest.approx(ask("evaluate", model)["metrics"]["loss"], abs=1e-6)
    path = cohort / "datalist.json"
    listed = json.loads(path.read_text())
    listed["validation"] = [listed["validation"][at] for at in (3, 0, 3, 5)]
    path.write_text(json.dumps(listed))
    assert ask("query.score", model)["scores"]["loss"] == [losses[at] for at in (3, 0, 3, 5)]


def test_a_case_is_marked_for_the_hospital_on_its_own_voxels(cohort: Path) -> None:
    model = weights()
    found = ask("query.predict", model, case="v1")["arrays"]["structures"].numpy()
    assert found.dtype == np.uint8
    assert found.shape == (52, 46, 26)
    assert set(np.unique(found)) <= {0, 1}
    with pytest.raises(TrainError, match="not in datalist") as caught:
        ask("query.predict", model, case="nobody")
    assert caught.value.pht_error_code == "NO_CASES"


def test_mixed_precision_takes_about_the_same_step(cohort: Path) -> None:
    """The path of a GPU, on the CPU: half precision with scaled losses is near what float32 gives, and it is another number.

    Not bfloat16: torch 2.13 on a CPU now and then leaves memory in a small convolution's gradient that nobody wrote.
    """
    found = {}
    for dtype in (torch.float32, torch.float16):
        network = unet(2, 4)
        network.load_state_dict({name: tensor.clone() for name, tensor in _wide().items()})
        cases = client_app._training_cases(cohort, (2.2, 2.2, 3.0), 0.0)
        recipe = Recipe(0.05, 1, 8, plain_sgd=True, proximal_mu=0.0, round=1)
        loss = train(network, cases, recipe, SAMPLING, torch.device("cpu"), dtype)
        found[dtype] = (loss, torch.cat([value.detach().flatten() for value in network.parameters()]))
    start = torch.cat([value.flatten() for value in _wide().values()])
    exact, half = found[torch.float32], found[torch.float16]
    assert half[0] == pytest.approx(exact[0], rel=0.02)
    assert half[0] != exact[0]
    step, other = exact[1] - start, half[1] - start
    assert float(step @ other) / float(step.norm() * other.norm()) > 0.95


@pytest.mark.parametrize(
    ("generation", "dtype"), [(7, torch.float16), (8, torch.bfloat16), (9, torch.bfloat16)]
)
def test_a_gpu_without_bfloat16_in_hardware_computes_in_float16(
    generation: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Volta and Turing have none; torch takes it apart there and, unless asked otherwise, says that it is supported."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    device = SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: device)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _device: True)
    assert _best(torch.device("cuda")) is dtype
    assert _best(torch.device("cpu")) is torch.float32


def test_what_is_read_ahead_for_a_gpu_is_the_same_and_faults_are_seen(cohort: Path) -> None:
    """The thread that reads for a GPU, without one."""
    drawn = [(torch.tensor([number]), torch.tensor([number])) for number in range(50)]
    gpu = torch.device("cuda")
    assert [int(one) for one, _ in training._ahead(iter(drawn), gpu)] == list(range(50))

    def broken() -> Iterator[Any]:
        yield drawn[0]
        raise TrainError("MASK_VALUES", "a fault in the thread")

    with pytest.raises(TrainError, match="in the thread"):
        list(training._ahead(broken(), gpu))


def test_what_is_drawn_from_a_case_does_not_follow_from_the_others(cohort: Path) -> None:
    place, sampling = torch.device("cpu"), SAMPLING
    items = [dict(item) for item in client_app._training_cases(cohort, (2.2, 2.2, 3.0), 0.0)]
    alone = [image for image, _ in patches([items[2]], sampling, (1, 0), place)]  # type: ignore[arg-type]
    together = [image for image, _ in patches(items, sampling, (1, 0), place)]  # type: ignore[arg-type]
    assert all(any(torch.equal(one, other) for other in together) for one in alone)
    later = [image for image, _ in patches(items, sampling, (1, 1), place)]  # type: ignore[arg-type]
    assert not any(torch.equal(one, other) for one in later for other in together)
    plain = replace(sampling, augment=False)
    images = [image for image, _ in patches(items, plain, (1, 0), place)]  # type: ignore[arg-type]
    assert 0 <= min(float(image.min()) for image in images) < max(float(image.max()) for image in images) <= 1
    # Mirrored, brighter or with more contrast, some of them: the same boxes look otherwise.
    assert any(not torch.equal(one, other) for one, other in zip(images, together, strict=True))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda listed, _folder: listed["labels"].pop("1"), "NO_MASKS"),
        (lambda listed, _folder: listed["training"][0].pop("label"), "NO_MASKS"),
        (lambda listed, _folder: listed["labels"].update({"1": "lung-left", "2": "Lung left"}), "MASK_NAMES"),
        (lambda listed, _folder: listed["training"].clear(), "NO_CASES"),
        (lambda listed, _folder: listed["training"][0].update(image="../../etc/passwd"), "CASES_UNREADABLE"),
        (lambda listed, _folder: listed["training"][0].update(image=None), "CASES_UNREADABLE"),
        (lambda listed, _folder: listed["labels"].update({"2": "vessel"}), "WEIGHTS_DO_NOT_FIT"),
        (lambda _listed, folder: (folder / "images/t0.nii").write_bytes(b""), "VOLUME_UNREADABLE"),
        (lambda _listed, folder: (folder / "labels/t0.nii").unlink(), "VOLUME_UNREADABLE"),
        (lambda _listed, folder: _move_label(folder), "VOLUME_GRID"),
        (lambda _listed, folder: _mark_with(folder, 9), "MASK_VALUES"),
    ],
)
def test_what_is_wrong_with_a_cohort_has_a_code(spoil: Any, code: str, cohort: Path) -> None:
    path = cohort / "datalist.json"
    listed = json.loads(path.read_text())
    spoil(listed, cohort)
    path.write_text(json.dumps(listed))
    with pytest.raises(Exception, match=r".") as caught:
        ask("train", weights(), share_about_structures=1.0)
    assert getattr(caught.value, "pht_error_code", None) == code
    for name in ("ct-segmentation", "ct-segmentation-segresnet", "segmentation-evaluation"):
        assert code in shipped(name).error_codes


def _move_label(folder: Path) -> None:
    data = bytearray((folder / "labels/t0.nii").read_bytes())
    data[268:272] = np.array([77.0], "<f4").tobytes()
    data[292:296] = np.array([77.0], "<f4").tobytes()
    (folder / "labels/t0.nii").write_bytes(bytes(data))


def _mark_with(folder: Path, value: int) -> None:
    data = np.frombuffer((folder / "labels/t0.nii").read_bytes(), np.uint8).copy()
    data[352:] *= value
    (folder / "labels/t0.nii").write_bytes(data.tobytes())


def _wide() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return unet(2, 4).state_dict()
