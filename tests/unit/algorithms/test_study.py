"""The study of what hospitals get from training together: its figures by hand, and a small one from radiographs to tables."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.bench.study import main, study
from tests.bench.study_arms import ARMS, Plan, run_arm
from tests.bench.study_cohorts import HOSPITALS
from tests.bench.study_figures import areas, auc_rows, by_arm, difference_rows
from train_images.phantoms import generate_hospitals

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec", "ignore::UserWarning:monai")


def images(*pairs: tuple[float, int]) -> list[dict[str, Any]]:
    return [{"patient": f"p{at}", "label": label, "logit": logit} for at, (logit, label) in enumerate(pairs)]


def test_knowing_the_hospital_helps_over_all_patients_and_not_within() -> None:
    # Each model says one thing of a whole hospital; there, it knows nothing.
    many = images((1.0, 1), (1.0, 1), (1.0, 1), (1.0, 0))
    few = images((0.0, 1), (0.0, 0), (0.0, 0), (0.0, 0))
    found = areas({"many": many, "few": few})
    assert found["many"] == found["few"] == found["within"] == 0.5
    # 16 pairs over all: 9 right, 1 wrong, 6 even.
    assert found["all"] == pytest.approx(12 / 16)


def test_a_hospital_counts_by_its_pairs_and_one_of_one_class_not_at_all() -> None:
    right, half = images((2.0, 1), (1.0, 0)), images((1.0, 1), (2.0, 1), (1.5, 0))
    found = areas({"right": right, "half": half, "none": images((1.0, 1), (3.0, 1))})
    assert (found["right"], found["half"]) == (1.0, 0.5)
    assert "none" not in found
    assert found["within"] == pytest.approx((1 * 1.0 + 2 * 0.5) / 3)


def test_of_several_images_of_a_patient_the_highest_score_and_any_positive_count() -> None:
    both = images((0.1, 0), (0.9, 1), (0.5, 0))
    both[1]["patient"] = both[0]["patient"]
    assert areas({"one": both})["one"] == 1.0


def test_local_is_each_hospitals_model_at_home_and_elsewhere_the_mean_of_the_others() -> None:
    good, bad = images((1.0, 1), (0.0, 0)), images((0.0, 1), (1.0, 0))
    tested = {"a": {"a": good, "b": bad}, "b": {"a": bad, "b": good}}
    local = {"arm": "local", "seed": 0, "models": {name: {"tested": each} for name, each in tested.items()}}
    common = {"arm": "fedavg", "seed": 0, "models": {"all": {"tested": {"a": good, "b": bad}}}}
    arms = by_arm([local, common])
    assert arms["local"][0] == {"a": 1.0, "b": 1.0, "within": 1.0}
    assert arms["local elsewhere"][0] == {"a": 0.0, "b": 0.0}
    assert auc_rows([local, common])[0] == ["training", "seeds", "a", "b", "within", "all"]
    (row,) = difference_rows([local, common])[1:]
    assert row == ["fedavg - local", "1", "+0.00", "-1.00", "-0.50", "-"]


def test_a_small_study_from_radiographs_to_tables_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    generate_hospitals(data, hospitals=3, patients=9, seed=3)
    settings = [
        "--data",
        str(data),
        "--out",
        str(out),
        "--seeds",
        "1",
        "--images",
        "14",
        "--image-size",
        "32",
    ]
    settings += ["--passes", "2", "--long", "2", "--proximal-mu", "1000", "--batch-size", "3"]
    assert main([*settings, "--at-most", "1"]) == 0
    first = out / "seed-0-central.json"
    assert [path.name for path in out.glob("seed-*.json")] == [first.name]
    done = first.stat().st_mtime_ns
    capsys.readouterr()
    assert main([*settings, "--at-most", "3"]) == 0
    said = capsys.readouterr().out
    assert "3 of 5: seed 0, local" in said
    assert first.stat().st_mtime_ns == done
    assert {path.name for path in out.glob("seed-*.json")} == {f"seed-0-{arm}.json" for arm in ARMS}
    for title in ("How the hospitals differ", "AUC on testing patients", "Differences of AUC", "Calibration"):
        assert title in said
    found = {arm: json.loads((out / f"seed-0-{arm}.json").read_text())["models"] for arm in ARMS}
    assert found["local"].keys() == set(HOSPITALS)
    logits = {
        arm: tuple(image["logit"] for each in models["all"]["tested"].values() for image in each)
        for arm, models in found.items()
        if arm != "local"
    }
    # Every arm is a training of its own, the pull of fedprox among them.
    assert len(set(logits.values())) == len(logits) == 3
    # What a hospital is tested on, nobody trained on.
    for name in HOSPITALS:
        own, test = (
            json.loads((out / f"cohorts/seed-0/{name}/{kind}/datalist.json").read_text())
            for kind in ("own", "test")
        )
        assert not own["testing"]
        assert not test["training"]
        assert not test["validation"]
        assert test["testing"]
    # The same once more, in a process that has seen other things since: the same numbers. With one pass a round, long is not long.
    plan = Plan(passes=2, image_size=32, batch_size=3, long=1, proximal_mu=1000.0)
    folders = {name: out / "cohorts" / "seed-0" / name for name in HOSPITALS}
    again = run_arm("fedavg-long", folders, tmp_path / "again", plan, 0)
    assert again["models"] == found["fedavg"]
    # Another study is not mixed with this one.
    console = Console(file=io.StringIO())
    with pytest.raises(SystemExit, match="other settings"):
        study(data, out, 1, Plan(passes=3, image_size=32), console, at_most=1, images=9)


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--data"):
        main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
