"""External validation as a ClientApp: figures against peers, rows for the station to count, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image
from segmentation_kit import context as segmentation_context
from segmentation_kit import make_case, write_cohort
from segmentation_kit import message as segmentation_message
from statsmodels.api import GLM, add_constant
from statsmodels.genmod.families import Binomial
from told_kit import TRAINS, shipped

from algorithms.clientapp.failures import TrainError
from algorithms.ct_segmentation.agreement import Agreement
from algorithms.ct_segmentation.evaluation import Scored
from algorithms.ct_segmentation.networks import unet
from algorithms.model_evaluation import client_app, network, segmentation_app
from algorithms.model_evaluation.calibration import brier, expected_error, intercept, slope
from algorithms.model_evaluation.patients import PatientScores, of_patients

SETTINGS = {"image_size": 64, "output": 0, "temperature": 1.0, "threshold": 0.5}


def scores(patients: int = 400, seed: int = 3) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    labels = (random.random(patients) < 0.4).astype(float)
    logits = 1.4 * (labels - 0.5) * 2 + random.normal(0.4, 1.5, patients)
    return 1 / (1 + np.exp(-logits)), labels


# -- calibration, against statsmodels and by hand ----------------------------------------------------------------------


def test_intercept_and_slope_are_those_of_a_logistic_regression() -> None:
    found, labels = scores()
    logits = np.log(found / (1 - found))
    whole = GLM(labels, add_constant(logits), family=Binomial()).fit()
    assert slope(found, labels) == pytest.approx(whole.params[1], rel=1e-8)
    large = GLM(labels, np.ones(len(labels)), family=Binomial(), offset=logits).fit()
    assert intercept(found, labels) == pytest.approx(large.params[0], rel=1e-8)


def test_scores_that_are_half_as_extreme_have_twice_the_slope() -> None:
    found, labels = scores(4000)
    logits = np.log(found / (1 - found))
    true = slope(found, labels)
    assert true is not None
    assert slope(1 / (1 + np.exp(-logits / 2)), labels) == pytest.approx(true * 2, rel=1e-6)


def test_what_has_no_slope_is_left_out_and_not_made_up() -> None:
    labels = np.array([0.0] * 20 + [1.0] * 20)
    assert slope(np.linspace(0.1, 0.9, 40), labels) is None  # The classes are parted altogether.
    assert slope(np.full(40, 0.3), labels) is None
    assert intercept(np.linspace(0.1, 0.9, 40), np.ones(40)) is None


def test_calibration_error_and_brier_are_what_is_reckoned_by_hand() -> None:
    found, labels = np.array([0.05, 0.15, 0.12, 0.95, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    assert brier(found, labels) == pytest.approx((0.05**2 + 0.15**2 + 0.88**2 + 0.05**2) / 5)
    bins = [(1, 0.05, 0.0), (2, 0.135, 0.5), (2, 0.975, 1.0)]
    assert expected_error(found, labels) == pytest.approx(
        sum(n / 5 * abs(mean - seen) for n, mean, seen in bins)
    )


@given(st.integers(0, 2**32 - 1))
def test_the_error_lies_between_none_and_all(seed: int) -> None:
    found, labels = scores(30, seed)
    assert 0 <= expected_error(found, labels) <= 1
    assert expected_error(labels, labels) == 0


def test_a_slope_outside_the_declared_range_is_left_out() -> None:
    # As of a model that knows nothing: all scores nearly the same, so that the slope is far off and tells nothing.
    found = 0.5 + 1e-3 * (scores()[0] - 0.5)
    far = slope(found, scores()[1])
    assert far is not None
    assert abs(far) > client_app.FARTHEST
    told = client_app.figures(PatientScores(found, scores()[1]))
    assert "calibration_slope" not in told
    assert "calibration_intercept" in told
    bounds = {item.key: (item.minimum, item.maximum) for item in shipped("model-evaluation").outputs.metrics}
    assert (
        bounds["calibration_slope"]
        == bounds["calibration_intercept"]
        == (-client_app.FARTHEST, client_app.FARTHEST)
    )
    assert all(bounds[name][0] <= value <= bounds[name][1] for name, value in told.items())


# -- patients ----------------------------------------------------------------------------------------------------------


def test_of_several_images_the_highest_score_counts_and_any_finding() -> None:
    found = of_patients(["p1", "p2", "p1", "p3"], [0.2, 0.9, 0.6, 0.5], [1, 0, 0, 0])
    assert found.rows(0.5) == {
        "score": [0.6, 0.9, 0.5],
        "label": [1, 0, 0],
        "called": [1, 1, 1],
        "squared_error": pytest.approx([0.16, 0.81, 0.25]),
    }


# -- the app on a cohort on disk ---------------------------------------------------------------------------------------


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six radiographs of five patients."""
    (tmp_path / "images").mkdir()
    entries = []
    random = np.random.default_rng(5)
    for number, patient in enumerate(["a", "b", "a", "c", "d", "e"]):
        pixels = random.integers(0, 65536, (64, 72), dtype=np.uint16)
        path = f"images/case{number}.nii"
        Nifti1Image(pixels, np.eye(4)).to_filename(tmp_path / path)
        entries.append({"case": f"case{number}", "patient": patient, "image": path, "label": number % 2})
    (tmp_path / "datalist.json").write_text(
        json.dumps({"training": [], "validation": [], "testing": entries})
    )
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    monkeypatch.setenv("PHT_TRAIN", str(TRAINS / "model-evaluation" / "train.json"))
    network._built.cache_clear()
    return tmp_path


def ask(arrays: dict[str, Any], **changes: float) -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "config": ConfigRecord({**SETTINGS, **changes}),
        }
    )
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    message = Message(content=content, dst_node_id=1, message_type="evaluate", ttl=3600.0)
    return client_app.app(message, context)


