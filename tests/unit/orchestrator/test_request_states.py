"""The table of a request's states: what leads where, and that nothing derived is ever illegal."""

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.federation.orders import RunState
from orchestrator.registry.request_states import (
    FINAL,
    TRANSITIONS,
    PolicyFact,
    RequestEvent,
    derived,
    next_state,
)
from policies.train_request import RequestState

IN_FORCE, GONE = PolicyFact(True, "POLICY_IN_FORCE"), PolicyFact(False, "POLICY_REVOKED")
runs = st.lists(st.sampled_from(list(RunState)), max_size=4).map(tuple)
facts = st.sampled_from([None, IN_FORCE, GONE])
BY_HAND = {RequestEvent.TAKE_UP, RequestEvent.DECLINE, RequestEvent.WITHDRAW}


def test_nothing_leaves_a_final_state() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_every_state_but_the_first_is_reached_and_every_event_leads_somewhere() -> None:
    assert set(TRANSITIONS.values()) == set(RequestState) - {RequestState.SUBMITTED}
    assert {event for _, event in TRANSITIONS} == set(RequestEvent) - {RequestEvent.SUBMIT}


def test_no_hand_approves_orders_runs_or_releases() -> None:
    by_hand = {after for (_, event), after in TRANSITIONS.items() if event in BY_HAND}
    assert by_hand == {RequestState.IN_REVIEW, RequestState.DECLINED, RequestState.WITHDRAWN}


@given(st.sampled_from(list(RequestState)), facts, runs)
def test_what_is_derived_is_legal_and_settles(
    state: RequestState, policy: PolicyFact | None, states: tuple[RunState, ...]
) -> None:
    for step in derived(state, policy, states):
        after = next_state(state, step.event)
        assert after is not None
        assert step.event not in BY_HAND
        state = after
    assert derived(state, policy, states) == ()


@given(st.sampled_from(list(RequestState)), runs)
def test_a_mirror_that_says_nothing_moves_nothing_to_or_from_approval(
    state: RequestState, states: tuple[RunState, ...]
) -> None:
    found = {step.event for step in derived(state, None, states)}
    assert not found & {RequestEvent.APPROVED, RequestEvent.POLICY_GONE}


@given(st.lists(st.tuples(facts, runs), max_size=8))
def test_without_a_policy_in_force_nothing_is_ordered(
    seen: list[tuple[PolicyFact | None, tuple[RunState, ...]]],
) -> None:
    state, approved = RequestState.SUBMITTED, False
    for policy, states in seen:
        approved = approved or policy is IN_FORCE
        for step in derived(state, policy, states):
            state = TRANSITIONS[state, step.event]
        assert approved or state is RequestState.SUBMITTED


def test_a_declined_request_is_not_over_for_its_owner() -> None:
    assert next_state(RequestState.DECLINED, RequestEvent.WITHDRAW) is RequestState.WITHDRAWN


@pytest.mark.parametrize(
    ("state", "event"), sorted(set(product(RequestState, RequestEvent)) - set(TRANSITIONS))
)
def test_all_else_is_refused(state: RequestState, event: RequestEvent) -> None:
    assert next_state(state, event) is None


def test_a_release_counts_though_the_policy_went_afterwards() -> None:
    events = [step.event for step in derived(RequestState.RUNNING, GONE, (RunState.FINISHED,))]
    assert events == [RequestEvent.RELEASED]


def test_the_drawing_names_every_event_and_state() -> None:
    source = Path(__file__).parents[3] / "orchestrator" / "registry" / "request_states.py"
    drawing = source.read_text("utf-8").split('"""')[1]
    words = set(re.findall(r"[a-z][a-z-]+[a-z]", drawing))
    assert {state.value for state in RequestState} <= words
    assert {event.value for event in RequestEvent} - {"submit"} <= words
