"""Freezing: what is written, what is left out, and that a cohort is whole or not there."""

import csv
import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_files import DEFINITION, KEY, case, cases, encoded, picture, radiograph, tree, warm_decoder

from policies.errors import StateError, StorageError
from policies.manifest import Modality, TrainKind
from policies.profiles import load_profile
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from station.cohorts import (
    CaseSource,
    CohortDefinition,
    FrozenCohort,
    SourceFile,
    Unusable,
    freeze,
    load,
    sweep,
    wipe,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def frozen(definition: CohortDefinition, sources: list[CaseSource], out: Path) -> FrozenCohort:
    result = freeze(definition, sources, out, KEY, pool=warm_decoder())
    assert isinstance(result, FrozenCohort)
    return result


def documents(cohort: FrozenCohort) -> tuple[dict[str, list[dict[str, object]]], list[dict[str, str]]]:
    datalist = json.loads((cohort.path / "datalist.json").read_text())
    with (cohort.path / "clinical.csv").open() as file:
        return datalist, list(csv.DictReader(file))


def test_a_training_cohort_has_no_testing_patients_and_an_evaluation_cohort_only_those(
    source: Path, tmp_path: Path
) -> None:
    sources = cases(source)
    training = frozen(DEFINITION, sources, tmp_path / "out")
    evaluation = frozen(
        DEFINITION.model_copy(update={"kind": TrainKind.EVALUATION}), sources, tmp_path / "out"
    )
    assert training.patients | evaluation.patients == {item.patient for item in sources}
    assert not training.patients & evaluation.patients
    assert not training.patients_by_split[Split.TESTING]
    assert training.images_by_split[Split.TESTING] == 0
    assert evaluation.patients == evaluation.patients_by_split[Split.TESTING]
    datalist, _ = documents(evaluation)
    assert datalist["training"] == datalist["validation"] == []
    assert len(datalist["testing"]) == evaluation.images_by_split[Split.TESTING]


def test_the_folder_is_what_field_tools_read(source: Path, tmp_path: Path) -> None:
    cohort = frozen(DEFINITION, cases(source), tmp_path / "out")
    datalist, table = documents(cohort)
    entries = [entry for split in ("training", "validation") for entry in datalist[split]]
    assert len(entries) == len(table) == sum(cohort.images_by_split.values())
    for entry in entries:
        assert set(entry) == {"image", "label", "case", "patient"}
        assert entry["image"] == f"images/{entry['case']}.nii"
        assert (cohort.path / str(entry["image"])).is_file()
    assert {str(entry["case"]): str(entry["label"]) for entry in entries} == {
        row["case"]: row["pneumonia"] for row in table
    }
    assert set(table[0]) == {"case", "patient", "pneumonia", "sex"}
    described = json.loads((cohort.path / "cohort.json").read_text())
    assert described["definition"]["policy_id"] == "cxr-finding"
    assert all(
        number % 10 == 0 for split in described["counts_rounded"].values() for number in split.values()
    )


def test_patients_with_several_images_stay_in_one_split(source: Path, tmp_path: Path) -> None:
    sources = [case(source, number, patient=f"P{number // 4}") for number in range(32)]
    datalist, _ = documents(frozen(DEFINITION, sources, tmp_path / "out"))
    by_split = [{entry["patient"] for entry in datalist[split]} for split in ("training", "validation")]
    assert not by_split[0] & by_split[1]


def test_the_same_inputs_in_any_order_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    sources = cases(source)
    one = frozen(DEFINITION, sources, tmp_path / "one")
    two = frozen(DEFINITION, sources[::-1], tmp_path / "two")
    assert one.digest == two.digest
    assert tree(one.path) == tree(two.path)


def test_one_pixel_or_one_label_more_or_less_changes_the_digest(source: Path, tmp_path: Path) -> None:
    sources = cases(source)
    laid = [item for item in sources if KEY.split_of(item.patient) is not Split.TESTING]
    first = frozen(DEFINITION, sources, tmp_path / "out")
    relabelled = [
        replace(item, label=1 - int(item.label or 0)) if item is laid[0] else item for item in sources
    ]
    pixels = picture(99)
    repainted = [
        replace(item, files=case(source, 99, data=encoded(radiograph(pixels))).files)
        if item is laid[0]
        else item
        for item in sources
    ]
    digests = {first.digest} | {
        frozen(DEFINITION, each, tmp_path / "out").digest for each in (relabelled, repainted)
    }
    assert len(digests) == 3


def test_everything_is_read_only_and_dateless(source: Path, tmp_path: Path) -> None:
    cohort = frozen(DEFINITION, cases(source, 6), tmp_path / "out")
    for path in (cohort.path, *cohort.path.rglob("*")):
        status = path.lstat()
        assert status.st_mode & 0o777 == (0o555 if path.is_dir() else 0o444)
        assert status.st_mtime == 946_684_800
    assert (cohort.path.parent / "receipt.json").stat().st_mode & 0o777 == 0o600


def test_too_few_patients_refuse_and_leave_nothing(source: Path, tmp_path: Path) -> None:
    definition = DEFINITION.model_copy(update={"minimum_patients": 25})
    refused = freeze(definition, cases(source), tmp_path / "out", KEY)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.DATA_TOO_FEW_PATIENTS
    assert list((tmp_path / "out").iterdir()) == []
    assert isinstance(freeze(DEFINITION, [], tmp_path / "out", KEY), Refused)


def test_bad_cases_are_left_out_and_counted_by_reason(source: Path, tmp_path: Path) -> None:
    good = [item for item in cases(source, 40) if KEY.split_of(item.patient) is Split.TRAINING]
    assert len(good) >= 9
    sources = [
        replace(good[0], label=None),
        replace(good[1], label=float("nan")),
        replace(good[2], modality="CT"),
        replace(good[3], files=(SourceFile(good[3].files[0].path, "sha256:" + "0" * 64),)),
        replace(good[4], files=(SourceFile(source / "absent.dcm"),)),
        replace(good[5], files=case(source, 90, data=b"not DICOM").files),
        replace(
            good[6],
            files=case(source, 91, data=encoded(radiograph(picture(), Modality="CR"))).files,
        ),
        good[7],
        good[7],
    ]
    cohort = frozen(DEFINITION, sources, tmp_path / "out")
    assert cohort.images_by_split[Split.TRAINING] == 1
    assert dict(cohort.left_out) == {
        Unusable.LABEL_MISSING: 1,
        Unusable.LABEL_INVALID: 1,
        Unusable.MODALITY: 2,
        Unusable.DIGEST: 1,
        Unusable.UNREADABLE: 1,
        Unusable.NOT_DICOM: 1,
        Unusable.DUPLICATE: 1,
    }


def test_without_a_label_no_label_is_needed_or_written(source: Path, tmp_path: Path) -> None:
    definition = DEFINITION.model_copy(update={"label": None, "clinical_fields": ()})
    sources = [replace(item, label=None) for item in cases(source, 8)]
    datalist, table = documents(frozen(definition, sources, tmp_path / "out"))
    assert all("label" not in entry for entry in datalist["training"])
    assert set(table[0]) == {"case", "patient"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modalities": (Modality.CT, Modality.DX)}, RefusalCode.DATA_MODALITY),
        ({"masks": ("lesion",)}, RefusalCode.DATA_NOT_READY),
        ({"clinical_fields": ("pneumonia", "shoe_size")}, RefusalCode.DATA_FIELDS),
    ],
)
def test_what_has_no_layout_is_refused(
    source: Path, tmp_path: Path, change: dict[str, object], code: RefusalCode
) -> None:
    refused = freeze(DEFINITION.model_copy(update=change), cases(source, 4), tmp_path / "out", KEY)
    assert isinstance(refused, Refused)
    assert refused.code is code


