"""A blind cohort: nothing in it says who is a member, by bytes, names, order, sizes or dates."""

import csv
import json
import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cohort_files import DEFINITION, KEY, cases, encoded, picture, radiograph, tree, warm_decoder
from pydicom import dcmread

from policies.errors import StateError, StorageError
from policies.splits import Split
from station.cohorts import FrozenCohort, blind, freeze
from station.cohorts.blind import TWINS, blind_cohort, blind_patients
from station.cohorts.frozen import remove_tree
from station.cohorts.layout import EPOCH_S

SEED = b"s" * 32
SIDES = (Split.TRAINING, Split.VALIDATION)


def open_up(cohort: FrozenCohort) -> None:
    for folder, _, _ in os.walk(cohort.path):
        Path(folder).chmod(0o755)
    for path in cohort.path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def rewrite(cohort: FrozenCohort, change: Any) -> None:
    open_up(cohort)
    path = cohort.path / "datalist.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def cohort(tmp_path: Path) -> FrozenCohort:
    """Radiographs of forty patients; some have two."""
    (tmp_path / "dicom").mkdir()
    sources = cases(tmp_path / "dicom", 60)
    sources = [replace(one, patient=f"P{at % 40}") for at, one in enumerate(sources)]
    made = freeze(DEFINITION, sources, tmp_path / "cohorts", KEY, pool=warm_decoder())
    assert isinstance(made, FrozenCohort)
    return made


def evened(cohort: FrozenCohort) -> None:
    """Leave as many patients in training as in validation, so that either could be the members."""

    def change(document: Any) -> None:
        sides = {split: list(dict.fromkeys(case["patient"] for case in document[split])) for split in SIDES}
        count = min(len(side) for side in sides.values())
        for split in SIDES:
            document[split] = [case for case in document[split] if case["patient"] in sides[split][:count]]

    rewrite(cohort, change)


def swapped(cohort: FrozenCohort, folder: Path) -> FrozenCohort:
    """The same cohort, but those trained on were held back, and the other way round."""
    shutil.copytree(cohort.path, folder / "swapped" / "data")
    other = replace(
        cohort,
        path=folder / "swapped" / "data",
        patients_by_split={
            Split.TRAINING: cohort.patients_by_split[Split.VALIDATION],
            Split.VALIDATION: cohort.patients_by_split[Split.TRAINING],
            Split.TESTING: frozenset(),
        },
    )

    def change(document: Any) -> None:
        document["training"], document["validation"] = document["validation"], document["training"]

    rewrite(other, change)
    return other


def seen(folder: Path) -> dict[str, Any]:
    """All that a program could tell of a folder but where it lies: bytes, modes, sizes, dates, links."""
    found: dict[str, Any] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        at = path.stat()
        content = path.read_bytes() if path.is_file() else sorted(each.name for each in path.iterdir())
        size = at.st_size if path.is_file() else 0
        found[str(path.relative_to(folder))] = (
            at.st_mode,
            at.st_nlink,
            at.st_mtime_ns,
            at.st_uid,
            size,
            content,
        )
    return found


