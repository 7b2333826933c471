"""Several findings, some of them unknown of some patients; labels and files that are none; each failure with its code."""

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from cxr_kit import ask, lay_cohort, mounted, shipped, trained, write_table

from algorithms.clientapp.failures import TrainError
from algorithms.cxr_classification.client_app import figures
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.initial_weights import initial_weights
from algorithms.cxr_classification.loss import finding_loss, positive_weights
from algorithms.cxr_classification.training import Recipe, train

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")
NAN = math.nan


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    return lay_cohort(tmp_path / "cohort", {"training": 6, "validation": 4})


def code(cohort: Path, findings: tuple[str, ...] = (), kind: str = "train") -> str:
    with mounted(cohort, findings), pytest.raises(TrainError) as failed:
        ask(kind, initial_weights())
    manifest, policy = shipped()
    # What has a code is declared and granted, else a hospital would see a crash.
    assert failed.value.pht_error_code in set(manifest.error_codes) & set(policy.release.error_codes)
    return failed.value.pht_error_code


def test_findings_are_the_clinical_fields_that_the_image_names_in_its_order(cohort: Path) -> None:
    write_table(
        cohort, {"effusion": ["0", "1", "", "0", "1", "true"], "mass": ["false", "", "", "1", "0", "0"]}
    )
    with mounted(cohort, ("mass", "effusion")):
        labels = load_split(cohort, "training", 32).tensors[1]
        expected = torch.tensor([[0, 0], [NAN, 1], [NAN, NAN], [1, 0], [0, 1], [0, 1]])
        assert torch.equal(torch.nan_to_num(labels, 9), torch.nan_to_num(expected, 9))
        start = initial_weights()
        assert start["class_layers.out.weight"].shape == (2, 1024)
        after = trained(start)
        assert all(np.isfinite(value).all() for value in after.values())
        head = after["class_layers.out.weight"] - start["class_layers.out.weight"]
        assert (np.abs(head).max(axis=1) > 0).all()


def test_several_findings_are_evaluated_together_and_each(cohort: Path) -> None:
    write_table(cohort, {"effusion": ["0", "1", "0", "1"], "mass": ["1", "", "1", "1"]}, "validation")
    with mounted(cohort, ("effusion", "mass")):
        told = dict(ask("evaluate", initial_weights())["metrics"])
        scores = ask("query.score", initial_weights())["scores"]["loss"]
    # One class of mass alone is known: it has no AUC and is none of the mean.
    assert set(told) == {"loss", "auc", "auc_effusion"}
    assert told["auc"] == told["auc_effusion"]
    assert len(scores) == 4


def test_what_is_unknown_adds_nothing_to_the_loss_nor_to_a_gradient() -> None:
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.7], [-0.4, 0.1]], requires_grad=True)
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0], [NAN, 0.0]])
    weights = torch.tensor([2.0, 1.0])
    loss = finding_loss(logits, labels, weights)

    def by_hand(logit: float, label: int, weight: float) -> float:
        probability = 1 / (1 + math.exp(-(logit + math.log(weight))))
        return -weight * math.log(probability) if label else -math.log(1 - probability)

    known = [by_hand(0.3, 1, 2), by_hand(2.0, 0, 2), by_hand(0.7, 1, 1), by_hand(0.1, 0, 1)]
    assert loss.item() == pytest.approx(sum(known) / 4, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad[2, 0] == 0
    assert (logits.grad != 0).sum() == 4
    assert finding_loss(logits, torch.full_like(labels, NAN), weights).item() == 0


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.7])
def test_the_weight_of_positives_does_not_move_what_the_network_answers(weight: float) -> None:
    # 3 of 10 are positive: the best constant answer is logit 0.3, whatever positives count.
    labels = torch.tensor([[1.0]] * 3 + [[0.0]] * 7)
    answer = torch.full((1,), math.log(0.3 / 0.7), dtype=torch.float32, requires_grad=True)
    finding_loss(answer.expand(10, 1), labels, torch.tensor([weight])).backward()
    assert answer.grad is not None
    assert abs(answer.grad.item()) < 1e-6


def test_a_hospitals_own_weights_are_negatives_by_positives_within_a_factor_of_four() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, NAN], [0.0, 0.0, 1.0], [NAN, 0.0, 1.0]])
    assert positive_weights(labels, 0.0).tolist() == [2.0, 4.0, 0.25]
    assert positive_weights(labels, 1.5).tolist() == [1.5, 1.5, 1.5]