def test_verify_sees_every_change(source: Path, tmp_path: Path) -> None:
    cohort = frozen(DEFINITION, cases(source, 6), tmp_path / "out")
    cohort.verify()
    image = next((cohort.path / "images").iterdir())
    before = image.read_bytes()
    image.chmod(0o600)
    image.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(StateError, match="not those that were frozen"):
        cohort.verify()
    image.write_bytes(before)
    cohort.verify()
    (cohort.path / "images").chmod(0o700)
    (cohort.path / "images" / "extra.nii").symlink_to("/etc/passwd")
    with pytest.raises(StateError, match="neither a file nor a folder"):
        cohort.verify()


def test_a_cohort_is_found_again_by_its_receipt(source: Path, tmp_path: Path) -> None:
    cohort = frozen(DEFINITION, cases(source), tmp_path / "out")
    assert load(cohort.path) == cohort
    (cohort.path.parent / "receipt.json").write_bytes(b"{}")
    with pytest.raises(StateError, match="receipt"):
        load(cohort.path)
    with pytest.raises(StateError):
        load(tmp_path / "absent" / "data")


def test_wiping_and_sweeping_leave_only_what_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = cases(source, 6)
    kept, lost, wiped = (frozen(DEFINITION, sources, out) for _ in range(3))
    (out / ".making-left-by-a-crash" / "data").mkdir(parents=True)
    wipe(wiped)
    wipe(wiped)
    assert not wiped.path.exists()
    assert sweep(out, keep=[kept.path]) == 2
    assert [path.name for path in out.iterdir()] == [kept.path.parent.name]
    assert not lost.path.exists()
    kept.verify()
    assert sweep(tmp_path / "absent", keep=[]) == 0


