"""A station where a person looks at what is to leave: waited for as long as the policy says, and no longer."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from federation_samples import DIGEST, NAMES
from federation_world import World
from flwr.app import Error, Message
from grid_simulator import Answer, GridSimulator

from orchestrator.federation.exchange import (
    Answered,
    Exchange,
    Missing,
    Outcome,
    Patience,
    Reviews,
    StoppedError,
)
from orchestrator.federation.orders import RunFolder, RunProgress, RunState
from orchestrator.federation.reviews import StageReviews
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from policies.wire.registry_answers import Progress
from train_images.tool.watching import taking_part

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
REVIEWER, *OTHERS = NAMES
PATIENCE = Patience(
    deadline_s=1.0, enough=2, grace_s=0.01, pending_s=0.01, silence_s=30.0, review_pace_s=0.01
)
LONG_S = 60.0


class Asked:
    """A question to three stations, one of which is under review."""

    def __init__(self, folder: Path, review_s: float = LONG_S, patience: Patience = PATIENCE) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.patience, self.review_s = RunFolder(folder), patience, review_s
        self.shown: list[dict[str, datetime]] = []
        self.stop = threading.Event()
        self.wall = time.time
        self.grid = GridSimulator({NODES[name]: self.good for name in NAMES}, online=set(NODES.values()))

    def put(self, name: str, behaviour: Callable[[Instruction], Answer]) -> None:
        self.grid.stations[NODES[name]] = behaviour

    def show(self, until: dict[str, datetime], looked_at: datetime | None) -> None:
        assert (looked_at is None) == (not until)
        self.shown.append(until)

    def reviews(self) -> Reviews:
        return StageReviews(self.folder, (1, "train"), self.review_s, self.show, self.wall)

    def ask(self) -> dict[str, Outcome]:
        question = Instruction(
            kind=Kind.TRAIN, order_digest=DIGEST, round=1, weights=Blob(digest=DIGEST, size=1), deadline_s=60
        )
        exchange = Exchange(self.grid, NODES, self.stop, poll_s=0.002)
        return exchange.ask(
            question, None, NAMES, self.patience, lambda _, answered: answered, self.reviews()
        )

    def attempts(self, name: str) -> int:
        return sum(node == NODES[name] for node, _ in self.grid.asked)

    def good(self, instruction: Instruction) -> Answer:
        return reply(instruction)


def reply(
    instruction: Instruction, status: Status = Status.RELEASED, code: str | None = None
) -> StationReply:
    return StationReply(
        order_digest=DIGEST, kind=instruction.kind, round=instruction.round, status=status, code=code
    )


def pending(instruction: Instruction) -> Answer:
    return reply(instruction, Status.PENDING, "REVIEW_PENDING")


class Person:
    """Says nothing for so many questions, then something."""

    def __init__(self, questions: int, then: Callable[[Instruction], Answer]) -> None:
        self.left, self.then = questions, then

    def __call__(self, instruction: Instruction) -> Answer:
        self.left -= 1
        return pending(instruction) if self.left >= 0 else self.then(instruction)


def in_turn(answers: list[Callable[[Instruction], Answer]]) -> Callable[[Instruction], Answer]:
    def answer(instruction: Instruction) -> Answer:
        now = answers.pop(0)
        return now(instruction)

    return answer


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path / "order")


def test_a_person_is_no_straggler(asked: Asked) -> None:
    """Two answers are enough and the rest of the round has ended, and its deadline too: the third is used all the same."""
    begun = time.monotonic()

    def released(instruction: Instruction) -> Answer:
        return reply(instruction) if time.monotonic() - begun > 1.3 else pending(instruction)

    asked.put(REVIEWER, released)
    found = asked.ask()
    assert time.monotonic() - begun > PATIENCE.deadline_s
    assert all(isinstance(outcome, Answered) for outcome in found.values())


def test_others_that_stay_silent_are_not_waited_for_longer(asked: Asked) -> None:
    asked.put(REVIEWER, Person(5, asked.good))
    asked.put(OTHERS[0], lambda _: None)
    found = asked.ask()
    assert found[OTHERS[0]] == Missing("LATE")
    assert isinstance(found[REVIEWER], Answered)


def test_what_a_person_withholds_is_an_answer(asked: Asked) -> None:
    asked.put(
        REVIEWER,
        Person(3, lambda instruction: reply(instruction, Status.WITHHELD, "REVIEW_WITHHELD")),
    )
    assert asked.ask()[REVIEWER] == Missing("REVIEW_WITHHELD")
    assert asked.attempts(REVIEWER) == 4


def test_it_waits_no_longer_than_the_policy_says(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "order", review_s=0.5)
    asked.put(REVIEWER, pending)
    found = asked.ask()
    assert found[REVIEWER] == Missing("REVIEW_PENDING")
    assert all(isinstance(found[name], Answered) for name in OTHERS)


def test_who_says_pending_again_and_again_gets_no_more_time(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "order", review_s=5.0)
    asked.wall = lambda: 1000.0
    reviews = asked.reviews()
    assert reviews.begin(REVIEWER) == 5.0
    asked.wall = lambda: 1004.0
    again = asked.reviews()
    assert again.left_s(REVIEWER) == pytest.approx(1.0)
    assert again.begin(REVIEWER) == pytest.approx(1.0)
    # A clock that is set back gives nobody more than there was.
    asked.wall = lambda: 10.0
    assert asked.reviews().left_s(REVIEWER) == 5.0
    # Another stage begins anew.
    other = StageReviews(asked.folder, (1, "evaluate"), 5.0, asked.show, asked.wall)
    assert other.left_s(REVIEWER) is None


def test_what_only_a_hospital_asks_for_is_waited_for_once_in_a_run(tmp_path: Path) -> None:
    """Three stages of 60 s each at most: without the bound they would be 180."""
    now = [1000.0]

    def stage(number: int, kind: str, *, once: bool = True) -> StageReviews:
        return StageReviews(
            RunFolder(tmp_path), (number, kind), 60.0, lambda *_: None, lambda: now[0], once=once
        )

    first = stage(1, "train")
    assert first.begin(REVIEWER) == 60.0
    now[0] += 25.0
    first.end(REVIEWER)
    # Computing and other stages are no waiting for a person.
    now[0] += 500.0
    second = stage(1, "evaluate")
    assert second.begin(REVIEWER) == pytest.approx(35.0)
    assert second.begin(OTHERS[0]) == 60.0, "another hospital's people have not looked yet"
    now[0] += 20.0
    # The process dies: the next life goes on in the same wait.
    second = stage(1, "evaluate")
    assert second.left_s(REVIEWER) == pytest.approx(15.0)
    now[0] += 40.0
    assert second.begin(REVIEWER) == pytest.approx(-25.0)
    second.close()
    now[0] += 500.0
    third = stage(2, "train")
    assert third.begin(REVIEWER) < 0.0
    # A policy that asks for the look means each of them.
    assert stage(2, "evaluate", once=False).begin(REVIEWER) == 60.0


@pytest.mark.parametrize("human_review", [False, True])
def test_a_stage_waits_for_what_the_policy_asks_for_and_once_for_what_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, human_review: bool
) -> None:
    made: list[bool] = []
    original = StageReviews.__post_init__

    def noted(self: StageReviews) -> None:
        made.append(self.once)
        original(self)

    monkeypatch.setattr(StageReviews, "__post_init__", noted)
    world = World(tmp_path)
    folder = world.accept()
    accepted = folder.read_order()
    release = accepted.release.model_copy(update={"human_review": human_review})
    folder.write_json(
        "order.json", accepted.model_copy(update={"release": release}).model_dump(mode="json", by_alias=True)
    )
    world.rounds(folder).run()
    assert folder.read_progress().state is RunState.FINISHED
    assert set(made) == {not human_review}


def test_a_quorum_that_cannot_be_reached_ends_it(tmp_path: Path) -> None:
    patience = Patience(deadline_s=LONG_S, enough=3, grace_s=0.0, pending_s=0.01, review_pace_s=0.01)
    asked = Asked(tmp_path / "order", patience=patience)
    asked.put(REVIEWER, pending)
    asked.put(OTHERS[0], lambda instruction: reply(instruction, Status.REFUSED, "POLICY_REVOKED"))
    assert asked.ask()[REVIEWER] == Missing("REVIEW_PENDING")


def test_a_stop_ends_it(asked: Asked) -> None:
    def stops(instruction: Instruction) -> Answer:
        if asked.attempts(REVIEWER) > 3:
            asked.stop.set()
        return pending(instruction)

    asked.put(REVIEWER, stops)
    with pytest.raises(StoppedError):
        asked.ask()


def test_a_new_life_goes_on_waiting_where_the_first_one_was(asked: Asked) -> None:
    """Before the station says anything: the others are there, and it is the one that a person looks at."""

    def restarts(instruction: Instruction) -> Answer:
        if asked.attempts(REVIEWER) > 3:
            asked.stop.set()
        return pending(instruction)

    asked.put(REVIEWER, restarts)
    with pytest.raises(StoppedError):
        asked.ask()
    asked.stop.clear()
    begun = time.monotonic()

    def comes_back(instruction: Instruction) -> Answer:
        # Not a word for longer than the round's deadline; it was asleep when it was asked.
        return reply(instruction) if time.monotonic() - begun > 1.3 else None

    asked.patience = Patience(deadline_s=1.0, enough=2, grace_s=0.01, silence_s=0.05, review_pace_s=0.01)
    asked.put(REVIEWER, comes_back)
    assert isinstance(asked.ask()[REVIEWER], Answered)


def test_a_station_that_is_away_meanwhile_is_waited_for(asked: Asked) -> None:
    left = [pending, lambda _: Error(code=3, reason="node unavailable"), pending, asked.good]
    asked.put(REVIEWER, in_turn(left))
    assert isinstance(asked.ask()[REVIEWER], Answered)


def test_what_is_computed_anew_without_a_patient_is_used(tmp_path: Path) -> None:
    # It has a straggler's time from there: at least as long as it took until then, and what the order says.
    patience = Patience(deadline_s=1.0, enough=2, grace_s=LONG_S, review_pace_s=0.01)
    asked = Asked(tmp_path / "order", patience=patience)
    left = [
        pending,
        lambda instruction: reply(instruction, Status.FAILED, "CONSENT_WITHDRAWN"),
        pending,
        asked.good,
    ]
    asked.put(REVIEWER, in_turn(left))
    assert isinstance(asked.ask()[REVIEWER], Answered)


def test_it_is_asked_at_a_slow_pace_by_short_lived_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(tmp_path / "order", review_s=72 * 3600.0)
    sent: list[Message] = []
    push = asked.grid._push

    def noted(message: Message) -> str:
        sent.append(message)
        return push(message)

    monkeypatch.setattr(asked.grid, "_push", noted)
    asked.patience = Patience(deadline_s=1.0, enough=2, grace_s=0.01, review_pace_s=0.05)
    asked.put(REVIEWER, Person(4, asked.good))
    begun = time.monotonic()
    asked.ask()
    assert asked.attempts(REVIEWER) == 5
    # Four waits of at least the pace.
    assert time.monotonic() - begun >= 4 * 0.05
    to_the_reviewer = [
        message.metadata.ttl for message in sent if message.metadata.dst_node_id == NODES[REVIEWER]
    ]
    # Days of waiting are many questions, not one that lives for days.
    assert max(to_the_reviewer) <= 3600.0 + 60.0


def test_watch_says_at_which_station_a_person_looks(asked: Asked) -> None:
    asked.put(REVIEWER, Person(2, asked.good))
    asked.ask()
    until = next(shown for shown in asked.shown if shown)
    assert list(until) == [REVIEWER]
    assert until[REVIEWER] > datetime.now(UTC)
    assert asked.shown[-1] == {}
    progress = RunProgress(state=RunState.RUNNING, round=1, rounds=2, stage="train", reviewing=until)
    asked.folder.write_progress(progress)
    assert asked.folder.read_progress().reviewing == progress.reviewing
    heard = Progress.model_validate_json(progress.model_dump_json())
    assert f"waits for a person at {REVIEWER} (until 20" in taking_part(heard)


def test_an_order_whose_server_app_dies_while_a_person_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next life shows it, waits for it, and averages what was released in the meantime; nothing is asked twice of others."""
    monkeypatch.setattr("orchestrator.federation.stages.Patience", partial(Patience, review_pace_s=0.01))
    world = World(tmp_path)
    folder = world.accept()
    honest = world.answer(REVIEWER)
    questions = 0

    def looks(instruction: Instruction) -> Answer:
        nonlocal questions
        if instruction.kind is not Kind.TRAIN or instruction.round > 1:
            return honest(instruction)
        questions += 1
        if questions == 4:
            raise KeyboardInterrupt
        if questions < 8:
            return StationReply(
                order_digest=instruction.order_digest,
                kind=instruction.kind,
                round=instruction.round,
                status=Status.PENDING,
                code="REVIEW_PENDING",
            )
        return honest(instruction)

    world.behaviour[REVIEWER] = looks
    with suppress(KeyboardInterrupt):
        world.rounds(folder).run()
    assert list(folder.read_progress().reviewing) == [REVIEWER]
    since = folder.read_json("reviews.json")
    assert since is not None
    assert (since["round"], since["stage"], list(since["since"])) == (1, "train", [REVIEWER])
    world.rounds(folder).run()
    progress = folder.read_progress()
    assert (progress.state, progress.reviewing) == (RunState.FINISHED, {})
    assert [entry["took_part"] for entry in folder.read_rounds()] == [list(NAMES)] * 2
    assert folder.read_rounds()[0]["missing"] == {}
