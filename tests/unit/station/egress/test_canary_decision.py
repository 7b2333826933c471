"""From a train's losses to a verdict: what makes a score, what makes none, and which way the limit falls."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.refusals import RefusalCode
from station.cohorts.blind import BlindCase
from station.egress.canary.decision import (
    MINIMUM_PATIENTS,
    MembershipScore,
    Unscored,
    membership_reason,
    score_update,
)

SIDE = 20


def cases(side: int = SIDE) -> list[BlindCase]:
    """Two images of each patient, in mixed order; the first and the last image are laid twice."""
    found = [BlindCase(number, number < side) for number in range(2 * side) for _ in range(2)]
    random.Random(3).shuffle(found)
    twins = [BlindCase(found[at].patient, found[at].member, at) for at in (0, len(found) - 1)]
    return found + twins


def answers(asked: list[BlindCase], value: Any) -> list[float]:
    """A loss per case: of the case's own place for the first copies, the same for second ones."""
    return [value(asked[at if case.twin_of is None else case.twin_of], at if case.twin_of is None else case.twin_of)
            for at, case in enumerate(asked)]  # fmt: skip


def noise(_case: BlindCase, at: int) -> float:
    return random.Random(at).random()


def test_an_update_that_lowers_its_members_losses_scores_one() -> None:
    asked = cases()
    before = answers(asked, noise)
    after = answers(asked, lambda case, at: noise(case, at) - (10.0 if case.member else 0.0))
    score = score_update(asked, before, after)
    assert isinstance(score, MembershipScore)
    assert (score.gain_area, score.loss_area, score.gain_found, score.patients) == (1.0, 1.0, 1.0, SIDE)
    assert membership_reason(score, 0.99) is not None


def test_calibration_sees_what_the_loss_alone_does_not() -> None:
    """Patients differ much in difficulty; members gained a little, every one of them."""
    asked = cases()
    before = answers(asked, lambda _case, at: 100 * random.Random(at).random())
    after = answers(asked, lambda case, at: 100 * random.Random(at).random() - (0.5 if case.member else 0.0))
    score = score_update(asked, before, after)
    assert isinstance(score, MembershipScore)
    assert score.gain_area == 1.0
    assert score.loss_area < 0.75
    assert score.area == 1.0


def test_the_loss_alone_sees_members_learned_in_earlier_rounds() -> None:
    asked = cases()
    before = answers(asked, lambda case, at: noise(case, at) - (10.0 if case.member else 0.0))
    after = answers(asked, lambda case, at: 0.9 * (noise(case, at) - (10.0 if case.member else 0.0)))
    score = score_update(asked, before, after)
    assert isinstance(score, MembershipScore)
    assert score.loss_area == 1.0
    assert score.gain_area < 0.5
    assert score.area == 1.0


def test_the_limit_itself_passes_and_the_reason_tells_no_number() -> None:
    score = MembershipScore(0.6, 0.55, 0.0, 0.0, SIDE)
    assert membership_reason(score, 0.6) is None
    reason = membership_reason(score, 0.599)
    assert reason is not None
    assert reason.code is RefusalCode.RELEASE_MEMBERSHIP
    assert not any(character.isdigit() for character in reason.detail)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda values: values[:-1], Unscored.NO_NUMBERS),
        (lambda values: [*values, 0.5], Unscored.NO_NUMBERS),
        (lambda values: ["0.5", *values[1:]], Unscored.NO_NUMBERS),
        (lambda values: [True, *values[1:]], Unscored.NO_NUMBERS),
        (lambda values: [None, *values[1:]], Unscored.NO_NUMBERS),
        (lambda values: [[0.5], *values[1:]], Unscored.NO_NUMBERS),
        (lambda _values: [], Unscored.NO_NUMBERS),
        (lambda values: [float("nan"), *values[1:]], Unscored.NOT_FINITE),
        (lambda values: [float("inf"), *values[1:]], Unscored.NOT_FINITE),
        (lambda values: [10**400, *values[1:]], Unscored.NOT_FINITE),
        (lambda values: [0.7] * len(values), Unscored.CONSTANT),
        (lambda values: [*values[:-1], values[-1] + 1], Unscored.NOT_REPEATABLE),
    ],
)
def test_what_is_no_answer_makes_no_score(spoil: Any, found: Unscored) -> None:
    asked = cases()
    good = answers(asked, noise)
    outcome = score_update(asked, good, spoil(good))
    assert outcome is found
    reason = membership_reason(outcome, 1.0)
    assert reason is not None
    assert reason.code is RefusalCode.RELEASE_UNSCORED


def test_a_constant_loss_before_training_is_no_fault() -> None:
    """Weights of zero know nothing of anybody."""
    asked = cases()
    assert isinstance(score_update(asked, [0.7] * len(asked), answers(asked, noise)), MembershipScore)


def test_too_few_patients_are_not_scored() -> None:
    asked = cases(MINIMUM_PATIENTS - 1)
    values = answers(asked, noise)
    outcome = score_update(asked, values, values)
    assert outcome is Unscored.TOO_FEW
    reason = membership_reason(outcome, 1.0)
    assert reason is not None
    assert reason.code is RefusalCode.RELEASE_TOO_FEW_PATIENTS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@given(st.lists(JSON, max_size=90), st.lists(JSON, max_size=90))
def test_no_answer_makes_it_raise(before: Any, after: Any) -> None:
    outcome = score_update(cases(), before, after)
    assert isinstance(outcome, MembershipScore | Unscored)


@given(st.lists(st.floats(), min_size=82, max_size=82), st.floats(0.5, 1.0))
def test_any_numbers_make_a_score_or_none(after: list[float], limit: float) -> None:
    asked = cases()
    outcome = score_update(asked, answers(asked, noise), after)
    membership_reason(outcome, limit)
    if isinstance(outcome, MembershipScore):
        assert 0.0 <= outcome.loss_area <= 1.0
        assert 0.0 <= outcome.gain_area <= 1.0
