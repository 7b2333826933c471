"""A map train's message counts every patient or nobody, whatever goes wrong in the station itself."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from map_documents import map_manifest, row
from map_kit import PATIENTS, frozen

from policies.errors import PhtError, StateError
from policies.splits import Split
from station.cohorts import PatientFolders
from station.cohorts.roster import Roster
from station.sandbox import mapping
from station.sandbox.mapping import MapReply, MapSession, MapTerms
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
)

ASK = TrainRequest("analyse", 1, {})


class Answering:
    """Where a container would be: answers one row, or fails as it is told to, from the first on."""

    def __init__(self, fails: int = 0) -> None:
        self.fails, self.asked = fails, 0

    def start(self, _: ContainerSpec) -> Any:
        return self

    def exchange(self, *_: object) -> TrainReply | TrainFailure:
        self.asked += 1
        if self.asked <= self.fails:
            return TrainFailure(ExitClass.CRASH)
        return TrainReply(row(), {}, None, 0, 0.0)

    def logs(self, _: int) -> str:
        return ""

    def stop(self, _: str = "") -> None:
        return None


class Faulty(PatientFolders):
    """Folders of which one does what no code of the station expects."""

    def lay(self, one: Any) -> Path:
        if one.patient == PATIENTS[3]:
            raise ValueError("J. Jansen")
        return super().lay(one)


class Short(PatientFolders):
    """Folders that lose one on the way."""

    def shuffled(self) -> Any:
        return (one for one in super().shuffled() if one.patient != PATIENTS[3])


class Cut(Answering):
    """The last container takes until the launcher ends it, at the end of its wall clock, or some seconds less."""

    def __init__(self, earlier_s: float) -> None:
        super().__init__()
        self.now, self.wall_clock_s, self.earlier_s = 1000.0, 0.0, earlier_s

    def start(self, spec: ContainerSpec) -> Any:
        self.wall_clock_s = spec.wall_clock_s
        return self

    def exchange(self, *_: object) -> TrainReply | TrainFailure:
        self.asked += 1
        if self.asked < len(PATIENTS):
            self.now += 0.3
            return TrainReply(row(), {}, None, 0, 0.3)
        self.now += self.wall_clock_s - self.earlier_s
        return TrainFailure(ExitClass.CRASH, detail="it ended with exit code 137")


def session(folders: PatientFolders, home: Path, containers: Any, **terms: Any) -> MapSession:
    spec = ContainerSpec(
        run_id="run-map", image_config_digest="sha256:" + "1" * 64, cohort_dir=str(home), control_dir=str(home / "run-map"),
        interface="map", memory_bytes=64 * MIB, cpus=1.0, pids=32, scratch_bytes=MIB, wall_clock_s=600,
    )  # fmt: skip
    chosen = {"at_once": 2, "failed_share": 1.0, **terms}
    listed = Roster({Split.TRAINING: PATIENTS}, dict(zip(PATIENTS, PATIENTS, strict=True)), {})
    return MapSession(containers, folders, MapTerms(spec, map_manifest(), listed, **chosen))


def asked(prepared: MapSession, home: Path) -> MapReply | TrainFailure:
    return prepared.exchange(ASK, ReplyLimits(home / "reply", 0), 60)


@pytest.mark.parametrize("broken", [Faulty, Short])
def test_counts_of_some_patients_are_no_answer(tmp_path: Path, broken: type[PatientFolders]) -> None:
    cohort = frozen(tmp_path)
    with pytest.raises(StateError) as told:
        asked(session(broken(cohort), tmp_path, Answering()), tmp_path)
    assert "Jansen" not in told.value.message
    whole = asked(session(PatientFolders(cohort), tmp_path, Answering()), tmp_path)
    assert isinstance(whole, MapReply)
    assert sum(whole.tally.ends.values()) == len(PATIENTS)


def test_where_a_thread_cannot_be_started_none_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def once(thread: threading.Thread) -> None:
        if thread.name == "map" and started:
            raise RuntimeError("can't start new thread")
        if thread.name == "map":
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    with pytest.raises(PhtError):
        asked(session(PatientFolders(frozen(tmp_path)), tmp_path, Answering()), tmp_path)
    assert [thread.is_alive() for thread in started] == [False]


@pytest.mark.parametrize(("fails", "ended"), [(2, False), (3, True)])
def test_that_too_many_failed_tells_no_small_number(tmp_path: Path, fails: int, ended: bool) -> None:
    prepared = session(
        PatientFolders(frozen(tmp_path)), tmp_path, Answering(fails), at_once=1,
        failed_share=0.0, fewest_failures=3,
    )  # fmt: skip
    answer = asked(prepared, tmp_path)
    assert isinstance(answer, TrainFailure) is ended


@pytest.mark.parametrize("terms", [{}, {"failed_share": 0.0}])
def test_a_container_that_the_message_s_end_cut_short_is_no_failure_of_its_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any]
) -> None:
    cut = Cut(earlier_s=0.0)
    monkeypatch.setattr(mapping, "time", SimpleNamespace(monotonic=lambda: cut.now))
    answer = asked(session(PatientFolders(frozen(tmp_path)), tmp_path, cut, at_once=1, **terms), tmp_path)
    assert cut.asked == len(PATIENTS)
    assert cut.now < 1060, "it ended before the message's own time"
    assert isinstance(answer, TrainFailure)
    assert answer.exit_class is ExitClass.TIMEOUT


def test_one_that_fails_in_time_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Cut(earlier_s=2.0)
    monkeypatch.setattr(mapping, "time", SimpleNamespace(monotonic=lambda: cut.now))
    answer = asked(session(PatientFolders(frozen(tmp_path)), tmp_path, cut, at_once=1), tmp_path)
    assert isinstance(answer, MapReply)
    assert answer.tally.failures == 1


def test_patients_come_in_an_order_drawn_anew(tmp_path: Path) -> None:
    # Twenty orders of eight that are all alike happen once in more than 10^80 times.
    folders = PatientFolders(frozen(tmp_path))
    orders = [tuple(one.patient for one in folders.shuffled()) for _ in range(20)]
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(PATIENTS))}
    assert len(set(orders)) > 1
