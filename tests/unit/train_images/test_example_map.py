"""What the map train that ships counts, on a volume whose shares are known."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import train_images
from policies.documents import load_yaml_file
from policies.manifest import TrainManifest
from station.cohorts import nifti

EXAMPLE = Path(train_images.__file__).parent / "example-map"


@pytest.fixture
def bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_bands", EXAMPLE / "bands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DATA", tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "request").mkdir()
    (tmp_path / "reply").mkdir()
    monkeypatch.chdir(tmp_path)
    return module


def write(folder: Path, slices: list[list[list[int]]], sex: str = "F") -> None:
    volume = np.array(slices, np.int16)
    data = nifti.header(volume.shape[::-1], np.eye(4), volume.dtype) + volume.tobytes()
    (folder / "images" / "one.nii").write_bytes(data)
    entry = {"image": "images/one.nii", "case": "one", "patient": "p"}
    (folder / "datalist.json").write_text(json.dumps({"training": [], "validation": [entry]}))
    (folder / "clinical.csv").write_text(f"case,patient,sex\none,p,{sex}\n")
    (folder / "request" / "head.json").write_text(json.dumps({"config": {"emphysema_hu": -950}}))


def test_shares_are_of_the_body_and_the_row_is_one_of_its_manifest(bands: ModuleType, tmp_path: Path) -> None:
    air, skin, lung, dark, fat, bone = -1000, 40, -850, -980, -100, 700
    write(tmp_path, [[[air, skin, lung, dark, fat, fat, bone, skin, air, air]]])
    bands.main()
    row = json.loads((tmp_path / "reply" / "row.json").read_text())
    assert row == {
        "lung_share": 2 / 7, "fat_share": 2 / 7, "bone_share": 1 / 7, "low_attenuation_share": 0.5, "sex": "F"
    }  # fmt: skip
    schema = load_yaml_file(TrainManifest, EXAMPLE / "train.yaml").outputs.rows
    assert schema is not None
    assert schema.read(row) == row


def test_a_volume_without_a_body_is_a_declared_error(bands: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, [[[-1000] * 4] * 4])
    bands.main()
    said = json.loads((tmp_path / "reply" / "row.json").read_text())
    manifest = load_yaml_file(TrainManifest, EXAMPLE / "train.yaml")
    assert said == {"error": "NO_BODY"}
    assert said["error"] in manifest.error_codes


@pytest.mark.parametrize("sex", ["", "X", "unknown"])
def test_a_sex_that_the_manifest_does_not_name_is_missing(
    bands: ModuleType, tmp_path: Path, sex: str
) -> None:
    write(tmp_path, [[[40, -850, 40]]], sex)
    assert bands.sex() is None
