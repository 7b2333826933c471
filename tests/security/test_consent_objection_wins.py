"""Ways around an objection, and whose consent counts: against a truth table that knows nothing of the register's code."""

from datetime import date, timedelta
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from station.intake.consent.decisions import Decision, GivenBy, PatientFacts, PatientId, Purpose, Word
from station.intake.consent.effective import answers
from station.intake.consent.resolution import Bearer, Standing, resolve

TODAY = date(2026, 11, 22)
WHO = PatientId("", "1")
ONE = Bearer("P" + "A" * 20, "Amstelrijk", "1")
RESEARCH = (Purpose.RESEARCH_PARTICIPANTS, Purpose.RESEARCH_THIRD_PARTIES, Purpose.RESEARCH_COMMERCIAL)

# (the patient's age today, their age when it was said, who said it) -> whether that consent counts, and as whose.
CHILD, TEEN, ADULT, UNKNOWN = "under 12", "12 to 15", "16 and over", "birth date unknown"
COUNTS = {
    (CHILD, CHILD, "parent"): "parents", (CHILD, CHILD, "representative"): "parents",
    (TEEN, CHILD, "parent"): "parents", (TEEN, CHILD, "representative"): "parents",
    (TEEN, TEEN, "parent"): "parents", (TEEN, TEEN, "representative"): "parents", (TEEN, TEEN, "patient"): "patient",
    (ADULT, ADULT, "patient"): "patient", (ADULT, ADULT, "representative"): "patient",
    (UNKNOWN, UNKNOWN, "patient"): "patient",
}  # fmt: skip
# Who must agree, at which age.
NEEDED = {CHILD: {"parents"}, TEEN: {"parents", "patient"}, ADULT: {"patient"}, UNKNOWN: {"patient"}}


def band(born: date | None, day: date) -> str:
    if born is None:
        return UNKNOWN
    birthdays = sum(date(year, born.month, born.day) <= day for year in range(born.year + 1, day.year + 1))
    return CHILD if birthdays < 12 else TEEN if birthdays < 16 else ADULT


def table(stated: list[Decision], born: date | None, died: date | None, today: date) -> Word:
    """What holds for one purpose, by the table."""
    now = band(born, min(today, died) if died else today)
    in_effect = [
        (one, COUNTS.get((now, band(born, one.made), one.given_by.value)))
        for one in stated
        if one.word == "consent"
        and (died is None or one.made <= died)
        and one.made <= today
        and (one.valid_from is None or one.valid_from <= today)
        and (one.valid_until is None or today <= one.valid_until)
        and not any(other.word == "none" and other.given_by == one.given_by for other in stated)
    ]
    counting = [(one, whose) for one, whose in in_effect if whose]
    for objection in (one for one in stated if one.word == "objection"):
        answered = any(
            one.made > objection.made
            and (
                one.given_by == objection.given_by
                or (one.given_by is GivenBy.PATIENT and now in {ADULT, UNKNOWN})
            )
            for one, _ in counting
        )
        if not answered:
            return "objection"
    return "consent" if NEEDED[now] <= {whose for _, whose in counting} else "none"


days = st.integers(min_value=-30, max_value=3).map(lambda years: TODAY + timedelta(days=years * 200))
decisions = st.builds(
    Decision,
    patient=st.just(WHO),
    # Few purposes and few bounds, so that decisions meet.
    purpose=st.sampled_from([Purpose.RESEARCH_PARTICIPANTS, Purpose.RESEARCH_PARTICIPANTS, Purpose.REGISTRY]),
    word=st.sampled_from(["consent", "consent", "objection", "none"]),
    made=days,
    given_by=st.sampled_from(GivenBy),
    valid_from=st.none() | st.none() | st.none() | days,
    valid_until=st.none() | st.none() | st.none() | days,
)
born = st.none() | st.integers(min_value=1, max_value=25).map(lambda years: date(2026 - years, 5, 17))
died = st.none() | days


