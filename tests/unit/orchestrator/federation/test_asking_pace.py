"""No one station sets the pace: not by its speed, not by a person who looks, and not while another's answer is judged."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from federation_samples import DIGEST, NAMES
from grid_simulator import Answer, GridSimulator

from orchestrator.federation.asking import Asking
from orchestrator.federation.exchange import Answered, Exchange, Missing, Outcome, Patience, StoppedError
from orchestrator.federation.orders import RunFolder
from orchestrator.federation.reviews import NoReviews, StageReviews
from orchestrator.federation.speeds import NoSpeeds
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
SLOW, *OTHERS = NAMES
QUESTION = Instruction(
    kind=Kind.TRAIN, order_digest=DIGEST, round=1, weights=Blob(digest=DIGEST, size=1), deadline_s=3600
)


class _Measured(NoSpeeds):
    """What stations had before, and what is told of them."""

    def __init__(self, allowed_s: float = 0.0) -> None:
        self.allowed, self.taken, self.had = allowed_s, dict[str, float](), dict[str, float]()

    def allowed_s(self, station: str) -> float:
        return self.allowed if station == SLOW else 0.0

    def answered(self, station: str, taken_s: float, *, held: bool) -> None:
        self.taken[station] = taken_s

    def given(self, station: str, given_s: float) -> None:
        self.had[station] = given_s


def _reply(
    instruction: Instruction, status: Status = Status.RELEASED, code: str | None = None
) -> StationReply:
    return StationReply(
        order_digest=DIGEST, kind=instruction.kind, round=instruction.round, status=status, code=code
    )


def _grid() -> GridSimulator:
    return GridSimulator({NODES[name]: _reply for name in NAMES}, online=set(NODES.values()))


def _as_given(_: str, answered: Answered) -> Outcome:
    return answered


def _waiting_for_the_slow_one(taken_s: float, allowed_s: float) -> Asking:
    """The others have answered, after so long."""
    patience = Patience(deadline_s=3600.0, enough=2, grace_s=120.0, speeds=_Measured(allowed_s))
    asking = Asking(_grid(), QUESTION, None, patience, _as_given, NoReviews(), started=0.0)
    asking.expect(NODES)
    for name, entry in asking.stations.items():
        entry.asked_at = 0.0
        if name != SLOW:
            entry.taken_s, entry.outcome = taken_s, Answered(_reply(QUESTION), None)
    assert not asking.is_over(taken_s)
    return asking


@pytest.mark.parametrize(
    ("taken_s", "allowed_s", "until"),
    [
        # However slow it was before: the order's time for stragglers after the others, or four of their medians.
        (30.0, 3600.0, 150.0),
        (500.0, 3600.0, 2000.0),
        # What an honest slow one needs is less than that, and it has it.
        (500.0, 1500.0, 1500.0),
    ],
)
def test_what_the_others_took_bounds_how_long_one_is_waited_for(
    taken_s: float, allowed_s: float, until: float
) -> None:
    asking = _waiting_for_the_slow_one(taken_s, allowed_s)
    assert not asking.is_over(until - 1.0)
    assert asking.is_over(until + 1.0)
    asking.close(until + 1.0)
    assert isinstance(asking.patience.speeds, _Measured)
    assert asking.patience.speeds.had[SLOW] == until


def test_a_person_whose_time_is_over_stops_no_stragglers_cut(tmp_path: Path) -> None:
    """The station says for ever that a person looks: the question's own deadline, far away, is not waited for."""

    def pending(instruction: Instruction) -> Answer:
        return _reply(instruction, Status.PENDING, "REVIEW_PENDING")

    grid = _grid()
    grid.stations[NODES[SLOW]] = pending
    patience = Patience(deadline_s=600.0, enough=2, grace_s=0.01, review_pace_s=0.01)
    reviews = StageReviews(RunFolder(tmp_path), (1, "train"), 0.5, lambda *_: None)
    begun = time.monotonic()
    found = Exchange(grid, NODES, threading.Event(), poll_s=0.002).ask(
        QUESTION, None, NAMES, patience, _as_given, reviews
    )
    assert time.monotonic() - begun < 300.0
    assert found[SLOW] == Missing("REVIEW_PENDING")
    assert all(isinstance(found[name], Answered) for name in OTHERS)


def test_something_else_in_between_begins_no_new_wait_for_a_person(tmp_path: Path) -> None:
    now, shown = 1000.0, list[list[str]]()

    def reviews() -> StageReviews:
        return StageReviews(
            RunFolder(tmp_path), (1, "train"), 5.0, lambda until, _: shown.append(list(until)), lambda: now
        )

    first = reviews()
    assert first.begin(SLOW) == 5.0
    now = 1003.0
    first.end(SLOW)
    assert (first.left_s(SLOW), shown[-1]) == (None, [])
    # Nor does a restart, which knows that nobody looks just now.
    for life in (first, reviews()):
        assert life.left_s(SLOW) is None
        assert life.begin(SLOW) == pytest.approx(2.0)
        assert shown[-1] == [SLOW]
        life.end(SLOW)
    now = 1009.0
    assert reviews().begin(SLOW) < 0.0


def test_a_stop_is_heard_between_two_judgements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.federation.asking._LOOK_S", 0.0)
    stop, judged = threading.Event(), list[str]()

    def judge(name: str, answered: Answered) -> Outcome:
        judged.append(name)
        stop.set()
        return answered

    patience = Patience(deadline_s=600.0, enough=3, grace_s=0.0)
    with pytest.raises(StoppedError):
        Exchange(_grid(), NODES, stop).ask(QUESTION, None, NAMES, patience, judge)
    assert len(judged) == 1


def test_what_is_in_hand_is_judged_while_the_super_link_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.federation.asking._LOOK_S", 0.0)
    grid = _grid()
    grid.stations[NODES[SLOW]] = lambda _: None
    judged: list[str] = []

    def judge(name: str, answered: Answered) -> Outcome:
        if not judged:
            grid.down_for = 20_000
        judged.append(name)
        return answered

    patience = Patience(deadline_s=600.0, enough=2, grace_s=0.0)
    found = Exchange(grid, NODES, threading.Event()).ask(QUESTION, None, NAMES, patience, judge)
    assert all(isinstance(found[name], Answered) for name in OTHERS)
    # Nor is a SuperLink that is down asked without a pause.
    assert grid.down_for > 19_000


def test_whose_answer_is_in_hand_is_neither_asked_again_nor_late_nor_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each judgement takes longer than the silence after which a station is asked again, and than the deadline."""
    clock = 0.0
    monkeypatch.setattr("orchestrator.federation.asking.time", SimpleNamespace(monotonic=lambda: clock))

    def judge(_: str, answered: Answered) -> Outcome:
        nonlocal clock
        clock += 1000.0
        return answered

    grid, speeds = _grid(), _Measured()
    patience = Patience(deadline_s=900.0, enough=3, grace_s=0.0, silence_s=30.0, speeds=speeds)
    asking = Asking(grid, QUESTION, None, patience, judge, NoReviews(), started=0.0)
    asking.expect(NODES)
    asking.send_due(clock)
    for _ in NAMES[1:]:
        asking.pull()
        assert asking.look()
        asking.send_due(500.0)
        assert not asking.is_over(clock)
    assert asking.look()
    assert asking.is_over(clock)
    assert len(grid.asked) == len(NAMES)
    assert all(isinstance(entry.outcome, Answered) for entry in asking.stations.values())
    assert speeds.taken == dict.fromkeys(NAMES, 0.0)
