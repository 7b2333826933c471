"""A map order from preparation to release, with a Python function where each patient's container would be."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from catalogue_log import patient
from map_documents import row
from map_runs import ORDER, analyse, map_kit
from sqlalchemy import delete
from station_kit import StationKit, instruction, order_digest
from station_simulators import SessionSimulator
from test_runs_consent_policy import look

from policies.errors import RefusedError, UnavailableError
from policies.manifest import Resources
from policies.policy import ResourceGrant
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind, Status
from station.cohorts import load
from station.egress.differencing.tables import DifferenceRow
from station.runs.mapping import MOST_AT_ONCE, at_once
from station.sandbox.spec import ContainerSpec, ExitClass, TrainFailure
from station.settings import CeilingSettings, HospitalSettings

Say = Callable[[Path], Any]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = map_kit(tmp_path, monkeypatch)
    yield made
    made.close()


def says(kit: StationKit, say: Say) -> list[str]:
    """Let every container answer what `say` makes of its cohort; returns the patients that were seen, as they come."""
    seen: list[str] = []

    def train(_: object, cohort: Path) -> Any:
        datalist = json.loads((cohort / "datalist.json").read_bytes())
        (entry,) = [*datalist["training"], *datalist["validation"]]
        seen.append(entry["patient"])
        said = say(cohort)
        if isinstance(said, TrainFailure):
            return said
        return said, {}, None

    kit.sandbox.train = train  # type: ignore[assignment]
    return seen


def left(kit: StationKit) -> list[Path]:
    return [path for cohort in kit.paths.cohorts.iterdir() for path in (cohort / "patients").glob("*")]


def test_every_patient_is_seen_once_each_alone_in_a_container_of_their_own(kit: StationKit) -> None:
    tables: list[str] = []

    def say(cohort: Path) -> Any:
        tables.append((cohort / "clinical.csv").read_text())
        assert len(list((cohort / "images").iterdir())) == 1
        described = json.loads((cohort / "cohort.json").read_bytes())
        assert [each["patients"] for each in described["counts_rounded"].values()] == [1]
        return row(0.3)

    seen = says(kit, say)
    envelope = kit.ready(**ORDER)
    assert not kit.sandbox.started
    reply = analyse(kit, envelope)
    assert reply.status is Status.RELEASED
    told = sum(line[0] for line in reply.tables["ends"])
    assert 3 <= told < len(seen) == len(set(seen)) == len(kit.sandbox.started)
    assert reply.tables["lung_shares"] == [[0], [told], [0], [0]]
    assert len({session.run_id for session in kit.sandbox.started}) == len(seen)
    assert len({session.spec.series for session in kit.sandbox.started}) == 1
    assert all(len(session.asked) == 1 for session in kit.sandbox.started)
    assert all(len(table.splitlines()) == 2 for table in tables)
    assert len({table.splitlines()[1].split(",")[1] for table in tables}) == len(tables)
    assert not kit.sandbox.running
    assert left(kit) == []

    # Asked again, it is the same answer, and no container.
    assert analyse(kit, envelope, attempt=2) == reply
    assert len(kit.sandbox.started) == len(seen)


def test_a_map_order_of_more_rounds_is_refused(kit: StationKit) -> None:
    # Counts of two rounds, with a withdrawal in between, would differ by one patient's row.
    reply = kit.prepare(kit.order(**{**ORDER, "rounds": 2}))
    assert (reply.status, reply.code) == (Status.REFUSED, RefusalCode.ORDER_BEYOND_POLICY)
    assert not kit.sandbox.started


def first_fails(how: Any, times: int = 1) -> Say:
    counted = iter(range(times))
    return lambda _: row(0.3) if next(counted, None) is None else how


def test_one_patient_whose_container_fails_is_counted_and_not_told(kit: StationKit) -> None:
    fails: list[Any] = [
        TrainFailure(ExitClass.CRASH),
        TrainFailure(ExitClass.TIMEOUT),
        TrainFailure(ExitClass.OUT_OF_MEMORY),
        TrainFailure(ExitClass.PROTOCOL),
        TrainFailure(ExitClass.DECLARED_ERROR, "NO_LUNG", session_ended=False),
        row(2.0),
        {**row(), "patient": "P123"},
    ]
    for how in fails:
        seen = says(kit, first_fails(how))
        envelope = kit.ready(**ORDER)
        reply = analyse(kit, envelope)
        assert reply.status is Status.RELEASED
        with kit.database.write() as session:
            # Each as if it were the first: the next differs from it by one patient, and would be refused for that.
            session.execute(delete(DifferenceRow))
        # One failure is less than the smallest cell: the table would tell it. It may lie in the split that is not counted.
        assert "ends" not in reply.tables or sum(line[0] for line in reply.tables["ends"][1:]) == 0
        assert "P123" not in reply.model_dump_json()
        assert len(seen) == len(set(seen))
        assert kit.state(envelope) == "ready"
        kit.service.handle(instruction(envelope, Kind.FINISH), None)


@pytest.mark.parametrize(("board", "hospital"), [(0.1, 1.0), (1.0, 0.1)])
def test_a_train_that_fails_for_too_many_releases_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: float, hospital: float
) -> None:
    kit = map_kit(
        tmp_path, monkeypatch, {"runs.failed_patients_share": board},
        hospital=HospitalSettings(
            operator_approval="never", consent_max_age_days=30, failed_patients_share=hospital
        ),
    )  # fmt: skip
    seen = says(kit, lambda _: TrainFailure(ExitClass.CRASH))
    envelope = kit.ready(**ORDER)
    reply = analyse(kit, envelope)
    assert (reply.status, reply.code, reply.tables) == (Status.FAILED, RefusalCode.TRAIN_PATIENTS_FAILED, {})
    # It ended as soon as it was too many, not after all of them; others were under way.
    assert len(seen) <= 0.1 * 40 + 3
    assert left(kit) == []
    kit.close()


def test_a_message_has_one_deadline_for_all_patients(kit: StationKit) -> None:
    hold = threading.Event()
    says(kit, lambda _: (hold.wait(60), row(0.3))[1])
    envelope = kit.ready(**ORDER)
    reply = analyse(kit, envelope, deadline_s=1)
    hold.set()
    assert (reply.status, reply.code) == (Status.FAILED, RefusalCode.TRAIN_TIMEOUT)
    assert not kit.sandbox.running
    assert left(kit) == []
    assert kit.releases.list() == []


def test_a_withdrawal_in_the_middle_kills_every_container_and_drops_what_was_counted(kit: StationKit) -> None:
    entered, go_on, counted = threading.Event(), threading.Event(), iter(range(5))

    def say(_: Path) -> Any:
        if next(counted, None) is None:
            entered.set()
            go_on.wait(60)
        return row(0.3)

    seen = says(kit, say)
    envelope = kit.ready(**ORDER)
    replies: list[Any] = []
    thread = threading.Thread(target=lambda: replies.append(analyse(kit, envelope)), daemon=True)
    thread.start()
    assert entered.wait(60)
    kit.intake.consent(**{f"p{number}": "objection" for number in range(4)})
    look(kit)
    thread.join(60)
    go_on.set()
    assert (replies[0].status, replies[0].code) == (Status.FAILED, RefusalCode.CONSENT_WITHDRAWN)
    assert not kit.sandbox.running
    assert kit.releases.list() == []
    # The message is done again, without them.
    seen.clear()
    assert analyse(kit, envelope, attempt=2).status is Status.RELEASED
    assert kit.events().count("cohort-frozen") == 2
    (cohort,) = kit.warm.cohorts()
    frozen = load(cohort)
    assert not {patient(number) for number in range(4)} & frozen.patients
    assert len(set(seen)) == len(frozen.patients)


def test_a_withdrawal_after_the_last_row_releases_nothing_of_it(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(kit, lambda _: row(0.3))
    envelope = kit.ready(**ORDER)
    (cohort,) = kit.warm.cohorts()
    record = kit.releases.record

    def withdrawn_first(*arguments: Any) -> Any:
        kit.intake.consent(**{f"p{number}": "objection" for number in range(40)})
        kit.catalogue.sync()
        return record(*arguments)

    monkeypatch.setattr(kit.releases, "record", withdrawn_first)
    reply = analyse(kit, envelope)
    assert reply.status is Status.WITHHELD
    assert reply.tables == {}
    assert kit.releases.list() == []
    assert cohort


def test_a_station_that_is_killed_in_the_middle_has_released_nothing_and_does_it_again(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on, killed = threading.Event(), threading.Event(), threading.Event()
    start = kit.sandbox.start

    def start_alive(spec: ContainerSpec) -> SessionSimulator:
        # A process that was killed starts nothing more; its threads live on here.
        if killed.is_set():
            raise UnavailableError("this life is over")
        return start(spec)

    def say(_: Path) -> Any:
        entered.set()
        go_on.wait(60)
        return row(0.3)

    says(kit, say)
    monkeypatch.setattr(kit.sandbox, "start", start_alive)
    envelope = kit.ready(**ORDER)
    first_life = kit.service
    thread = threading.Thread(target=lambda: _quietly(kit, first_life, envelope), daemon=True)
    thread.start()
    assert entered.wait(60)
    killed.set()
    kit.again()
    go_on.set()
    thread.join(60)
    assert not thread.is_alive()
    assert kit.releases.list() == []
    assert [each for each in kit.paths.cohorts.rglob("*") if each.is_file()] == []
    killed.clear()
    says(kit, lambda _: row(0.3))
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert analyse(kit, envelope, attempt=2).status is Status.RELEASED


def _quietly(kit: StationKit, service: Any, envelope: bytes) -> None:
    try:
        service.handle(instruction(envelope, Kind.ANALYSE, 1, weights=None, config={}), None)
    except Exception:  # noqa: BLE001 - its database was taken away, as a kill does
        return


def test_a_station_that_cannot_start_containers_says_so_and_blames_no_train(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(kit, lambda _: row(0.3))
    envelope = kit.ready(**ORDER)
    for fault in (
        UnavailableError("the engine does not answer"),
        RefusedError(RefusalCode.RESOURCES_BUSY, "no room"),
    ):

        def refuse(_: object, fault: Exception = fault) -> Any:
            raise fault

        with monkeypatch.context() as patched:
            patched.setattr(kit.sandbox, "start", refuse)
            reply = analyse(kit, envelope)
        assert reply.status is not Status.RELEASED
        assert reply.code not in {RefusalCode.TRAIN_CRASHED, RefusalCode.TRAIN_PATIENTS_FAILED}
        assert left(kit) == []
    assert analyse(kit, envelope).status is Status.RELEASED
    assert kit.warm.has(order_digest(envelope))


GRANT = ResourceGrant(memory_mib=1024, cpus=4.0, run_hours=1.0)
CEILINGS = CeilingSettings(memory_mib=4096, cpus=2.0, pids=512, scratch_mib=1024)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"memory_mib": 256, "cpus": 0.1, "pids": 8}, 4),  # the policy's memory
        ({"memory_mib": 64, "cpus": 0.5, "pids": 8}, 4),  # the hospital's processors
        ({"memory_mib": 64, "cpus": 0.1, "pids": 256}, 2),  # the hospital's processes
        ({"memory_mib": 64, "cpus": 0.1, "pids": 8, "scratch_mib": 512}, 2),  # and its scratch
        ({"memory_mib": 64, "cpus": 0.1, "pids": 8, "scratch_mib": 1}, MOST_AT_ONCE),
        ({"memory_mib": 1024, "cpus": 2.0, "pids": 4096}, 1),
    ],
)
def test_all_containers_together_stay_within_what_one_train_may_use(
    asked: dict[str, Any], expected: int
) -> None:
    assert at_once(Resources(**asked), GRANT, CEILINGS) == expected
