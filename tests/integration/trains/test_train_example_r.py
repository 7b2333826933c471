"""The train in R: what it computes is computed again with NumPy and SciPy, and it runs in the real sandbox."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_cohort_kit import write_cohort, write_request
from scipy.stats import spearmanr
from tool_kit import Tool
from trains_kit import Yard, tag_of

pytestmark = pytest.mark.docker

NAME = "example-r"


def volume(
    rng: np.random.Generator, lung_hu: float, shape: tuple[int, int, int] = (26, 22, 9)
) -> NDArray[np.int16]:
    """Air, a ring of tissue in a ragged oval, and in it lung with noise; bubbles of air in the tissue's skin."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    from_centre = np.hypot(x, y * 1.2) + rng.normal(0, 0.02, shape)
    made = np.full(shape, -1024.0)
    made[from_centre < 0.9] = 45
    lung = from_centre < 0.6
    made[lung] = rng.normal(lung_hu, 45, int(lung.sum()))
    return np.clip(np.rint(made), -1024, 3000).astype(np.int16)


def lung_of(made: NDArray[np.int16]) -> NDArray[np.int16]:
    dense = made > -300
    inside = np.maximum.accumulate(dense, axis=0) & np.maximum.accumulate(dense[::-1], axis=0)[::-1]
    return np.asarray(made[inside & (made >= -1000) & (made < -500)])


def run_r(data: Path, folder: Path, config: dict[str, float | int]) -> Any:
    """The image's own program, as its description starts it, on a read-only root without a network."""
    write_request(folder, config)
    argv = json.loads((Path(__file__).parents[3] / "train_images" / NAME / "train.json").read_text())["argv"]
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"]
    command += [
        f"--volume={data}:/train/data:ro",
        f"--volume={folder}:/work",
        "--workdir=/work",
        tag_of(NAME),
        *argv,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "reply" / "head.json").read_text())


def test_the_figures_of_r_are_those_of_numpy_and_scipy(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    yard.packed(tool, NAME)
    rng = np.random.default_rng(5)
    cases: list[tuple[str, str, NDArray[np.int16]]] = []
    clinical: dict[str, dict[str, str]] = {}
    bands = ["30-39", "40-49", "50-59", "60-69", "70-79", "80-89", "90+"]
    for number in range(14):
        patient = f"p{(number * 5) % 14:02d}"
        clinical[patient] = {"age_years": bands[number % 7], "sex": "FM"[number // 7]}
        split = "validation" if number == 13 else "training"
        cases += [(split, patient, volume(rng, -870 + 6 * (number % 7) + rng.normal(0, 8)))]
    cases += [("training", cases[3][1], volume(rng, -800))]  # a second scan of one of them
    cases += [("training", "none", np.full((20, 20, 6), -1024, np.int16))]
    clinical["none"] = {"age_years": "50-59", "sex": "F"}
    clinical[cases[5][1]]["age_years"] = ""
    clinical[cases[6][1]]["sex"] = "O"
    data = write_cohort(tmp_path / "data", cases, clinical, fields=("age_years", "sex"))

    found = run_r(data, tmp_path / "work", {"percentile": 15})

    training = [(patient, voxels) for split, patient, voxels in cases if split == "training"]
    patients = list(dict.fromkeys(patient for patient, _ in training))
    lungs = [np.concatenate([lung_of(each) for name, each in training if name == one]) for one in patients]
    density = [float(np.quantile(lung, 0.15, method="inverted_cdf")) if lung.size else None for lung in lungs]
    assert density[-1] is None
    assert found["rows"]["lung_density_hu"] == density
    dark = [float(np.mean(lung < -950)) if lung.size else None for lung in lungs]
    assert found["rows"]["low_attenuation_share"] == pytest.approx(dark, abs=1e-12)
    whole = [
        (float(clinical[one]["age_years"][:2]) + (0 if "+" in clinical[one]["age_years"] else 4.5),
         clinical[one]["sex"] == "M", value)
        for one, value in zip(patients, density, strict=True)
        if value is not None and clinical[one]["age_years"] and clinical[one]["sex"] in "FM"
    ]  # fmt: skip
    assert len(whole) == 11
    age, male, value = np.array(whole, float).T
    design = np.stack([np.ones_like(age), age, male], axis=1)
    slope = np.linalg.lstsq(design, value, rcond=None)[0][1]
    assert found["metrics"]["hu_per_decade"] == pytest.approx(10 * slope, abs=1e-9)
    assert found["metrics"]["rank_correlation"] == pytest.approx(spearmanr(age, value).statistic, abs=1e-12)


@pytest.mark.parametrize(("patients", "ages"), [(7, 7), (9, 1)])
def test_too_few_patients_for_a_line_are_a_declared_error(
    yard: Yard, tool: Tool, tmp_path: Path, patients: int, ages: int
) -> None:
    """One fewer than eight, and enough but all of one age."""
    yard.packed(tool, NAME)
    rng = np.random.default_rng(6)
    cases = [("training", f"p{number}", volume(rng, -850)) for number in range(patients)]
    clinical = {
        patient: {"age_years": f"{3 + number % ages}0-{3 + number % ages}9", "sex": "F"}
        for number, (_, patient, _) in enumerate(cases)
    }
    data = write_cohort(tmp_path / "data", cases, clinical, fields=("age_years", "sex"))
    assert run_r(data, tmp_path / "work", {}) == {"error": "TOO_FEW"}


def test_a_hospital_without_training_patients_is_a_declared_error(
    yard: Yard, tool: Tool, tmp_path: Path
) -> None:
    yard.packed(tool, NAME)
    cases = [("testing", "p1", volume(np.random.default_rng(7), -850))]
    clinical = {"p1": {"age_years": "50-59", "sex": "F"}}
    data = write_cohort(tmp_path / "data", cases, clinical, fields=("age_years", "sex"))
    assert run_r(data, tmp_path / "work", {}) == {"error": "NO_IMAGES"}


def test_a_program_in_r_passes_the_sandbox_and_the_guard(yard: Yard, tool: Tool) -> None:
    bundle = yard.packed(tool, NAME)
    found = tool.json("check", bundle.path, "--patients", 40)
    assert found["outcome"] == "released"
    (message,) = found["messages"]
    assert message["metrics"].keys() == {"hu_per_decade", "rank_correlation"}
    assert -1 <= message["metrics"]["rank_correlation"] <= 1
    assert (
        sum(count for (count,) in message["tables"]["emphysema"] if count >= 0)
        <= found["patients"]["training"]
    )
