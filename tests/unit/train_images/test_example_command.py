"""The shell train, run as a program on a cohort of which every answer is known."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_cohort_kit import write_cohort, write_request

SURVEY = Path(__file__).resolve().parents[3] / "train_images" / "example-command" / "survey.sh"
FIELDS = ("age_years", "sex", "temperature_c", "crp_mg_l")


def image(rows: int, columns: int) -> Any:
    return np.zeros((rows, columns), np.uint16)


def answer(data: Path, folder: Path) -> Any:
    write_request(folder, {})
    subprocess.run(
        ["sh", SURVEY], cwd=folder, env={"PATH": "/usr/bin:/bin", "PHT_DATA": str(data)}, check=True
    )
    return json.loads((folder / "reply" / "head.json").read_text())


def test_rows_are_the_training_patients_in_the_datalists_order_with_the_worst_of_their_images(
    tmp_path: Path,
) -> None:
    data = write_cohort(
        tmp_path / "data",
        [("training", "p2", image(1000, 500)), ("validation", "p3", image(10, 10)), ("training", "p1", image(2000, 3000)),
         ("training", "p2", image(400, 900)), ("testing", "p4", image(10, 10)), ("training", "p5", image(256, 256))],
        {"p1": {"age_years": "60-69", "sex": "F", "temperature_c": "37.5", "crp_mg_l": "0"},
         "p2": {"age_years": "30-39", "sex": "M"}, "p3": {}, "p4": {}, "p5": {}},
        fields=FIELDS,
        spacing_mm={"c000": (0.2, 0.1), "c003": (0.15, 0.16), "c002": (0.1, 0.139)},
    )  # fmt: skip
    found = answer(data, tmp_path / "work")
    assert found["rows"]["spacing_mm"] == pytest.approx([0.2, 0.139, 0.14], rel=1e-5)
    assert found["rows"]["megapixels"] == pytest.approx([0.36, 6.0, 0.065536], rel=1e-5)
    assert found["rows"]["known_share"] == [0.5, 1.0, 0.0]
    assert found["metrics"] == {"complete_share": pytest.approx(1 / 3, abs=1e-6)}


def test_a_hundred_patients_are_as_many_rows(tmp_path: Path) -> None:
    names = [f"p{number:03d}" for number in range(100)]
    data = write_cohort(
        tmp_path / "data",
        [("training", name, image(32 + number, 64)) for number, name in enumerate(names)],
        {name: {"sex": "F"} for name in names},
        fields=("sex",),
    )
    found = answer(data, tmp_path / "work")
    expected = [(32 + number) * 64 / 1e6 for number in range(100)]
    assert found["rows"]["megapixels"] == pytest.approx(expected, rel=1e-5)
    assert found["metrics"]["complete_share"] == 1


def test_a_hospital_without_training_patients_says_so(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", [("validation", "p1", image(8, 8))], {"p1": {}}, fields=FIELDS)
    assert answer(data, tmp_path / "work") == {"error": "NO_IMAGES"}