def test_a_folder_that_cannot_be_written_is_a_storage_error(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        freeze(DEFINITION, cases(source, 2), tmp_path / "out", KEY)


def test_a_disk_that_takes_no_more_leaves_nothing(source: Path, tmp_path: Path) -> None:
    sources = cases(source, 6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # an image takes 832 bytes; Python ignores SIGXFSZ
    try:
        with pytest.raises(StorageError):
            freeze(DEFINITION, sources, tmp_path / "out", KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out").iterdir()) == []


def test_fields_are_shown_in_their_bands_and_the_label_as_it_is(source: Path, tmp_path: Path) -> None:
    fields = ("pneumonia", "sex", "age_years", "crp_mg_l")
    definition = DEFINITION.model_copy(update={"clinical_fields": fields})
    values = {"pneumonia": 1, "sex": "F", "age_years": 64, "crp_mg_l": 12.7}
    good = next(item for item in cases(source) if KEY.split_of(item.patient) is Split.TRAINING)
    cohort = frozen(definition, [replace(good, clinical=values, label=1)], tmp_path / "out")
    _, (row,) = documents(cohort)
    profile = load_profile("thorax-1@1")
    shown = {name: str(profile.band(name, values[name])) for name in fields}
    assert {name: row[name] for name in fields} == shown | {"pneumonia": "1"}
    assert row["age_years"] != "64"


def test_a_date_is_moved_for_the_train_before_it_is_banded(source: Path, tmp_path: Path) -> None:
    good = next(item for item in cases(source) if KEY.split_of(item.patient) is Split.TRAINING)
    case_ = replace(good, clinical={"admission_date": "2020-07-20"}, label=None)
    shown = set()
    for number in range(12):
        definition = DEFINITION.model_copy(
            update={
                "policy_id": f"policy-{number}",
                "profile": "ncif-covid-1@1",
                "clinical_fields": ("admission_date",),
                "label": None,
            }
        )
        _, (row,) = documents(frozen(definition, [case_], tmp_path / "out"))
        shown.add(row["admission_date"])
    assert len(shown) >= 3
    assert all(value < "2020-Q4" for value in shown)
    assert "2020-07-20" not in shown


def test_a_value_that_does_not_fit_its_field_is_not_shown(source: Path, tmp_path: Path) -> None:
    good = next(item for item in cases(source) if KEY.split_of(item.patient) is Split.TRAINING)
    odd = replace(good, clinical={"pneumonia": 1, "sex": "Jansen"}, label=1)
    _, (row,) = documents(frozen(DEFINITION, [odd], tmp_path / "out"))
    assert row["sex"] == ""
