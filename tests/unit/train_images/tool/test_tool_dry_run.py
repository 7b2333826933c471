"""The parts of a dry run that need no container: its cohort, its policy, its weights, its words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import dcmread
from safetensors.numpy import load_file, save_file
from tool_kit import MANIFEST, make_bundle, make_policy

import train_images
from policies.documents import load_yaml
from policies.errors import RefusedError
from policies.manifest import TrainManifest
from policies.refusals import Reason, RefusalCode
from policies.wire.deltas import apply_delta
from station.cohorts import CohortDefinition, CohortKey, FrozenCohort, define, freeze, wipe
from station.egress.release import Suppressed
from train_images.tool import dry_words
from train_images.tool.dry_cohort import DryCases, DryImages, make_cases
from train_images.tool.dry_measures import Measure
from train_images.tool.dry_messages import DryMessage
from train_images.tool.dry_run import DryReport
from train_images.tool.dry_terms import draft_for, dry_policy, patients_for

KEY = "ab" * 32


def manifest(text: str = MANIFEST) -> TrainManifest:
    return load_yaml(TrainManifest, text.encode(), what="train.yaml")


def made_cases(train: TrainManifest, folder: Path, patients: int, seed: int) -> DryCases:
    return make_cases(train, folder, DryImages(patients, seed))


def test_phantoms_become_cases_with_the_fields_of_the_minimal_dataset(tmp_path: Path) -> None:
    fields = "[pneumonia, sex, age_years, temperature_c, crp_mg_l, smoker]"
    made = made_cases(manifest(MANIFEST.replace("[pneumonia]", fields)), tmp_path, patients=6, seed=1)
    assert made.empty_fields == ()
    assert made.borrowed_label is None
    assert len({case.patient for case in made.cases}) == 6
    for case in made.cases:
        assert case.label in {0, 1}
        assert case.clinical["pneumonia"] == case.label
        assert case.clinical["sex"] in {"F", "M"}
        assert isinstance(case.clinical["age_years"], int)
        assert case.files[0].path.read_bytes()[128:132] == b"DICM"


def test_what_the_phantoms_do_not_have_is_said(tmp_path: Path) -> None:
    text = MANIFEST.replace(
        "clinical_fields: [pneumonia], label: pneumonia", "clinical_fields: [ph], label: nodule"
    )
    made = made_cases(manifest(text), tmp_path, patients=3, seed=1)
    assert made.empty_fields == ("ph",)
    assert made.borrowed_label == "nodule"
    assert all(case.label in {0, 1} and case.clinical["ph"] is None for case in made.cases)


def test_a_train_for_ct_gets_series_with_the_masks_it_asks_for(tmp_path: Path) -> None:
    text = MANIFEST.replace("[DX]", "[CT]").replace(
        "label: pneumonia", "label: pneumonia, masks: [nodule, heart]"
    )
    train = make_bundle(tmp_path / "bundle", manifest=text)
    made = made_cases(train.manifest, tmp_path / "phantoms", patients=8, seed=3)
    policy = dry_policy(train, None)
    definition = define(policy, train.manifest)
    assert isinstance(definition, CohortDefinition)
    few = definition.model_copy(update={"minimum_patients": 1})
    frozen = freeze(few, made.cases, tmp_path / "cohorts", CohortKey(bytes(32)))
    assert isinstance(frozen, FrozenCohort)
    assert frozen.left_out == {}
    labels = [np.frombuffer(path.read_bytes()[352:], np.uint8) for path in (frozen.path / "labels").iterdir()]
    assert {int(value) for each in labels for value in np.unique(each)} == {0, 1}
    wipe(frozen)


def test_every_image_goes_with_its_own_row_of_the_form(tmp_path: Path) -> None:
    for case in made_cases(manifest(), tmp_path, patients=12, seed=3).cases:
        image = dcmread(case.files[0].path, stop_before_pixels=True)
        assert (image.AccessionNumber, image.PatientID) == (case.study, case.patient)


def test_the_phantoms_are_all_of_use_to_a_station(tmp_path: Path) -> None:
    train = make_bundle(tmp_path / "bundle")
    made = made_cases(train.manifest, tmp_path / "phantoms", patients=24, seed=3)
    definition = define(dry_policy(train, None), train.manifest)
    assert isinstance(definition, CohortDefinition)
    frozen = freeze(definition, made.cases, tmp_path / "cohorts", CohortKey(bytes(32)))
    assert isinstance(frozen, FrozenCohort)
    assert frozen.left_out == {}
    assert len(frozen.patients) >= definition.minimum_patients
    wipe(frozen)


def test_the_draft_is_the_boards_own(tmp_path: Path) -> None:
    train = make_bundle(tmp_path)
    policy = dry_policy(train, None)
    assert policy.manifest_digest == train.index.manifest.digest
    assert policy.image_config_digests == (train.index.config.digest,)
    assert set(policy.runs.hyperparameters) == {"step", "times", "flip"}
    assert patients_for(policy, None) == 60
    assert patients_for(policy, 7) == 7


def test_a_given_policy_is_kept_to_and_asks_for_more_patients(tmp_path: Path) -> None:
    train = make_bundle(tmp_path / "bundle")
    path = make_policy(train, tmp_path / "p.yaml", KEY, data__minimum_patients=300)
    assert patients_for(dry_policy(train, path), None) == 600


@pytest.mark.parametrize("code", [RefusalCode.MANIFEST_DIGEST, RefusalCode.IMAGE_DIGEST])
def test_a_policy_for_another_train_is_refused(tmp_path: Path, code: RefusalCode) -> None:
    train = make_bundle(tmp_path / "bundle")
    path = make_policy(train, tmp_path / "p.yaml", KEY)
    wrong = train.index.manifest if code is RefusalCode.MANIFEST_DIGEST else train.index.config
    path.write_text(path.read_text().replace(wrong.digest, "sha256:" + "0" * 64))
    with pytest.raises(RefusedError) as found:
        dry_policy(train, path)
    assert found.value.code == code


@settings(max_examples=40)
@given(
    hnp.arrays(np.float32, 5, elements=st.floats(-1e3, 1e3, width=32)),
    hnp.arrays(np.float32, 5, elements=st.floats(-1, 1, width=32)),
    hnp.arrays(np.int64, 2, elements=st.integers(0, 1000)),
    hnp.arrays(np.int64, 2, elements=st.integers(-5, 5)),
)
def test_the_next_weights_are_the_old_ones_and_the_release(
    tmp_path_factory: pytest.TempPathFactory,
    weights: "np.ndarray[tuple[int], np.dtype[np.float32]]",
    step: "np.ndarray[tuple[int], np.dtype[np.float32]]",
    count: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    change: "np.ndarray[tuple[int], np.dtype[np.int64]]",
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    save_file({"w": weights, "half": weights.astype(np.float16), "n": count.astype(np.uint8)}, folder / "in")
    save_file({"w": step, "n": change}, folder / "delta")
    apply_delta(folder / "in", folder / "delta", folder / "out")
    out = load_file(folder / "out")
    assert np.array_equal(out["w"], weights + step)
    assert np.array_equal(out["half"], weights.astype(np.float16))
    assert np.array_equal(out["n"], (count.astype(np.uint8).astype(np.int64) + change).astype(np.uint8))


def report(*messages: DryMessage) -> DryReport:
    return DryReport(
        train="trivial", version="1.0.0", outcome=messages[-1].outcome, policy="the board's draft",
        hyperparameters={"step": 1.0}, patients={"training": 30}, left_out={"label-missing": 2}, notes=("a note",),
        messages=messages, image_shape=(64, 64, 24),
        measures=(Measure("memory, at most", 50.5, 256.0, "MiB", "far more"), Measure("start", 1.5, None, "s")),
        log="one\ntwo\n",
    )  # fmt: skip


def test_a_report_in_words() -> None:
    released = DryMessage(
        1, "train", "released", metrics={"loss": 0.5}, tables={"t": ((1, 2), (3, 4))}, num_examples=30,
        suppressed=(Suppressed("auc", RefusalCode.RELEASE_TOO_FEW_PATIENTS),), arrays_bytes=388, seconds=1.25,
        capacity_bits=2_500,
    )  # fmt: skip
    found = report(released)
    (row,) = dry_words.rows(found)
    assert row == (
        "1", "train", "released", "loss 0.5, table t, 2 rows, update of 388 bytes, about 30 images, room for 2.5 kbit",
        "1.25",
    )  # fmt: skip
    assert list(dry_words.measured_rows(found)) == [
        ("memory, at most", "50.5 MiB", "256 MiB", "far more"),
        ("start", "1.5 s", "", ""),
    ]
    assert "Cohort: patients 30 training, images of 64x64x24" in list(dry_words.lines_before(found))
    assert "Left out: 2 label-missing" in list(dry_words.lines_before(found))
    after = list(dry_words.lines_after(found))
    assert after[0] == (
        "Left out of round 1, train: auc (RELEASE_TOO_FEW_PATIENTS): "
        "The result rests on fewer patients than the policy's minimum."
    )
    assert after[-2:] == [
        "Every message would have been released, without what is left out above.",
        "With more patients less is hidden: --patients makes up more.",
    ]
    whole = report(replace(released, suppressed=()))
    assert list(dry_words.lines_after(whole)) == ["Every message would have been released."]
    assert found.problem is None


def test_a_report_of_what_was_withheld_says_which_rule_and_what_to_do() -> None:
    withheld = DryMessage(1, "train", "withheld", (Reason(RefusalCode.RELEASE_TENSOR_EXTRA, "smuggled"),))
    found = report(withheld)
    assert "RELEASE_TENSOR_EXTRA: smuggled" in list(dry_words.lines_after(found))
    assert found.problem is withheld
    code, message, hint = dry_words.refusal(withheld)
    assert (code, message) == ("RELEASE_TENSOR_EXTRA", "round 1: train would be withheld")
    assert hint


def test_a_report_of_a_crash_shows_what_the_train_printed() -> None:
    failed = DryMessage(2, "train", "failed", (Reason(RefusalCode.TRAIN_CRASHED, "its code failed"),))
    assert list(dry_words.lines_after(report(failed)))[-2:] == ["  one", "  two"]


@pytest.mark.parametrize("name", ["glm", "cxr-classification"])
def test_a_dry_run_may_try_what_the_manifest_allows_whatever_the_example_narrows(
    name: str, tmp_path: Path
) -> None:
    text = (Path(train_images.__file__).parent / name / "train.yaml").read_text()
    policy = draft_for(make_bundle(tmp_path, manifest=text).path)
    assert policy.runs.hyperparameters == manifest(text).hyperparameters
