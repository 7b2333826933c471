"""The table of a run's life."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from station.runs.states import HOLDS_RESOURCES, TERMINAL, TRANSITIONS, RunEvent, RunState, next_state


def walk(*events: RunEvent) -> RunState:
    state = RunState.SEEN
    for event in events:
        after = next_state(state, event)
        assert after is not None, (state, event)
        state = after
    return state


def test_the_ordinary_life() -> None:
    rounds = [RunEvent.BEGIN, RunEvent.ANSWERED] * 5
    assert walk(RunEvent.ADMIT, RunEvent.PREPARED, *rounds, RunEvent.FINISH) is RunState.FINISHED


def test_the_operator_decides_where_the_hospital_wants_it() -> None:
    assert walk(RunEvent.ASK_OPERATOR, RunEvent.HOLD, RunEvent.APPROVE, RunEvent.PREPARED) is RunState.READY


def test_a_refusal_can_be_looked_at_again() -> None:
    assert walk(RunEvent.REFUSE, RunEvent.REASSESS, RunEvent.ADMIT) is RunState.PREPARING


def test_a_station_that_comes_back_prepares_again() -> None:
    assert walk(RunEvent.ADMIT, RunEvent.PREPARED, RunEvent.BEGIN, RunEvent.RECOVER) is RunState.PREPARING


def test_an_end_is_an_end() -> None:
    for state, event in product(TERMINAL, RunEvent):
        assert next_state(state, event) in (None, state)


def test_everything_that_lives_can_be_stopped_and_finished() -> None:
    for state in set(RunState) - TERMINAL:
        assert next_state(state, RunEvent.STOP) is RunState.STOPPED
        assert next_state(state, RunEvent.FINISH) is RunState.FINISHED


def test_every_state_is_reached_from_the_first() -> None:
    reached, frontier = {RunState.SEEN}, [RunState.SEEN]
    while frontier:
        state = frontier.pop()
        for (before, _), after in TRANSITIONS.items():
            if before is state and after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == set(RunState)


@given(st.lists(st.sampled_from(RunEvent), max_size=30))
def test_nothing_runs_that_nobody_admitted(events: list[RunEvent]) -> None:
    state = RunState.SEEN
    admitted = False
    for event in events:
        after = next_state(state, event)
        if after is None:
            continue
        if event in {RunEvent.ADMIT, RunEvent.APPROVE}:
            admitted = True
        elif after in {RunState.SEEN, RunState.REFUSED}:
            admitted = False
        state = after
        if state in HOLDS_RESOURCES:
            assert admitted
