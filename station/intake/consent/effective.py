"""What a patient's decisions come to on a given day. Pure.

Sources: Dutch Civil Code, book 7 (WGBO): art. 7:447 (from 16 a patient decides alone), 7:450 paragraph 2 (between 12 and 16
the parents' consent is needed beside the child's), 7:465 (under 12 the parents or guardian decide; paragraph 3: who represents an
adult who cannot decide), 7:458 paragraph 2 under c (no use without consent against an objection). UAVG art. 5 holds the same
age of 16 for consent under the GDPR.

1. An objection wins over everything, whoever made it and whenever, but for a consent that is in effect today, was given
   after it, and was given by the same party or by the patient as one who decides alone.
2. A consent counts from the day it was made (or its `valid_from`) until its `valid_until`, unless the same party has
   withdrawn it by saying `none`.
3. Under 12: a parent's or representative's counts, the child's own does not. From 12: both are needed, the child's given at 12
   or later. From 16: the patient's own, given at 16 or later, or a representative's given at 16 or later; what anyone
   said before ends on the birthday, and the patient is asked again.
4. Without a birth date the patient's own word counts, and nobody else's.
5. The dead grow no older, and a consent dated after the death is none.
6. What is dated tomorrow counts tomorrow; an objection counts at once.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from station.intake.consent.decisions import (
    RESEARCH,
    Decision,
    GivenBy,
    PatientFacts,
    Purpose,
    Word,
)

AGE_OF_ASSENT = 12
AGE_OF_CONSENT = 16


class Ground(StrEnum):
    """Why an answer is what it is, in the register's own words."""

    STATED = "stated"
    OBJECTED = "objected"
    OBJECTED_TO_REGISTRY = "objected-to-registry"
    NOT_ASKED = "not-asked"
    DECLINED = "declined"
    NO_REGISTRY_CONSENT = "no-registry-consent"
    NOT_YET_IN_EFFECT = "not-yet-in-effect"
    OVER = "over"
    AFTER_DEATH = "after-death"
    PARENT_MISSING = "parent-missing"
    CHILD_MISSING = "child-missing"
    ASK_AGAIN_AT_16 = "ask-again-at-16"
    BIRTH_DATE_UNKNOWN = "birth-date-unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What holds for one purpose on one day; `made` is the day of the decision behind it."""

    word: Word
    ground: Ground
    made: date | None = None


_NOT_ASKED = Answer("none", Ground.NOT_ASKED)


def answers(
    decisions: Iterable[Decision], facts: PatientFacts, today: date, *, registry_apart: bool
) -> dict[Purpose, Answer]:
    """Return what holds for each purpose today; research also by what was said about the supply to the registry.

    Args:
        decisions: all of one patient that stand.
        facts: of this patient.
        today: the day, where the hospital is.
        registry_apart: whether the supply was asked in a question of its own. Where not, a consent to research includes
            it, as nothing could be researched without.
    """
    by_purpose: dict[Purpose, list[Decision]] = {purpose: [] for purpose in Purpose}
    for decision in decisions:
        by_purpose[decision.purpose].append(decision)
    found = {
        purpose: answer_for(stated, facts, today) if stated else _NOT_ASKED
        for purpose, stated in by_purpose.items()
    }
    supply = found[Purpose.REGISTRY]
    granted = supply.word == "consent" or (supply is _NOT_ASKED and not registry_apart)
    for purpose in RESEARCH:
        if supply.word == "objection" and found[purpose].word != "objection":
            found[purpose] = Answer("objection", Ground.OBJECTED_TO_REGISTRY, supply.made)
        elif found[purpose].word == "consent" and not granted:
            found[purpose] = Answer("none", Ground.NO_REGISTRY_CONSENT, found[purpose].made)
    return found


def answer_for(stated: Collection[Decision], facts: PatientFacts, today: date) -> Answer:
    """Return what one patient's decisions about one purpose come to today, the other purposes aside."""
    consents = [
        decision
        for decision in stated
        if decision.word == "consent" and _fault(decision, facts, today) is None
    ]
    declined = {decision.given_by for decision in stated if decision.word == "none"}
    consents = [consent for consent in consents if consent.given_by not in declined]
    standing = [
        decision.made
        for decision in stated
        if decision.word == "objection"
        and not any(_lifts(consent, decision, facts, today) for consent in consents)
    ]
    if standing:
        return Answer("objection", Ground.OBJECTED, max(standing))
    if ground := _lacks({consent.given_by for consent in consents}, facts, today):
        return Answer("none", _why(stated, ground, facts, today), max(each.made for each in stated))
    return Answer("consent", Ground.STATED, max(consent.made for consent in consents))


def age_on(birth_date: date, day: date) -> int:
    """Return the age in whole years; who was born on 29 February has the birthday on 1 March in other years.

    >>> age_on(date(2008, 2, 29), date(2024, 2, 28)), age_on(date(2007, 2, 28), date(2023, 2, 28))
    (15, 16)
    """
    return day.year - birth_date.year - ((day.month, day.day) < (birth_date.month, birth_date.day))


def _age(facts: PatientFacts, today: date) -> int | None:
    if facts.birth_date is None:
        return None
    return age_on(facts.birth_date, min(today, facts.deceased) if facts.deceased else today)


def _fault(consent: Decision, facts: PatientFacts, today: date) -> Ground | None:
    """Return why a consent does not count today, or None where it does, for its part."""
    if facts.deceased is not None and consent.made > facts.deceased:
        return Ground.AFTER_DEATH
    if today < max(consent.made, consent.valid_from or consent.made):
        return Ground.NOT_YET_IN_EFFECT
    if consent.valid_until is not None and today > consent.valid_until:
        return Ground.OVER
    own = consent.given_by is GivenBy.PATIENT
    if facts.birth_date is None:
        return None if own else Ground.BIRTH_DATE_UNKNOWN
    age, then = _age(facts, today) or 0, age_on(facts.birth_date, consent.made)
    if age >= AGE_OF_CONSENT:
        # A parent as such speaks for nobody of 16; who represents an adult says so.
        allowed = then >= AGE_OF_CONSENT and consent.given_by is not GivenBy.PARENT
        return None if allowed else Ground.ASK_AGAIN_AT_16
    return Ground.PARENT_MISSING if own and then < AGE_OF_ASSENT else None


def _lacks(given_by: Collection[GivenBy], facts: PatientFacts, today: date) -> Ground | None:
    """Return whose consent is missing, given those that count."""
    age = _age(facts, today)
    if age is None or age >= AGE_OF_CONSENT:
        return None if given_by else Ground.DECLINED
    if not {GivenBy.PARENT, GivenBy.REPRESENTATIVE} & set(given_by):
        return Ground.PARENT_MISSING
    if age >= AGE_OF_ASSENT and GivenBy.PATIENT not in given_by:
        return Ground.CHILD_MISSING
    return None


def _lifts(consent: Decision, objection: Decision, facts: PatientFacts, today: date) -> bool:
    if consent.made <= objection.made:
        return False
    age = _age(facts, today)
    decides_alone = consent.given_by is GivenBy.PATIENT and (age is None or age >= AGE_OF_CONSENT)
    return decides_alone or consent.given_by is objection.given_by


def _why(stated: Collection[Decision], lacking: Ground, facts: PatientFacts, today: date) -> Ground:
    """Return the most telling reason: why the newest consent does not count, else whose is missing."""
    consents = sorted((each for each in stated if each.word == "consent"), key=lambda each: each.made)
    faults = [fault for each in consents if (fault := _fault(each, facts, today))]
    return faults[-1] if faults else lacking
