"""Judging updates beside asking: several at once, each as soon as it is here, and nothing waits for it that needs not."""

import threading
from collections.abc import Callable, Mapping

import pytest
from federation_samples import DIGEST, NAMES
from grid_simulator import Answer, GridSimulator

from orchestrator.federation.answers import Judge, Looking
from orchestrator.federation.asking import Asking
from orchestrator.federation.exchange import Answered, Exchange, Missing, Outcome, Patience, StoppedError
from orchestrator.federation.looks import LOOKS_AT_ONCE, Looks
from orchestrator.federation.reviews import NoReviews
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
PATIENCE = Patience(deadline_s=120.0, enough=3, grace_s=60.0, pending_s=0.01, silence_s=60.0)
LONG_S = 60.0


def reply(
    instruction: Instruction, status: Status = Status.RELEASED, code: str | None = None
) -> StationReply:
    return StationReply(
        order_digest=DIGEST, kind=instruction.kind, round=instruction.round, status=status, code=code
    )


def ask(
    judge: Judge,
    patience: Patience = PATIENCE,
    stop: threading.Event | None = None,
    stations: Mapping[str, Callable[[Instruction], Answer]] | None = None,
) -> tuple[dict[str, Outcome], GridSimulator]:
    grid = GridSimulator(
        {NODES[name]: (stations or {}).get(name, reply) for name in NAMES}, online=set(NODES.values())
    )
    question = Instruction(
        kind=Kind.TRAIN, order_digest=DIGEST, round=1, weights=Blob(digest=DIGEST, size=1), deadline_s=60
    )
    exchange = Exchange(grid, NODES, stop or threading.Event(), poll_s=0.002)
    return exchange.ask(question, None, NAMES, patience, judge), grid


def test_several_updates_are_judged_at_once() -> None:
    together = threading.Barrier(2)

    def judge(name: str, answered: Answered) -> Outcome | Looking:
        # One after the other they would wait for each other in vain.
        work = (lambda: together.wait(LONG_S)) if name in NAMES[:2] else (lambda: 0)
        return Looking(work, lambda _: answered)

    found, _ = ask(judge)
    assert all(isinstance(outcome, Answered) for outcome in found.values())


def test_while_an_update_is_judged_others_are_asked_and_their_answers_taken() -> None:
    first, second, _ = NAMES
    answered_later = threading.Event()
    said: list[int] = []

    def busy(instruction: Instruction) -> Answer:
        said.append(instruction.attempt)
        if len(said) < 3:
            return reply(instruction, Status.REFUSED, "RESOURCES_BUSY")
        answered_later.set()
        return reply(instruction)

    def judge(name: str, answered: Answered) -> Outcome | Looking:
        if name != first:
            return answered
        return Looking(lambda: answered_later.wait(LONG_S), lambda ok: answered if ok else Missing("WAITED"))

    found, grid = ask(judge, stations={second: busy})
    assert all(isinstance(outcome, Answered) for outcome in found.values())
    asked_first = [each for node, each in grid.asked if node == NODES[first]]
    assert len(asked_first) == 1, "who is judged is not asked again"


def test_an_answer_in_time_is_not_late_for_its_judgement() -> None:
    """Deadline and the others' rest are over long before the judgement is: the question waits for what is here."""
    go_on = threading.Event()

    def judge(_: str, answered: Answered) -> Outcome | Looking:
        return Looking(lambda: go_on.wait(LONG_S), lambda _: answered)

    grid = GridSimulator(dict.fromkeys(NODES.values(), reply), online=set(NODES.values()))
    question = Instruction(kind=Kind.TRAIN, order_digest=DIGEST, round=1, deadline_s=60)
    with Looks() as looks:
        asking = Asking(grid, question, None, PATIENCE, judge, NoReviews(), looks)
        asking.expect(NODES)
        asking.send_due(asking.started)
        asking.pull()
        while asking.in_hand:
            asking.look()
        assert asking.judging.keys() == set(NAMES)
        assert not asking.is_over(asking.started + 1e6)
        asking.send_due(asking.started + PATIENCE.silence_s + 1)
        assert len(grid.asked) == len(NAMES), "who is judged is not asked again"
        go_on.set()
        while asking.judging:
            looks.wait(LONG_S)
            asking.look()
        assert asking.is_over(asking.started + 1e6)
    for entry in asking.stations.values():
        assert isinstance(entry.outcome, Answered)
        assert entry.taken_s is not None


def test_bytes_that_are_damaged_here_are_asked_for_again_after_their_look() -> None:
    first = NAMES[0]
    looks: list[str] = []

    def judge(name: str, answered: Answered) -> Outcome | Looking:
        if name != first:
            return answered
        looks.append(name)
        good = len(looks) > 1
        return Looking(lambda: good, lambda ok: answered if ok else Missing("RELEASE_DIGEST", again=True))

    found, grid = ask(judge)
    assert isinstance(found[first], Answered)
    assert len([each for node, each in grid.asked if node == NODES[first]]) == 2


def test_what_a_look_raises_is_raised_by_the_question() -> None:
    class BrokenError(Exception):
        pass

    def broken() -> None:
        raise BrokenError

    with pytest.raises(BrokenError):
        ask(lambda _, answered: Looking(broken, lambda _: answered))


def test_a_stop_waits_for_no_look_that_has_not_begun() -> None:
    begun, dropped, go_on = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def work() -> None:
        begun.release()
        go_on.wait(LONG_S)
        done.append(1)

    looks = Looks()
    for number in range(3 * LOOKS_AT_ONCE):
        looks.begin(str(number), work)
    for _ in range(LOOKS_AT_ONCE):
        assert begun.acquire(timeout=LONG_S)
    for future in list(looks._under_way.values())[LOOKS_AT_ONCE:]:
        future.add_done_callback(lambda _: dropped.release())
    closing = threading.Thread(target=looks.close)
    closing.start()
    for _ in range(2 * LOOKS_AT_ONCE):
        assert dropped.acquire(timeout=LONG_S)
    go_on.set()
    closing.join(LONG_S)
    assert len(done) == LOOKS_AT_ONCE, "what was at work has come to its end, and nothing else began"
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        ask(lambda _, answered: Looking(lambda: None, lambda _: answered), stop=stop)


def test_no_more_is_judged_at_once_than_there_are_cores_for() -> None:
    assert 2 <= LOOKS_AT_ONCE <= 4
    most, now, lock = [0], [0], threading.Lock()

    def work() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.005)
        with lock:
            now[0] -= 1

    with Looks() as looks:
        for number in range(20):
            looks.begin(str(number), work)
        while looks.names:
            looks.wait(LONG_S)
            looks.done()
    assert most[0] <= LOOKS_AT_ONCE
