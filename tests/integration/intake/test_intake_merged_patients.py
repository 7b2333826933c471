"""Merges: pseudonyms reunite, in what is held and in what comes later."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_kit import contents, folder_of, image, live_instances

from policies.errors import DataError
from station.handover import ConsentContent, MergedContent
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.merges.chains import MergeError
from station.intake.paths import IntakePaths

CSV = b"old_issuer,old_id,new_issuer,new_id\n"
OLD, NEW, LAST = "3748755", "9252896", "1000001"
ISSUER = b"Amstelrijk"


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def intake(paths: IntakePaths) -> Iterator[Intake]:
    with Intake(paths) as opened:
        yield opened


def merge(intake: Intake, *pairs: tuple[str, str]) -> tuple[int, int, int]:
    rows = [b"Amstelrijk,%s,Amstelrijk,%s" % (old.encode(), new.encode()) for old, new in pairs]
    report = intake.merges.import_merges(CSV + b"\n".join(rows) + b"\n")
    return report.told, report.new, report.patients


def patients(paths: IntakePaths) -> set[str]:
    return {record.patient for record in live_instances(paths).values()}


def told(paths: IntakePaths) -> int:
    return sum(isinstance(content, MergedContent) for content in contents(paths))


def test_what_is_held_moves_to_the_surviving_pseudonym(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1, OLD), image(2, NEW, 2000)), "cxr")
    assert len(patients(paths)) == 2
    assert merge(intake, (OLD, NEW)) == (1, 1, 1)
    assert len(patients(paths)) == 1
    assert intake.status().patients == 1
    assert merge(intake, (OLD, NEW)) == (1, 0, 0)
    assert told(paths) == 1


def test_what_comes_later_under_the_old_id_has_the_surviving_pseudonym(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1, NEW, 2000)), "cxr")
    merge(intake, (OLD, NEW))
    report = intake.import_folder(folder_of(tmp_path, image(2, OLD), image(3, NEW)), "cxr")
    assert (report.accepted, report.quarantined) == (2, {})
    assert len(patients(paths)) == 1
    again = intake.import_folder(folder_of(tmp_path, image(2, OLD)), "cxr")
    assert again.duplicates == 1


def test_the_very_same_file_after_a_merge_is_still_the_same(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, image(1, OLD))
    intake.import_folder(source, "cxr")
    merge(intake, (OLD, NEW))
    assert intake.import_folder(source, "cxr").duplicates == 1
    # A further file of that study is the surviving patient's as well: no dispute.
    assert intake.import_folder(folder_of(tmp_path, image(2, OLD)), "cxr").accepted == 1
    assert len(patients(paths)) == 1


def test_chains_are_followed_to_their_end(intake: Intake, paths: IntakePaths, tmp_path: Path) -> None:
    intake.import_folder(folder_of(tmp_path, image(1, OLD), image(2, NEW, 2000), image(3, LAST, 3000)), "cxr")
    merge(intake, (OLD, NEW))
    merge(intake, (NEW, LAST))
    assert len(patients(paths)) == 1
    intake.import_folder(folder_of(tmp_path, image(4, OLD, 4000), image(5, LAST, 5000)), "cxr")
    assert len(patients(paths)) == 1


@pytest.mark.parametrize(
    ("pairs", "fault"),
    [
        (((OLD, OLD),), "merge-with-itself"),
        (((OLD, NEW), (NEW, OLD)), "merge-cycle"),
        (((OLD, NEW), (NEW, LAST), (LAST, OLD)), "merge-cycle"),
        (((OLD, NEW), (OLD, LAST)), "merged-into-another"),
    ],
)
def test_cycles_and_partings_are_refused_whole(
    intake: Intake, paths: IntakePaths, tmp_path: Path, pairs: tuple[tuple[str, str], ...], fault: str
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1, OLD), image(2, NEW, 2000)), "cxr")
    with pytest.raises(MergeError) as refused:
        merge(intake, *pairs)
    assert refused.value.fault == fault
    assert not [name for name in (OLD, NEW, LAST, "Amstelrijk") if name in str(refused.value)]
    assert len(patients(paths)) == 2
    assert told(paths) == 0


def test_an_objection_under_the_old_id_counts_for_the_merged_patient(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    intake.import_folder(folder_of(tmp_path, image(1, OLD), image(2, NEW, 2000)), "cxr")
    intake.import_consent(
        b"patient_id,decision,purpose,date\n"
        b"3748755,objection,research-participants,2020-01-01\n9252896,consent,research-participants,2020-01-01\n"
    )
    merge(intake, (OLD, NEW))
    last = [content for content in contents(paths) if isinstance(content, ConsentContent)][-1]
    (patient,) = patients(paths)
    decisions = {record.decision for record in last.records if record.patient == patient}
    assert "objection" in decisions


def test_merges_survive_a_restart(paths: IntakePaths, tmp_path: Path) -> None:
    with Intake(paths) as intake:
        intake.import_folder(folder_of(tmp_path, image(1, NEW, 2000)), "cxr")
        merge(intake, (OLD, NEW))
    with Intake(paths) as intake:
        intake.import_folder(folder_of(tmp_path, image(2, OLD)), "cxr")
    assert len(patients(paths)) == 1


def test_a_message_that_undoes_a_merge_is_refused(intake: Intake) -> None:
    message = b"MSH|^~\\&|EPR|H|PHT|H|20260101||ADT^A37|1|P|2.5\rPID|||1\rPID|||2\r"
    with pytest.raises(DataError, match="undoes a merge") as refused:
        intake.merges.import_merges(message)
    assert "not undone" in refused.value.hint


def test_a_merge_told_in_the_middle_of_a_batch_counts_for_the_rest_of_it(
    intake: Intake, paths: IntakePaths, tmp_path: Path
) -> None:
    source = folder_of(tmp_path, *(image(number, OLD, 1000 + number) for number in range(50)))
    told_once: list[tuple[int, int, int]] = []

    def tell(_done: int, _total: int) -> None:
        if not told_once:
            told_once.append(merge(intake, (OLD, NEW)))

    assert intake.import_folder(source, "cxr", tell).accepted == 50
    assert told_once == [(1, 1, 1)]
    assert len(patients(paths)) == 1
    intake.import_folder(folder_of(tmp_path, image(99, NEW, 9000)), "cxr")
    assert len(patients(paths)) == 1
    assert intake.status().patients == 1
