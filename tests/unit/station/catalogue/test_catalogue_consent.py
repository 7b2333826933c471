"""Who consents: the table of answers, and properties that hold for all of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import ConsentMode, ConsentPurpose
from policies.refusals import RefusalCode
from station.catalogue.consent import Answer, ConsentState, Decision, check_age, consenting

PARTICIPANTS = ConsentPurpose.RESEARCH_PARTICIPANTS
THIRD_PARTIES = ConsentPurpose.RESEARCH_THIRD_PARTIES
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

decisions = st.lists(
    st.builds(
        Decision,
        purpose=st.sampled_from([*map(str, ConsentPurpose), "something-else"]),
        answer=st.sampled_from(["consent", "objection", "none"]),
        date=st.just("2026-01-01"),
    ),
    max_size=4,
)
purposes = st.sets(st.sampled_from(list(ConsentPurpose)), max_size=3)


def said(*answers: tuple[ConsentPurpose, Answer]) -> list[Decision]:
    return [Decision(purpose, answer, "2026-01-01") for purpose, answer in answers]


@pytest.mark.parametrize(
    ("known", "opt_in", "opt_out"),
    [
        (said(), False, True),
        (said((PARTICIPANTS, "consent")), True, True),
        (said((PARTICIPANTS, "none")), False, True),
        (said((PARTICIPANTS, "objection")), False, False),
        (said((THIRD_PARTIES, "consent")), False, True),
        (said((THIRD_PARTIES, "objection")), False, True),
        (said((PARTICIPANTS, "consent"), (PARTICIPANTS, "objection")), False, False),
    ],
)
def test_one_purpose(known: list[Decision], opt_in: bool, opt_out: bool) -> None:
    assert consenting(known, [PARTICIPANTS], ConsentMode.OPT_IN) is opt_in
    assert consenting(known, [PARTICIPANTS], ConsentMode.OPT_OUT) is opt_out


def test_with_two_purposes_it_takes_both_consents_and_one_objection_is_too_much() -> None:
    both = [PARTICIPANTS, THIRD_PARTIES]
    agreed = said((THIRD_PARTIES, "consent"), (PARTICIPANTS, "consent"))
    assert consenting(agreed, both, ConsentMode.OPT_IN)
    for one in agreed:
        assert not consenting([one], both, ConsentMode.OPT_IN)
        assert consenting([one], both, ConsentMode.OPT_OUT), "nobody objected"
    assert not consenting([*agreed[1:], *said((THIRD_PARTIES, "none"))], both, ConsentMode.OPT_IN)
    mixed = said((PARTICIPANTS, "consent"), (THIRD_PARTIES, "objection"))
    assert not consenting(mixed, both, ConsentMode.OPT_IN)
    assert not consenting(mixed, both, ConsentMode.OPT_OUT)


@pytest.mark.parametrize("answer", ["objection", "none"])
def test_without_the_supply_to_the_registry_nothing_is_used(answer: Answer) -> None:
    known = [*said((PARTICIPANTS, "consent")), Decision("registry", answer, "2026-01-01")]
    assert not consenting(known, [PARTICIPANTS], ConsentMode.OPT_IN)
    assert not consenting(known, [PARTICIPANTS], ConsentMode.OPT_OUT)
    agreed = [*said((PARTICIPANTS, "consent")), Decision("registry", "consent", "2026-01-01")]
    assert consenting(agreed, [PARTICIPANTS], ConsentMode.OPT_IN)
    assert not consenting(agreed[1:], [PARTICIPANTS], ConsentMode.OPT_IN), "the registry alone is no research"


@given(known=decisions, wanted=purposes, mode=st.sampled_from(list(ConsentMode)))
def test_an_objection_always_wins_and_no_purpose_is_no(
    known: list[Decision], wanted: set[ConsentPurpose], mode: ConsentMode
) -> None:
    answer = consenting(known, wanted, mode)
    if not wanted or any(d.answer == "objection" and d.purpose in {str(w) for w in wanted} for d in known):
        assert not answer
    if answer:
        # Who may be asked by opt-in may be asked by opt-out, never the other way by itself.
        assert consenting(known, wanted, ConsentMode.OPT_OUT)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (None, RefusalCode.CONSENT_UNKNOWN),
        (NOW - timedelta(days=7, seconds=1), RefusalCode.CONSENT_STALE),
        (NOW + timedelta(hours=1), RefusalCode.CONSENT_UNKNOWN),
        (NOW - timedelta(days=7), None),
        (NOW + timedelta(minutes=1), None),
    ],
)
def test_a_register_must_be_fresh_and_not_from_the_future(
    source: datetime | None, code: RefusalCode | None
) -> None:
    state = None if source is None else ConsentState(1, source)
    refused = check_age(state, timedelta(days=7), NOW)
    assert (refused.code if refused else None) is code