@settings(max_examples=2500)
@given(stated=st.lists(decisions, max_size=6), born=born, died=died, apart=st.booleans())
def test_what_holds_is_what_the_table_says(
    stated: list[Decision], born: date | None, died: date | None, apart: bool
) -> None:
    stated = [one for one in stated if born is None or one.made >= born]
    found = answers(stated, PatientFacts(born, died), TODAY, registry_apart=apart)
    by_purpose = {purpose: [one for one in stated if one.purpose is purpose] for purpose in Purpose}
    supply = table(by_purpose[Purpose.REGISTRY], born, died, TODAY) if by_purpose[Purpose.REGISTRY] else None
    for purpose in RESEARCH:
        expected = table(by_purpose[purpose], born, died, TODAY) if by_purpose[purpose] else "none"
        if supply == "objection":
            expected = "objection"
        elif expected == "consent" and supply != "consent" and (supply is not None or apart):
            expected = "none"
        assert found[purpose].word == expected, (purpose, found[purpose])


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_objection_wins_whatever_stands_beside_it(purpose: Purpose, order: tuple[int, ...]) -> None:
    """The same day, an earlier day, in any order in the file, to the purpose itself or to the registry."""
    for giver, other in product(GivenBy, GivenBy):
        said = [
            Decision(WHO, purpose, "objection", TODAY - timedelta(days=10), giver),
            Decision(WHO, purpose, "consent", TODAY - timedelta(days=10), other),
            Decision(WHO, purpose, "consent", TODAY - timedelta(days=20), other),
        ]
        agreed = [
            Decision(WHO, each, "consent", TODAY - timedelta(days=30))
            for each in Purpose
            if each is not purpose
        ]
        standing = Standing.of([*agreed, *(said[place] for place in order)], {})
        records = {record.purpose: record.decision for record in resolve(standing, [ONE], TODAY).records}
        wanted = RESEARCH if purpose is Purpose.REGISTRY else (purpose,)
        assert {records[each] for each in wanted} == {"objection"}


def test_a_consent_that_is_over_does_not_keep_an_objection_away() -> None:
    objection = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "objection", date(2020, 1, 1))
    consent = Decision(
        WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2021, 1, 1), valid_until=date(2026, 11, 22)
    )
    facts = PatientFacts()
    for today, expected in ((date(2026, 11, 22), "consent"), (date(2026, 11, 23), "objection")):
        found = answers([objection, consent], facts, today, registry_apart=False)
        assert found[Purpose.RESEARCH_PARTICIPANTS].word == expected


def test_a_parent_does_not_speak_over_their_childs_objection() -> None:
    facts = PatientFacts(date(2013, 1, 1))
    child = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "objection", date(2025, 2, 1))
    parent = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2026, 2, 1), GivenBy.PARENT)
    found = answers([child, parent], facts, TODAY, registry_apart=False)
    assert found[Purpose.RESEARCH_PARTICIPANTS].word == "objection"


@pytest.mark.parametrize("given_by", [GivenBy.PARENT, GivenBy.REPRESENTATIVE])
def test_on_the_sixteenth_birthday_what_others_said_ends(given_by: GivenBy) -> None:
    birthday = date(2026, 11, 22)
    facts = PatientFacts(date(2010, 11, 22))
    stated = [
        Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2024, 1, 1), given_by),
        Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2024, 1, 1)),
    ]
    eve = answers(stated, facts, birthday - timedelta(days=1), registry_apart=False)
    assert eve[Purpose.RESEARCH_PARTICIPANTS].word == "consent"
    then = answers(stated, facts, birthday, registry_apart=False)
    assert (then[Purpose.RESEARCH_PARTICIPANTS].word, then[Purpose.RESEARCH_PARTICIPANTS].ground) == (
        "none", "ask-again-at-16",
    )  # fmt: skip
    again = [*stated, Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", birthday)]
    assert (
        answers(again, facts, birthday, registry_apart=False)[Purpose.RESEARCH_PARTICIPANTS].word == "consent"
    )


def test_the_dead_decide_nothing_new() -> None:
    facts = PatientFacts(date(1950, 1, 1), date(2026, 1, 1))
    before = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2025, 12, 31))
    after = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", date(2026, 1, 2))
    objection = Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "objection", date(2025, 1, 1))
    word = {
        name: answers(stated, facts, TODAY, registry_apart=False)[Purpose.RESEARCH_PARTICIPANTS].word
        for name, stated in {
            "before": [before], "after": [after], "objected": [objection, after], "changed": [objection, before],
        }.items()
    }  # fmt: skip
    assert word == {"before": "consent", "after": "none", "objected": "objection", "changed": "consent"}
