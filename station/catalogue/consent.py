"""Who may be in a cohort, by consent. Pure: decisions, purposes and mode in; yes or no out (invariant I7)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from policies.policy import ConsentMode, ConsentPurpose
from policies.refusals import RefusalCode, Refused

CLOCK_TOLERANCE = timedelta(minutes=5)

REGISTRY = "registry"
"""The purpose under which patients are asked about the supply to the registry; no policy names it."""

Answer = Literal["consent", "objection", "none"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one patient decided for one purpose, and the day they did."""

    purpose: str
    answer: Answer
    date: str


@dataclass(frozen=True, slots=True)
class ConsentState:
    """The hospital's whole consent register, by pseudonym.

    Attributes:
        sequence: of the consent state; grows with each.
        source_date: when the hospital's source was read; its age is what counts as stale.
        decisions: per patient; a patient who is absent decided nothing.
    """

    sequence: int
    source_date: datetime
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)


def consenting(
    decisions: Iterable[Decision], purposes: Collection[ConsentPurpose], mode: ConsentMode
) -> bool:
    """Decide for one patient.

    1. No purpose named: no.
    2. An objection to any of the purposes, or to the supply to the registry, wins over everything: no.
    3. Opt-in: yes with an explicit consent to every one of the purposes; a missing answer is no.
    4. Opt-out: yes unless they objected.

    Args:
        decisions: the patient's own, for all purposes; empty when nothing is known.
        purposes: those the policy asks for, which are at least those of the board's table of purposes.
        mode: how the collection's patients were asked.
    """
    wanted = {str(purpose) for purpose in purposes}
    answers: set[Answer] = set()
    agreed: set[str] = set()
    for decision in decisions:
        if decision.purpose in wanted:
            answers.add(decision.answer)
            if decision.answer == "consent":
                agreed.add(decision.purpose)
        elif decision.purpose == REGISTRY and decision.answer != "consent":
            # Intake has weighed it in already; what it hands over of it can only forbid.
            answers.add("objection")
    if not wanted or not answers <= {"consent", "objection", "none"} or "objection" in answers:
        return False
    match mode:
        case ConsentMode.OPT_IN:
            return agreed == wanted
        case ConsentMode.OPT_OUT:
            return True


def check_age(state: ConsentState | None, limit: timedelta, now: datetime) -> Refused | None:
    """Return why the consent register cannot be relied on, or None.

    A source dated in the future is as bad as none: its age cannot be known.
    """
    if state is None:
        return Refused.because(RefusalCode.CONSENT_UNKNOWN, "intake has handed over no consent register")
    age = now - state.source_date
    if age < -CLOCK_TOLERANCE:
        return Refused.because(RefusalCode.CONSENT_UNKNOWN, "the consent register is dated in the future")
    if age > limit:
        return Refused.because(
            RefusalCode.CONSENT_STALE,
            f"the consent register is {age.days} days old, at most {limit.days} are allowed",
        )
    return None
