"""A temperature from what hospitals sum, against the one that their pooled logits say; and the model that it makes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cxr_kit import ask, lay_cohort, mounted, shipped
from safetensors.torch import load_file, save_file

from algorithms.cxr_classification.__main__ import main
from algorithms.cxr_classification.calibration import (
    TEMPERATURES,
    brier,
    calibration_error,
    divide_logits,
    fit_temperature,
    losses_at,
)
from algorithms.cxr_classification.initial_weights import initial_weights
from algorithms.cxr_classification.loss import finding_loss
from algorithms.cxr_classification.model import build_model
from algorithms.cxr_classification.training import auc

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

TOLD = {*TEMPERATURES, "brier"}


def overconfident(count: int, by: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too large by a factor, and labels drawn from the right ones."""
    generator = torch.Generator().manual_seed(seed)
    right = 1.5 * torch.randn(count, 1, generator=generator) - 0.3
    return by * right, (torch.rand(count, 1, generator=generator) < torch.sigmoid(right)).float()


def loss_at(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    return float(finding_loss(logits / temperature, labels, torch.ones(1)))


@pytest.mark.parametrize("by", [0.6, 1.0, 1.7, 2.2, 2.6])
def test_what_hospitals_sum_gives_the_temperature_of_their_pooled_logits(by: float) -> None:
    hospitals = [overconfident(count, by, count) for count in (20, 50, 130)]
    told = [losses_at(*each) for each in hospitals]
    means = {
        name: float(np.average([each[name] for each in told], weights=(20, 50, 130))) for name in told[0]
    }
    fitted = fit_temperature(means)
    logits, labels = (torch.cat(parts) for parts in zip(*hospitals, strict=True))
    # The sums are those of the pooled patients.
    assert means == pytest.approx(losses_at(logits, labels), abs=1e-6)
    best = min(np.geomspace(0.5, 4, 2001), key=lambda value: loss_at(logits, labels, value))
    assert fitted.value == pytest.approx(best, rel=0.06)
    assert loss_at(logits, labels, fitted.value) - loss_at(logits, labels, best) < 5e-4
    assert not fitted.at_the_end


def test_a_better_temperature_beyond_the_last_is_said() -> None:
    fitted = fit_temperature(losses_at(*overconfident(400, 12.0, 1)))
    assert (fitted.value, fitted.at_the_end) == (pytest.approx(4.0), True)
    assert fitted.loss_after < fitted.loss_before


def test_losses_that_say_nothing_leave_the_logits_and_ones_that_bend_the_wrong_way_say_so() -> None:
    flat = fit_temperature(dict.fromkeys(TEMPERATURES, 0.6931))
    assert (flat.value, flat.at_the_end) == (1.0, False)
    # Rounded, or with noise, the means need not be convex: the smallest is the last, and a better one may lie beyond.
    falling = fit_temperature(dict(zip(TEMPERATURES, (0.9, 0.85, 0.8, 0.75, 0.7, 0.69, 0.6), strict=True)))
    assert (falling.value, falling.at_the_end) == (pytest.approx(4.0), True)


def test_calibration_makes_probabilities_fit_and_leaves_ranks() -> None:
    logits, labels = overconfident(4000, 2.6, 9)
    value = fit_temperature(losses_at(logits, labels)).value
    before, after = (
        calibration_error(torch.sigmoid(each)[:, 0], labels[:, 0]) for each in (logits, logits / value)
    )
    assert before > 0.1
    assert after < 0.025
    assert brier(logits / value, labels) < brier(logits, labels)
    assert auc(logits[:, 0], labels[:, 0]) == auc(logits[:, 0] / value, labels[:, 0])


def test_calibration_error_and_brier_by_hand() -> None:
    probabilities = torch.tensor([0.05, 0.08, 0.62, 0.66, 1.0])
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    # Of five: 0.1 to 0.2 in the first bin, |0.13 - 1|; the seventh, |1.28 - 1|; the last, 0.
    assert calibration_error(probabilities, labels) == pytest.approx((0.87 + 0.28) / 5)
    logits = torch.logit(torch.tensor([[0.25], [0.5]]))
    assert brier(logits, torch.tensor([[1.0], [math.nan]])) == pytest.approx(0.5625)


def test_dividing_the_last_layer_divides_every_logit() -> None:
    torch.manual_seed(3)
    model = build_model(2).eval()
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        before = model(images)
        model.load_state_dict(divide_logits(model.state_dict(), 2.5))
        assert torch.allclose(model(images), before / 2.5, atol=1e-6)


def test_an_evaluation_tells_it_from_the_round_that_the_order_names_and_not_before(tmp_path: Path) -> None:
    cohort = lay_cohort(tmp_path / "cohort", {"validation": 6})
    manifest, policy = shipped()
    declared = {metric.key for metric in manifest.outputs.metrics if metric.stage == "evaluate"}
    with mounted(cohort):
        plain = dict(ask("evaluate", initial_weights())["metrics"])
        before, asked = (
            dict(
                ask("evaluate", initial_weights(), calibrate_from_round=4, **{"server-round": at})["metrics"]
            )
            for at in (3, 4)
        )
    assert set(plain) == set(before) == {"loss", "auc"}
    assert set(asked) == TOLD | {"auc"} == declared == set(policy.release.metrics)
    assert asked["loss"] == plain["loss"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    state = {name: torch.from_numpy(value.copy()) for name, value in initial_weights().items()}
    (tmp_path / "result").mkdir()
    save_file(state, tmp_path / "result" / "model.safetensors")
    return tmp_path / "result"


def test_the_program_writes_the_calibrated_model_and_of_what_it_is_made(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "metrics.json").write_text(
        json.dumps({"final": {"evaluate": losses_at(*overconfident(300, 2.0, 4))}})
    )
    assert main([str(trained), str(tmp_path / "out")]) == 0
    about = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert 1.5 < about["temperature"] < 2.6
    assert about["validation_loss_after"] < about["validation_loss_before"]
    assert f"temperature {about['temperature']:.3f}" in capsys.readouterr().out
    before, after = (
        load_file(trained / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert set(changed) <= {"class_layers.out.weight", "class_layers.out.bias"}
    assert torch.allclose(
        after["class_layers.out.weight"] * about["temperature"], before["class_layers.out.weight"]
    )


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"final": {"evaluate": {"loss": 0.5, "auc": 0.9}}}, "a run with calibrate_from_round tells them"),
        ({"final": {"evaluate": dict.fromkeys(TEMPERATURES, math.nan)}}, "missing"),
        ({"final": {}}, "missing"),
        ([], "missing"),
        ("no json", "metrics.json"),
    ],
)
def test_a_run_that_told_no_losses_is_refused_in_a_sentence(
    trained: Path, tmp_path: Path, metrics: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics))
    assert main([str(trained), str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"layer": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "class_layers.out" in capsys.readouterr().err