@pytest.mark.usefixtures("cohort")
def test_it_answers_what_its_manifest_declares_and_a_row_of_each_patient() -> None:
    reply = ask(network.initial_weights(), threshold=0.0)
    manifest = shipped("model-evaluation")
    metrics, rows = reply.content["metrics"], reply.content["rows"]
    assert isinstance(metrics, MetricRecord)
    assert isinstance(rows, MetricRecord)
    declared = {item.key: item for item in manifest.outputs.metrics}
    assert set(metrics) <= set(declared)
    assert {key for key, item in declared.items() if item.required} <= set(metrics)
    assert manifest.outputs.rows is not None
    assert set(rows) == {column.name for column in manifest.outputs.rows.of_train}
    columns: dict[str, Any] = dict(rows)
    # Patient a has an image without and one without: cases 0 and 2.
    assert columns["label"] == [0, 1, 1, 0, 1]
    assert columns["called"] == [1] * 5
    for column in manifest.outputs.rows.of_train:
        for value in columns[column.name]:
            assert column.accepts(column.categories[value] if column.type == "category" else value)
    # The same again, and cooler scores where a temperature is ordered.
    assert dict(ask(network.initial_weights(), threshold=0.0).content["rows"]) == columns
    cooled = dict(ask(network.initial_weights(), temperature=20.0).content["rows"])["score"]
    assert np.abs(np.array(cooled) - 0.5).max() < np.abs(np.array(columns["score"]) - 0.5).max()


@pytest.mark.usefixtures("cohort")
@pytest.mark.parametrize(
    "code",
    ["WEIGHTS_DO_NOT_FIT", "OUTPUT_ABSENT", "SCORE_NOT_FINITE", "IMAGE_UNREADABLE", "NO_CASES", "NO_LABELS"],
)
def test_what_it_cannot_do_has_a_declared_code(code: str, cohort: Path) -> None:
    weights = network.initial_weights()
    changes: dict[str, float] = {}
    match code:
        case "WEIGHTS_DO_NOT_FIT":
            weights.popitem()
        case "OUTPUT_ABSENT":
            changes["output"] = 1
        case "SCORE_NOT_FINITE":
            weights["class_layers.out.bias"] = np.full(1, np.nan, np.float32)
        case "IMAGE_UNREADABLE":
            (cohort / "images" / "case1.nii").write_bytes(b"no radiograph")
        case "NO_LABELS":
            # One image of six: it must not count as one without the finding.
            listed = json.loads((cohort / "datalist.json").read_text())
            del listed["testing"][3]["label"]
            (cohort / "datalist.json").write_text(json.dumps(listed))
        case _:
            (cohort / "datalist.json").write_text('{"training": [], "validation": [], "testing": []}')
    # Images are read once per run; another cohort is another run.
    client_app.load_split.cache_clear()
    with pytest.raises(TrainError) as raised:
        ask(weights, **changes)
    client_app.load_split.cache_clear()
    assert raised.value.pht_error_code == code
    assert code in shipped("model-evaluation").error_codes


def test_the_image_names_the_network_that_the_manifest_names() -> None:
    manifest = yaml.safe_load((TRAINS / "model-evaluation" / "train.yaml").read_text())
    description = json.loads((TRAINS / "model-evaluation" / "train.json").read_text())
    assert description["network"] == manifest["network"]


# -- segmentations -----------------------------------------------------------------------------------------------------


def scored(patient: str, dice: float | None, distance: float | None) -> Scored:
    return Scored(patient, 0.1, {"nodule": Agreement(dice, distance, None if dice is not None else False)})


def test_a_row_of_a_segmentation_is_the_mean_of_a_patients_scans_and_missing_where_nothing_is_marked() -> (
    None
):
    found = [scored("a", 0.5, 4.0), scored("b", None, None), scored("a", 0.9, 6.0), scored("c", 0.0, 5000.0)]
    rows = segmentation_app.rows(found, ["nodule"])
    assert rows["dice_nodule"] == pytest.approx([0.7, np.nan, 0.0], nan_ok=True)
    assert rows["hd95_mm_nodule"] == pytest.approx([5.0, np.nan, 1000.0], nan_ok=True)
    declared = shipped("segmentation-evaluation").outputs.rows
    assert declared is not None
    assert set(rows) == {column.name for column in declared.of_train}


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges")
def test_a_segmentation_model_is_scored_on_testing_patients_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    model = unet(2, 2)
    cases = [make_case(tmp_path, "one"), make_case(tmp_path, "none", marked=False)]
    monkeypatch.setenv("PHT_DATA", str(write_cohort(tmp_path, {"testing": cases})))
    message = segmentation_message("evaluate", {n: t.numpy() for n, t in model.state_dict().items()})
    content = segmentation_app.app(message, segmentation_context()).content
    # Two patients are too few for a mean that leaves: only the loss is told, and the station is given a row of each.
    assert set(content["metrics"]) == {"loss"}
    rows: dict[str, Any] = dict(content["rows"])
    dice, missing = rows["dice_nodule"]
    assert 0 <= dice <= 1
    assert np.isnan(missing)
    assert np.isnan(rows["hd95_mm_nodule"][1])


def test_masks_that_would_share_a_metric_are_refused_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHT_DATA", str(write_cohort(tmp_path, {}, ["upper-lobe", "Upper lobe"])))
    message = segmentation_message("evaluate", {n: t.numpy() for n, t in unet(2, 3).state_dict().items()})
    with pytest.raises(TrainError, match="Upper lobe, upper-lobe") as raised:
        segmentation_app.app(message, segmentation_context())
    assert raised.value.pht_error_code == "MASK_NAMES"
    assert "MASK_NAMES" in shipped("segmentation-evaluation").error_codes
