"""The chest X-ray train as its container runs it: a cohort on disk, Flower messages in and out."""

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from told_kit import shipped

from algorithms.clientapp.failures import TrainError
from algorithms.cxr_classification import client_app
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.initial_weights import initial_weights
from algorithms.cxr_classification.training import auc
from algorithms.cxr_evaluation.client_app import app as evaluation_app
from algorithms.cxr_evaluation.client_app import rows

# MONAI looks for a decoder plugin of a package that neither we nor the image have, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

CONFIG = {
    "learning_rate": 3e-4,
    "local_epochs": 1,
    "batch_size": 4,
    "image_size": 64,
    "seed": 7,
    "server-round": 1,
}


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    random = np.random.default_rng(5)
    (tmp_path / "images").mkdir()
    listed: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "testing": []}
    for split, count in (("training", 9), ("validation", 6), ("testing", 6)):
        for number in range(count):
            label = number % 2
            pixels = random.integers(0, 20000, (80, 72), dtype=np.uint16)
            pixels[20:40, 20:40] += np.uint16(30000 * label)
            name = f"images/{split}-{number}.nii"
            nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4), dtype=np.uint16), tmp_path / name)
            listed[split].append({"image": name, "patient": f"{split}{number}", "label": label})
    (tmp_path / "datalist.json").write_text(json.dumps(listed))
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    torch.set_num_threads(1)
    yield tmp_path
    load_split.cache_clear()
    client_app._warm.clear()


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def message(kind: str, arrays: dict[str, np.ndarray], **changes: float) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()}),
            "config": ConfigRecord(CONFIG | changes),
        }
    )
    return Message(content=content, dst_node_id=1, message_type=kind, ttl=3600.0)


def trained(reply: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in reply.content["arrays"].items()}


def test_a_round_returns_every_tensor_changed_and_a_loss(cohort: Path) -> None:
    before = initial_weights()
    reply = client_app.app(message("train", before), context())
    after = trained(reply)
    assert after.keys() == before.keys()
    assert all(
        after[name].shape == before[name].shape and after[name].dtype == before[name].dtype for name in before
    )
    changed = [name for name in before if not np.array_equal(after[name], before[name])]
    assert len(changed) > 0.9 * len(before)
    assert 0 < reply.content["metrics"]["loss"] < 10
    assert "num-examples" not in reply.content["metrics"]


def test_the_same_seed_gives_the_same_weights(cohort: Path) -> None:
    first = trained(client_app.app(message("train", initial_weights()), context()))
    second = trained(client_app.app(message("train", initial_weights()), context()))
    other = trained(client_app.app(message("train", initial_weights(), seed=8), context()))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_the_messages_proximal_mu_holds_training_near_its_start(cohort: Path) -> None:
    start = initial_weights()
    plain = trained(client_app.app(message("train", start), context()))
    held = trained(client_app.app(message("train", start, **{"proximal-mu": 1000.0}), context()))
    weights = [name for name in start if name.endswith("weight")]
    far, near = (
        sum(float(np.sum((after[name] - start[name]) ** 2)) for name in weights) for after in (plain, held)
    )
    assert near < 0.7 * far


def test_validation_is_scored_with_the_inbound_weights_and_leaves_no_arrays(cohort: Path) -> None:
    reply = client_app.app(message("evaluate", initial_weights()), context())
    assert set(reply.content["metrics"]) == {"loss", "auc"}
    assert "arrays" not in reply.content


def test_the_evaluation_train_answers_a_row_of_each_testing_patient(cohort: Path) -> None:
    reply = evaluation_app(message("evaluate", initial_weights()), context())
    listed = json.loads((cohort / "datalist.json").read_text())["testing"]
    stated = reply.content["rows"]
    assert set(stated) == {"score", "label"}
    assert len(stated["score"]) == len(stated["label"]) == len({case["patient"] for case in listed})
    assert all(0 <= score <= 1 for score in stated["score"])


@pytest.mark.parametrize(
    "code",
    [
        "NO_LABELS",
        "NO_CASES",
        "LABEL_NOT_BINARY",
        "IMAGE_UNREADABLE",
        "WEIGHTS_DO_NOT_FIT",
        "SCORE_NOT_FINITE",
    ],
)
def test_what_the_evaluation_train_cannot_do_has_a_declared_code(code: str, cohort: Path) -> None:
    weights = initial_weights()
    listed = json.loads((cohort / "datalist.json").read_text())
    match code:
        case "NO_LABELS":
            # One image of six: it must not count as one without the finding.
            del listed["testing"][3]["label"]
        case "NO_CASES":
            listed["testing"].clear()
        case "LABEL_NOT_BINARY":
            listed["testing"][0]["label"] = 2
        case "IMAGE_UNREADABLE":
            (cohort / listed["testing"][0]["image"]).write_bytes(b"no radiograph")
        case "WEIGHTS_DO_NOT_FIT":
            weights.popitem()
        case _:
            weights["class_layers.out.bias"] = np.full(1, np.nan, np.float32)
    (cohort / "datalist.json").write_text(json.dumps(listed))
    with pytest.raises(TrainError) as raised:
        evaluation_app(message("evaluate", weights), context())
    assert raised.value.pht_error_code == code
    assert code in shipped("cxr-evaluation").error_codes


def test_each_case_has_its_own_loss_whatever_stands_beside_it(cohort: Path) -> None:
    losses = client_app.app(message("query.score", initial_weights()), context()).content["scores"]["loss"]
    evaluated = client_app.app(message("evaluate", initial_weights()), context()).content["metrics"]["loss"]
    assert len(losses) == 6
    assert np.mean(losses) == pytest.approx(evaluated, abs=1e-5)
    # In another order, and one of them twice: what the station holds an answer to.
    path = cohort / "datalist.json"
    listed = json.loads(path.read_text())
    listed["validation"] = [listed["validation"][at] for at in (3, 0, 3, 5)]
    path.write_text(json.dumps(listed))
    load_split.cache_clear()
    others = client_app.app(message("query.score", initial_weights()), context()).content["scores"]["loss"]
    assert others == pytest.approx([losses[at] for at in (3, 0, 3, 5)], abs=1e-5)


def test_foreign_weights_are_refused(cohort: Path) -> None:
    weights = initial_weights()
    weights.pop(next(iter(weights)))
    with pytest.raises(ValueError, match="Missing key"):
        client_app.app(message("train", weights), context())


def test_auc_by_hand_and_without_both_classes() -> None:
    scores, labels = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert auc(scores, labels) == pytest.approx(0.75)
    assert auc(scores, torch.ones(4)) is None
    # Even scores count half.
    assert auc(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.0, 1.0, 1.0])) == 0.5
    assert auc(torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0.0, 1.0, 0.0])) == 0.75


def test_of_several_images_the_highest_score_and_any_positive_count() -> None:
    stated = rows(
        ["b", "a", "b", "c"], torch.tensor([0.25, 0.5, 0.75, 0.125]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    )
    assert stated == {"score": [0.75, 0.5, 0.125], "label": [1, 0, 0]}


def test_images_are_normalised_and_labels_are_columns(cohort: Path) -> None:
    images, labels = load_split(cohort, "training", 64).tensors
    assert images.shape == (9, 1, 64, 64)
    assert labels.shape == (9, 1)
    assert images.mean().abs() < 1e-4
