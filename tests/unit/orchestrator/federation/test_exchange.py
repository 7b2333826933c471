"""Asking stations: again after errors and silence, each under its own deadline, until enough have answered."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from federation_samples import DIGEST, NAMES
from flwr.app import Error
from grid_simulator import Answer, GridSimulator

from orchestrator.federation.asking import Asking
from orchestrator.federation.exchange import Answered, Exchange, Missing, Outcome, Patience, StoppedError
from orchestrator.federation.reviews import NoReviews
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
PATIENCE = Patience(deadline_s=60.0, enough=2, grace_s=0.1, pending_s=0.01, silence_s=0.1)
LONG = replace(PATIENCE, deadline_s=300.0)
"""Whoever waits for the deadline is told from who does not, on any machine."""


def _reply(
    instruction: Instruction, status: Status = Status.RELEASED, code: str | None = None
) -> StationReply:
    return StationReply(
        order_digest=DIGEST,
        kind=instruction.kind,
        round=instruction.round,
        attempt=instruction.attempt,
        status=status,
        code=code,
        correlation_id="" if code is None else "c0ffee",
    )


def _good(instruction: Instruction) -> Answer:
    return _reply(instruction)


def _in_turn(*answers: Callable[[Instruction], Answer]) -> Callable[[Instruction], Answer]:
    left = list(answers)

    def answer(instruction: Instruction) -> Answer:
        now = left.pop(0) if len(left) > 1 else left[0]
        return now(instruction)

    return answer


def _ask(
    grid: GridSimulator,
    patience: Patience = PATIENCE,
    stop: threading.Event | None = None,
    kind: Kind = Kind.TRAIN,
) -> dict[str, Outcome]:
    begins = kind is Kind.PREPARE
    question = Instruction(
        kind=kind,
        order_digest=DIGEST,
        round=0 if begins else 1,
        order="{}" if begins else None,
        weights=None if begins else Blob(digest=DIGEST, size=1),
        deadline_s=60,
    )
    exchange = Exchange(grid, NODES, stop or threading.Event(), poll_s=0.002)
    return exchange.ask(question, None, NAMES, patience, lambda _, answered: answered)


def _grid(**stations: Callable[[Instruction], Answer]) -> GridSimulator:
    return GridSimulator(
        {NODES[name]: stations.get(name, _good) for name in NAMES}, online=set(NODES.values())
    )


def _attempts(grid: GridSimulator, name: str) -> list[int]:
    return [instruction.attempt for node, instruction in grid.asked if node == NODES[name]]


HEALED = ["CONSENT_UNKNOWN", "CONSENT_STALE", "TRUST_EXPIRED", "POLICY_NOT_YET_VALID", "ORDER_NOT_YET_VALID"]


def test_every_station_is_asked_once_when_all_answer() -> None:
    grid = _grid()
    found = _ask(grid)
    assert all(isinstance(outcome, Answered) for outcome in found.values())
    assert [_attempts(grid, name) for name in NAMES] == [[1], [1], [1]]


def test_a_silent_station_is_asked_again() -> None:
    grid = _grid(berkel=_in_turn(lambda _: None, lambda _: None, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, silence_s=0.05)
    assert isinstance(_ask(grid, patience)["berkel"], Answered)
    assert _attempts(grid, "berkel") == [1, 2, 3]


def test_a_station_that_flower_takes_for_offline_is_asked_when_it_is_back() -> None:
    grid = _grid(dommel=_in_turn(lambda _: Error(5), _good))
    grid.online.discard(NODES["dommel"])
    threading.Timer(0.3, lambda: grid.online.add(NODES["dommel"])).start()
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, silence_s=30.0)
    assert isinstance(_ask(grid, patience)["dommel"], Answered)
    assert _attempts(grid, "dommel") == [1, 2]


def test_a_station_that_stays_away_is_lost_and_the_rest_go_on() -> None:
    grid = _grid(dommel=lambda _: Error(5))
    grid.online.discard(NODES["dommel"])
    started = time.monotonic()
    found = _ask(grid, LONG)
    assert found["dommel"] == Missing("LOST")
    assert time.monotonic() - started < LONG.deadline_s / 2


def test_pending_is_asked_again_and_again() -> None:
    grid = _grid(amstel=_in_turn(*[lambda i: _reply(i, Status.PENDING, "OPERATOR_PENDING")] * 4, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, pending_s=0.01)
    assert isinstance(_ask(grid, patience)["amstel"], Answered)
    assert _attempts(grid, "amstel") == [1, 2, 3, 4, 5]


def test_a_refusal_is_final_unless_it_passes_by_itself() -> None:
    grid = _grid(
        amstel=lambda i: _reply(i, Status.REFUSED, "POLICY_REVOKED"),
        berkel=_in_turn(lambda i: _reply(i, Status.REFUSED, "RESOURCES_BUSY"), _good),
    )
    found = _ask(grid)
    assert found["amstel"] == Missing("POLICY_REVOKED", "c0ffee")
    assert isinstance(found["berkel"], Answered)
    assert _attempts(grid, "amstel") == [1]


@pytest.mark.parametrize("code", HEALED)
def test_what_a_hospital_is_about_to_heal_is_waited_for_in_a_run_that_it_accepted(code: str) -> None:
    grid = _grid(amstel=_in_turn(*[lambda i: _reply(i, Status.REFUSED, code)] * 4, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, pending_s=0.01)
    assert isinstance(_ask(grid, patience)["amstel"], Answered)
    grid = _grid(amstel=_in_turn(lambda i: _reply(i, Status.REFUSED, code), _good))
    assert _ask(grid, patience, kind=Kind.PREPARE)["amstel"] == Missing(code, "c0ffee")
    grid = _grid(amstel=_in_turn(lambda i: _reply(i, Status.REFUSED, code), _good))
    begun = replace(patience, begun=frozenset({"amstel"}))
    assert isinstance(_ask(grid, begun, kind=Kind.PREPARE)["amstel"], Answered)


@pytest.mark.parametrize("code", HEALED)
def test_an_answer_that_such_a_moment_kept_back_is_asked_for_again(code: str) -> None:
    # The last look before a release sees the same clock as the first one.
    grid = _grid(amstel=_in_turn(*[lambda i: _reply(i, Status.WITHHELD, code)] * 2, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, pending_s=0.01)
    assert isinstance(_ask(grid, patience)["amstel"], Answered)
    assert _attempts(grid, "amstel") == [1, 2, 3]


def test_three_failures_are_the_end_at_a_station() -> None:
    grid = _grid(amstel=lambda i: _reply(i, Status.FAILED, "TRAIN_CRASHED"))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1)
    assert _ask(grid, patience)["amstel"] == Missing("TRAIN_CRASHED", "c0ffee")
    assert _attempts(grid, "amstel") == [1, 2, 3]


@pytest.mark.parametrize("code", ["STATION_STORAGE", "NETWORK_UNAVAILABLE", "ENGINE_UNAVAILABLE"])
def test_what_is_wrong_around_a_train_is_waited_for_however_often_it_is_said(code: str) -> None:
    grid = _grid(amstel=_in_turn(*[lambda i: _reply(i, Status.FAILED, code)] * 6, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, pending_s=0.01)
    assert isinstance(_ask(grid, patience)["amstel"], Answered)
    assert len(_attempts(grid, "amstel")) == 7


def test_a_container_that_was_killed_while_it_was_prepared_is_not_the_end_at_a_station() -> None:
    def crashed(instruction: Instruction) -> Answer:
        return _reply(instruction, Status.REFUSED, "TRAIN_CRASHED")

    grid = _grid(amstel=_in_turn(crashed, crashed, _good), berkel=crashed)
    found = _ask(grid, Patience(deadline_s=60.0, enough=2, grace_s=20.0))
    assert isinstance(found["amstel"], Answered)
    assert found["berkel"] == Missing("TRAIN_CRASHED", "c0ffee")
    assert _attempts(grid, "amstel") == _attempts(grid, "berkel") == [1, 2, 3]


def test_withheld_and_stopped_are_missing_by_their_code() -> None:
    grid = _grid(
        amstel=lambda i: _reply(i, Status.WITHHELD, "RELEASE_TENSOR_EXTRA"),
        berkel=lambda i: _reply(i, Status.STOPPED),
    )
    found = _ask(grid)
    assert (found["amstel"], found["berkel"]) == (
        Missing("RELEASE_TENSOR_EXTRA", "c0ffee"),
        Missing("STOPPED"),
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"[" * 3000])
def test_bytes_that_are_no_reply_spoil_nothing_for_others(body: bytes) -> None:
    found = _ask(_grid(berkel=lambda _: body))
    assert found["berkel"] == Missing("REPLY_UNREADABLE", offence=True)
    assert isinstance(found["amstel"], Answered)


def test_who_is_late_when_enough_have_answered_is_left_out() -> None:
    grid = _grid(dommel=lambda _: None)
    started = time.monotonic()
    assert _ask(grid, LONG)["dommel"] == Missing("LATE")
    assert time.monotonic() - started < LONG.deadline_s / 2


def test_waiting_ends_when_enough_cannot_be_reached_any_more() -> None:
    grid = _grid(
        amstel=lambda i: _reply(i, Status.REFUSED, "POLICY_REVOKED"),
        berkel=lambda i: _reply(i, Status.REFUSED, "POLICY_REVOKED"),
        dommel=lambda _: None,
    )
    started = time.monotonic()
    assert _ask(grid, LONG)["dommel"] == Missing("LATE")
    assert time.monotonic() - started < LONG.deadline_s / 2


def test_a_super_link_that_is_down_is_waited_for() -> None:
    grid = _grid()
    grid.down_for = 2
    assert all(isinstance(outcome, Answered) for outcome in _ask(grid).values())


def test_waiting_can_be_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        _ask(_grid(amstel=lambda _: None), Patience(deadline_s=60.0, enough=3, grace_s=60.0), stop)


def test_the_first_answer_of_a_station_counts() -> None:
    grid = _grid(amstel=_in_turn(lambda _: None, _good))
    patience = Patience(deadline_s=60.0, enough=3, grace_s=0.1, silence_s=0.02)
    found = _ask(grid, patience)
    assert isinstance(found["amstel"], Answered)
    assert found["amstel"].reply.attempt == 2


def test_the_rest_of_a_quantum_s_stations_are_not_cut_off_at_its_end() -> None:
    """Stations answer at multiples: who needs one quantum more answers just after as long again as the first ones took."""
    question = Instruction(kind=Kind.TRAIN, order_digest=DIGEST, round=1, deadline_s=60)
    patience = Patience(deadline_s=1000.0, enough=2, grace_s=10.0, quantum_s=100.0)
    asking = Asking(_grid(), question, None, patience, lambda _, answered: answered, NoReviews(), started=0.0)
    asking.expect(NODES)
    for name in NAMES[:2]:
        asking.stations[name].outcome = Answered(_reply(question), None)
    assert not asking.is_over(100.0)
    assert not asking.is_over(200.5)
    assert asking.is_over(300.5)


def test_an_older_station_is_asked_in_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A station of version 1 refuses version 2 by its code, and is asked again in version 1; the others stay where they are."""
    monkeypatch.setattr("orchestrator.federation.asking.WIRE_VERSION", 2)

    def older(instruction: Instruction) -> Answer:
        if instruction.version > 1:
            assert instruction.weights is None, (
                "of a later version no more is read than what every version has"
            )
            return _reply(instruction, Status.REFUSED, "PROTOCOL_VERSION")
        assert instruction.weights is not None
        return _reply(instruction)

    first, *others = NAMES
    grid = _grid(**{first: older})
    patience = replace(PATIENCE, enough=len(NAMES), deadline_s=60.0)
    outcomes = _ask(grid, patience)
    assert all(isinstance(outcome, Answered) for outcome in outcomes.values())
    versions = {name: [each.version for node, each in grid.asked if node == NODES[name]] for name in NAMES}
    assert versions[first] == [2, 1]
    assert {tuple(versions[name]) for name in others} == {(2,)}


def test_a_station_that_speaks_no_version_of_ours_is_named_with_its_code() -> None:
    first = NAMES[0]
    grid = _grid(**{first: lambda instruction: _reply(instruction, Status.REFUSED, "PROTOCOL_VERSION")})
    outcome = _ask(grid)[first]
    assert isinstance(outcome, Missing)
    assert outcome.code == "PROTOCOL_VERSION"
