"""From a finished run to the hospital's folder: what is asked, what is kept, what is on record, and what a crash leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from catalogue_log import patient
from prediction_documents import judged
from prediction_kit import (
    PATIENTS,
    Marks,
    keeper,
    kept,
    marks,
    one_round,
    predicting_station,
    settled,
)
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from station_kit import StationKit, order_digest
from station_simulators import Answered, TrainEndsError

from policies.errors import StorageError
from policies.wire.instructions import Kind, Status
from station.audit.events import AuditEvent, AuditRecord
from station.sandbox.spec import ExitClass, TrainFailure
from station.settings.predictions import PredictionSettings


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = predicting_station(tmp_path, monkeypatch)
    yield made
    made.close()


SIZE = 4000
"""Bytes, three times of which hold the two objects of one case, and one of the next."""


def record_of(kit: StationKit, event: AuditEvent) -> AuditRecord:
    (found,) = [item.record for item in kit.audit.events(limit=10_000) if item.record.event is event]
    return found


def test_every_case_has_its_marks_and_its_report(kit: StationKit) -> None:
    train: Any = kit.sandbox.train
    envelope, replies = one_round(kit)
    assert [reply.status for reply in replies][-1] is Status.FINISHED
    # Those of the splits that this train is given, and of nobody else.
    assert 3 <= len(train.asked) == len(set(train.asked)) < PATIENTS
    assert train.asked == sorted(train.asked)
    files = kept(kit)
    assert len(files) == 2 * len(train.asked)
    assert {path.parent.name for path in files} == {f"run-{order_digest(envelope)[7:31]}-round-1"}
    patients = set()
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o640
        assert "Error" not in judged(path)
        made = pydicom.dcmread(path)
        assert path.name == f"{made.SOPInstanceUID}.dcm"
        assert b"NOT-THE-CATALOGUES" not in path.read_bytes()
        patients.add(made.PatientID)
    assert patients <= {patient(number) for number in range(1, PATIENTS + 1)}
    assert len(patients) == len(train.asked)
    # A segmentation is of its own case.
    seen = {request.case: request for request in kit.sandbox.asked if request.kind == "predict"}
    assert {request.round for request in seen.values()} == {1}
    (weights,) = {request.arrays for request in seen.values()}
    assert weights is not None
    _the_record_says_what_was_asked_and_what_was_kept(kit, envelope)
    _a_row_never_changes_and_is_never_removed(kit)
    _what_is_over_its_term_goes_and_its_row_stays(kit)


def test_what_was_marked_is_what_lies_in_the_folder(kit: StationKit) -> None:
    said = {}

    def say(case: str) -> Answered:
        said[case] = marks(len(said))
        return {}, {}, {"lungs": said[case]}

    kit.sandbox.train = Marks(say)
    one_round(kit)
    found = [pydicom.dcmread(path).pixel_array for path in kept(kit)]
    assert len(found) == len(said) > 0
    for drawn in said.values():
        assert any((frames[0] + 2 * frames[1] == drawn.T).all() for frames in found)


def _the_record_says_what_was_asked_and_what_was_kept(kit: StationKit, envelope: bytes) -> None:
    train: Any = kit.sandbox.train
    record = record_of(kit, AuditEvent.PREDICTIONS_KEPT)
    cases = len(train.asked)
    size = sum(path.stat().st_size for path in kept(kit))
    assert record.object == order_digest(envelope)
    assert record.numbers == {
        "round": 1, "cases": cases, "failed": 0, "left_out": 0, "made": 2 * cases, "kept": 2 * cases, "bytes": size,
    }  # fmt: skip
    events = kit.events()
    used = [
        item.record for item in kit.audit.events(limit=10_000) if item.record.event is AuditEvent.DATA_USED
    ]
    assert "stage predict" in used[-1].detail
    # The container and the cohort go before that, and nothing is left of the run.
    assert events.index("container-ended") < events.index("cohort-wiped") < events.index("predictions-kept")
    assert not list(kit.paths.cohorts.iterdir())
    assert not list(kit.paths.work.iterdir())
    assert not kit.sandbox.running
    rows = kit.book.by_run()
    assert {(row.name, row.kept, row.removed) for row in rows} == {("lungs", cases, 0), ("shares", cases, 0)}


def test_a_case_without_an_answer_costs_no_other_and_a_container_that_ends_ends_the_asking(
    kit: StationKit,
) -> None:
    def say(case: str) -> Answered:
        match len(train.asked):
            case 1:
                raise TrainEndsError(TrainFailure(ExitClass.DECLARED_ERROR, "NO_LABELS", session_ended=False))
            case 2:
                return {"involved": 101.0}, {}, {"lungs": marks()}
            case 4:
                raise TrainEndsError(TrainFailure(ExitClass.CRASH))
        return {"involved": 1.0}, {}, {"lungs": marks()}

    train = Marks(say)
    kit.sandbox.train = train
    envelope, _ = one_round(kit)
    numbers = record_of(kit, AuditEvent.PREDICTIONS_KEPT).numbers
    assert (numbers["cases"], numbers["failed"], numbers["left_out"], numbers["kept"]) == (4, 2, 1, 2)
    assert len(train.asked) == 4
    assert len(kept(kit)) == 2
    # No failure of the run's: that is over, and was answered.
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert (run.state.value, run.failures) == ("finished", 0)


def test_no_more_is_kept_than_the_hospital_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "predictions").mkdir()
    settings = PredictionSettings(folder=str(tmp_path / "predictions"), max_mib=3)
    kit = predicting_station(tmp_path, monkeypatch, keep=False, predictions=settings)
    monkeypatch.setattr("station.runs.predicting.MIB", SIZE)
    envelope, _ = one_round(kit)
    train: Any = kit.sandbox.train
    assert train.asked
    assert 0 < sum(path.stat().st_size for path in kept(kit)) <= 3 * SIZE
    # All of a case or nothing of it.
    assert {path.parent.name for path in kept(kit)} == {f"run-{order_digest(envelope)[7:31]}-round-1"}
    assert {row.kept for row in kit.book.by_run()} == {len(kept(kit)) // 2}
    kit.close()


def test_a_run_that_evaluated_nothing_is_asked_nothing(kit: StationKit) -> None:
    envelope = kit.ready(rounds=1)
    assert kit.message(envelope, Kind.TRAIN)[0].status is Status.RELEASED
    assert kit.message(envelope, Kind.FINISH)[0].status is Status.FINISHED
    settled(kit)
    assert not kept(kit)
    assert "predictions-kept" not in kit.events()


def test_a_finished_order_is_answered_while_its_train_is_asked_and_holds_its_place(kit: StationKit) -> None:
    import threading

    entered, go_on = threading.Event(), threading.Event()

    def say(case: str) -> Answered:
        entered.set()
        assert go_on.wait(60)
        return {}, {}, {"lungs": marks()}

    kit.sandbox.train = Marks(say)
    envelope = kit.ready(rounds=1)
    for kind in (Kind.TRAIN, Kind.EVALUATE):
        kit.message(envelope, kind)
    assert kit.message(envelope, Kind.FINISH)[0].status is Status.FINISHED
    assert entered.wait(60)
    # Asked again, it is answered again, at once; its release is repeated, byte for byte.
    assert kit.message(envelope, Kind.FINISH)[0].status is Status.FINISHED
    assert kit.message(envelope, Kind.EVALUATE)[0].status is Status.RELEASED
    assert kit.warm.orders() == {order_digest(envelope)}
    assert kit.warm.cohorts()
    assert not kept(kit)
    go_on.set()
    settled(kit)
    assert kept(kit)


def test_a_station_that_stops_ends_it_and_keeps_what_was_made(kit: StationKit) -> None:
    import threading

    entered = threading.Event()

    def say(case: str) -> Answered:
        if len(train.asked) == 2:
            entered.set()
            assert kit.sandbox.started[-1].killed.wait(60)
        return {}, {}, {"lungs": marks()}

    train = Marks(say)
    kit.sandbox.train = train
    envelope = kit.ready(rounds=1)
    for kind in (Kind.TRAIN, Kind.EVALUATE, Kind.FINISH):
        kit.message(envelope, kind)
    assert entered.wait(60)
    kit.warm.close()
    assert not kit.warm.orders()
    assert not kept(kit)


def test_what_a_crash_left_unrecorded_goes_and_what_was_recorded_comes_to_its_place(kit: StationKit) -> None:
    one_round(kit)
    files = kept(kit)
    making = kit.folder / "predictions" / ".making"
    # Killed after the record, before the rename; and beside it one that was never recorded.
    files[0].rename(making / files[0].name)
    (making / "2.25.99.dcm").write_bytes(b"half of an object")
    files[1].unlink()
    kit.again()
    assert keeper(kit).recover() == 1
    assert kept(kit) == [files[0], *files[2:]]
    lost = [row for row in kit.book.by_run() if row.removed]
    assert [(row.kept, row.removed) for row in lost] == [(len(files) // 2 - 1, 1)]
    assert keeper(kit).recover() == 0
    assert record_of(kit, AuditEvent.PREDICTIONS_REMOVED).numbers == {"lost": 1}


def test_without_an_audit_nothing_is_kept(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    append = kit.audit.append

    def broken(record: AuditRecord, act: Any = None) -> int:
        if record.event is AuditEvent.PREDICTIONS_KEPT:
            raise StorageError("the disk is full")
        return append(record, act)

    monkeypatch.setattr(kit.audit, "append", broken)
    one_round(kit)
    assert not kept(kit)
    assert kit.book.by_run() == ()


def test_a_folder_that_is_gone_costs_the_predictions_alone(kit: StationKit) -> None:
    (kit.folder / "predictions").rmdir()
    _, replies = one_round(kit)
    assert replies[-1].status is Status.FINISHED
    (kit.folder / "predictions").mkdir()
    assert not kept(kit)
    (kit.folder / "predictions").rmdir()
    with pytest.raises(StorageError, match="no such folder"):
        keeper(kit).recover()


def _what_is_over_its_term_goes_and_its_row_stays(kit: StationKit) -> None:
    assert keeper(kit, keep_days=10).look() == 0
    kit.clock.forward(days=11)
    assert keeper(kit, keep_days=10).look() == len(case_rows(kit)) > 0
    assert not kept(kit)
    assert {(row.kept, row.size_bytes) for row in kit.book.by_run()} == {(0, 0)}
    assert keeper(kit, keep_days=10).look() == 0


def case_rows(kit: StationKit) -> list[int]:
    return [number for row in kit.book.by_run() for number in range(row.removed)]


def _a_row_never_changes_and_is_never_removed(kit: StationKit) -> None:
    for statement in (
        "DELETE FROM predictions",
        "UPDATE predictions SET patient = 'X'",
        "UPDATE predictions SET file = '../../etc/passwd'",
    ):
        with pytest.raises(IntegrityError), kit.database.write() as session:
            session.execute(text(statement))