def test_with_the_roles_swapped_every_byte_is_the_same(
    cohort: FrozenCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is a function of who is in it and of what was drawn, not of who was trained on."""
    evened(cohort)
    made: list[str] = []

    def noted(source: Path, target: Path) -> None:
        made.append(target.name)
        bring(source, target)

    bring = blind.bring
    monkeypatch.setattr(blind, "bring", noted)
    sides = []
    for which in (cohort, swapped(cohort, tmp_path)):
        for draw in range(3):
            made.clear()
            with blind_cohort(which, SEED, random.Random(draw)) as laid:
                sides.append((seen(laid.path), list(made), [case.member for case in laid.cases], laid.cases))
    for draw in range(3):
        mine, theirs = sides[draw], sides[3 + draw]
        assert mine[0] == theirs[0]
        assert mine[1] == theirs[1]
        assert mine[2] == [not member for member in theirs[2]]
    assert len({tuple(side[2]) for side in sides[:3]}) == 3


def test_who_is_who_lies_in_no_order(cohort: FrozenCohort) -> None:
    """The place of a case, over many draws, is a member's as often as not; files are made in the order of fresh names."""
    firsts = Counter()
    for draw in range(60):
        with blind_cohort(cohort, SEED, random.Random(draw)) as laid:
            listed = json.loads((laid.path / "datalist.json").read_bytes())["validation"]
            assert [entry["case"] for entry in listed] == sorted(entry["case"] for entry in listed)
            firsts[laid.cases[0].member] += 1
    assert min(firsts.values()) > 10


def test_no_name_of_the_cohort_comes_back_and_none_twice(cohort: FrozenCohort) -> None:
    listed = json.loads((cohort.path / "datalist.json").read_bytes())
    known = {entry[key] for split in SIDES for entry in listed[split] for key in ("case", "patient")}
    before: set[str] = set()
    for _ in range(3):
        with blind_cohort(cohort, SEED) as laid:
            content = b"\n".join(
                name.encode() + data for name, data in tree(laid.path).items() if not name.endswith(".nii")
            )
            for name in known:
                assert name.encode() not in content
            entries = json.loads((laid.path / "datalist.json").read_bytes())["validation"]
            names = {entry[key] for entry in entries for key in ("case", "patient")}
            assert not names & before
            before |= names


def test_it_is_one_split_of_a_cohorts_own_form(cohort: FrozenCohort) -> None:
    whole = json.loads((cohort.path / "datalist.json").read_bytes())
    by_image = {
        (cohort.path / entry["image"]).read_bytes(): (entry["label"], split, entry["patient"])
        for split in SIDES
        for entry in whole[split]
    }
    with blind_cohort(cohort, SEED) as laid:
        listed = json.loads((laid.path / "datalist.json").read_bytes())
        assert listed["training"] == listed["testing"] == []
        assert set(listed) == set(whole)
        entries = listed["validation"]
        assert len(entries) == len(laid.cases)
        with (laid.path / "clinical.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["case"], row["patient"]) for row in rows] == [
            (entry["case"], entry["patient"]) for entry in entries
        ]
        people: dict[int, set[str]] = {}
        for entry, case, row in zip(entries, laid.cases, rows, strict=True):
            label, split, patient = by_image[(laid.path / entry["image"]).read_bytes()]
            assert entry["label"] == label
            assert row["pneumonia"] == str(label)
            assert case.member == (split is Split.TRAINING)
            people.setdefault(case.patient, set()).add(patient)
        assert all(len(found) == 1 for found in people.values())
        assert len({patient for found in people.values() for patient in found}) == len(people)
        members = {case.patient for case in laid.cases if case.member}
        assert len(members) == len(people) - len(members) == blind_patients(cohort)
        described = json.loads((laid.path / "cohort.json").read_bytes())
        assert described["counts_rounded"]["training"] == {"images": 0, "patients": 0}
        assert described["counts_rounded"]["validation"]["images"] % 10 == 0
        assert "labels" in listed
        for path in [laid.path, *laid.path.rglob("*")]:
            assert path.stat().st_mode & 0o222 == 0
            assert path.stat().st_mtime == EPOCH_S
    assert not laid.path.exists()


def test_some_cases_lie_twice_under_other_names_of_each_side(cohort: FrozenCohort) -> None:
    with blind_cohort(cohort, SEED) as laid:
        entries = json.loads((laid.path / "datalist.json").read_bytes())["validation"]
        twins = [(at, case) for at, case in enumerate(laid.cases) if case.twin_of is not None]
        assert Counter(case.member for _, case in twins) == {True: TWINS, False: TWINS}
        for at, case in twins:
            assert case.twin_of is not None
            first = laid.cases[case.twin_of]
            assert (first.patient, first.twin_of) == (case.patient, None)
            assert entries[at]["patient"] != entries[case.twin_of]["patient"]
            paths = [laid.path / entries[place]["image"] for place in (at, case.twin_of)]
            assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_same_seed_takes_the_same_patients_and_another_others(
    cohort: FrozenCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind, "MOST_PATIENTS", 3)

    def taken(seed: bytes) -> set[bytes]:
        with blind_cohort(cohort, seed) as laid:
            return {path.read_bytes() for path in (laid.path / "images").iterdir()}

    assert taken(SEED) == taken(SEED)
    assert len({frozenset(taken(bytes([at]) * 32)) for at in range(6)}) > 1
    assert KEY.sample_seed("sha256:1", 1) == KEY.sample_seed("sha256:1", 1)
    assert KEY.sample_seed("sha256:1", 1) != KEY.sample_seed("sha256:1", 2)


def test_large_images_take_fewer_patients_but_enough(
    cohort: FrozenCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind, "MOST_BYTES", 1)
    monkeypatch.setattr(blind, "FEWEST_PATIENTS", 4)
    with blind_cohort(cohort, SEED) as laid:
        assert len({case.patient for case in laid.cases}) == 8


def test_dicom_files_get_other_uids_and_the_fresh_name(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    sources = cases(tmp_path / "dicom", 24)
    definition = DEFINITION.model_copy(update={"representation": "dicom"})
    made = freeze(definition, sources, tmp_path / "cohorts", KEY)
    assert isinstance(made, FrozenCohort)
    uids = {str(dcmread(path).SOPInstanceUID) for path in made.path.rglob("*.dcm")}
    with blind_cohort(made, SEED) as laid:
        entries = json.loads((laid.path / "datalist.json").read_bytes())["validation"]
        for entry in entries:
            (file,) = (laid.path / entry["image"]).iterdir()
            dataset = dcmread(file)
            assert str(dataset.PatientID) == str(dataset.PatientName) == entry["patient"]
            assert str(dataset.SOPInstanceUID) not in uids
            assert file.stat().st_mtime == EPOCH_S


def test_masks_come_along(cohort: FrozenCohort) -> None:
    def change(document: Any) -> None:
        (cohort.path / "labels").mkdir()
        for split in SIDES:
            for entry in document[split]:
                entry["label"] = f"labels/{entry['case']}.nii"
                (cohort.path / entry["label"]).write_bytes(
                    b"mask of " + (cohort.path / entry["image"]).read_bytes()
                )

    rewrite(cohort, change)
    with blind_cohort(cohort, SEED) as laid:
        for entry in json.loads((laid.path / "datalist.json").read_bytes())["validation"]:
            mask = (laid.path / entry["label"]).read_bytes()
            assert mask == b"mask of " + (laid.path / entry["image"]).read_bytes()


def test_a_damaged_cohort_and_a_full_disk_leave_nothing(cohort: FrozenCohort) -> None:
    root = cohort.path.parent / "blind"
    root.write_text("in the way")
    with pytest.raises(StorageError), blind_cohort(cohort, SEED):
        pass
    root.unlink()
    open_up(cohort)
    image = next((cohort.path / "images").iterdir())
    image.unlink()
    image.symlink_to("/etc/hostname")
    with pytest.raises(StorageError), blind_cohort(cohort, SEED):
        pass
    assert list(root.iterdir()) == []
    (cohort.path / "datalist.json").write_text("{")
    with pytest.raises(StateError), blind_cohort(cohort, SEED):
        pass
    remove_tree(root)


def test_a_picture_is_not_another() -> None:
    """What the tests above tell cases by."""
    assert encoded(radiograph(picture(1))) != encoded(radiograph(picture(2)))