def test_a_finding_that_no_case_here_has_trains_the_others(cohort: Path) -> None:
    write_table(cohort, {"effusion": ["0", "1"] * 3, "mass": [""] * 6})
    with mounted(cohort, ("effusion", "mass")):
        assert 0 < dict(ask("train", initial_weights())["metrics"])["loss"] < 10


def test_figures_of_one_finding_have_no_name_behind_them() -> None:
    told = figures(torch.tensor([[0.1], [2.0]]), torch.tensor([[0.0], [1.0]]), calibrate=False)
    assert set(told) == {"loss", "auc"}
    assert told["auc"] == 1.0


@pytest.mark.parametrize("label", [2, -1, 0.5, "1", "yes", [1]])
def test_a_label_that_is_neither_0_nor_1_is_refused(cohort: Path, label: object) -> None:
    listed = json.loads((cohort / "datalist.json").read_text())
    listed["training"][3]["label"] = label
    (cohort / "datalist.json").write_text(json.dumps(listed))
    assert code(cohort) == "LABEL_NOT_BINARY"


@pytest.mark.parametrize("value", ["2", "yes", "nan", "1e0", "TRUE"])
def test_a_finding_that_is_neither_is_refused(cohort: Path, value: str) -> None:
    write_table(cohort, {"effusion": ["0", "1", value, "0", "1", "1"]})
    assert code(cohort, ("effusion",)) == "LABEL_NOT_BINARY"


def test_a_finding_that_the_cohort_has_not_is_named(cohort: Path) -> None:
    write_table(cohort, {"effusion": ["0"] * 6})
    assert code(cohort, ("effusion", "mass")) == "FINDING_ABSENT"


def test_no_labels_at_all_are_refused(cohort: Path) -> None:
    write_table(cohort, {"effusion": [""] * 6})
    assert code(cohort, ("effusion",)) == "NO_LABELS"


def test_a_split_without_cases_is_refused(tmp_path: Path) -> None:
    cohort = lay_cohort(tmp_path / "cohort", {"training": 4})
    assert code(cohort, kind="evaluate") == "NO_CASES"


def test_one_image_is_too_few_to_normalise_by(tmp_path: Path) -> None:
    assert code(lay_cohort(tmp_path / "cohort", {"training": 1})) == "TOO_FEW_IMAGES"


@pytest.mark.parametrize("damage", ["cut", "volume", "no image", "size"])
def test_an_image_that_is_none_is_refused(cohort: Path, damage: str) -> None:
    path = cohort / "images" / "ctraining2.nii"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:400])
    elif damage == "volume":
        nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 9), np.uint16), np.eye(4), dtype=np.uint16), path)
    elif damage == "size":
        # NIfTI-1's dim[1] at byte 42: fewer columns than none.
        path.write_bytes(path.read_bytes()[:42] + b"\x00\x80" + path.read_bytes()[44:])
    else:
        path.write_bytes(b"no image")
    assert code(cohort) == "IMAGE_UNREADABLE"


def test_weights_of_another_network_are_refused_by_code(cohort: Path) -> None:
    weights = initial_weights()
    weights["class_layers.out.weight"] = np.zeros((3, 1024), np.float32)
    with mounted(cohort), pytest.raises(TrainError, match=r"class_layers\.out\.weight") as failed:
        ask("train", weights)
    assert failed.value.pht_error_code == "WEIGHTS_DO_NOT_FIT"


def test_training_that_diverges_answers_no_weights(cohort: Path) -> None:
    weights = initial_weights()
    weights["class_layers.out.bias"] = np.array([np.nan], np.float32)
    with mounted(cohort), pytest.raises(TrainError, match="diverged") as failed:
        ask("train", weights)
    assert failed.value.pht_error_code == "LOSS_NOT_FINITE"


def test_every_code_that_the_train_declares_is_raised_somewhere() -> None:
    source = Path(train.__code__.co_filename).parent
    shared = [source.parent / "clientapp" / name for name in ("cohort.py", "optimising.py")]
    text = "".join(path.read_text() for path in [*source.glob("*.py"), *shared])
    manifest, _ = shipped()
    assert all(f'"{declared}"' in text for declared in manifest.error_codes)
    assert Recipe(0.1, 1, 2, 3).positive_weight == 0.0
