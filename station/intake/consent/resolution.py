"""From decisions by the hospital's ids to the state by pseudonym that compute gets. Pure.

Whose word is it? A decision that names an issuer is that issuer's patient's. One that names none is the patient's with that id, where
one issuer only gave it out. Doubt protects: where it could be several patients', a consent is nobody's and an objection
everybody's; an objection that names an issuer counts also for a patient whose images came without one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from station.handover import ConsentRecord
from station.intake.consent.decisions import RESEARCH, Decision, PatientFacts, PatientId, Purpose
from station.intake.consent.effective import Answer, Ground, answers

_STRICTNESS = {"consent": 0, "none": 1, "objection": 2}


@dataclass(frozen=True, slots=True)
class Bearer:
    """A patient whose images came in."""

    pseudonym: str
    issuer: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """All decisions that stand, and what is known of the patients; by the bare id.

    Attributes:
        facts: by the bare id, then by issuer.
        registry_apart: whether the supply to the registry is a question of its own.
    """

    decisions: Mapping[str, tuple[Decision, ...]]
    facts: Mapping[str, Mapping[str, PatientFacts]]
    registry_apart: bool = False

    @classmethod
    def of(
        cls,
        decisions: Iterable[Decision],
        facts: Mapping[PatientId, PatientFacts],
        *,
        registry_apart: bool = False,
    ) -> "Standing":
        """Index decisions."""
        by_id: defaultdict[str, list[Decision]] = defaultdict(list)
        for decision in decisions:
            by_id[decision.patient.patient_id].append(decision)
        known: defaultdict[str, dict[str, PatientFacts]] = defaultdict(dict)
        for patient, of_patient in facts.items():
            known[patient.patient_id][patient.issuer] = of_patient
        return cls({key: tuple(found) for key, found in by_id.items()}, known, registry_apart)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The state by pseudonym.

    Attributes:
        records: what compute gets: the research purposes, the supply to the registry already weighed in.
        ambiguous: patient ids that two issuers gave out.
        grounds: how many patients have an answer for research on each ground, for the hospital's own eyes.
    """

    records: tuple[ConsentRecord, ...]
    ambiguous: int
    grounds: Mapping[Ground, int]


def resolve(standing: Standing, bearers: Iterable[Bearer], today: date) -> Resolved:
    """Return the state of the patients whose images are here.

    A patient known under several ids (merged) gets the strictest of what their ids come to.
    """
    listed = list(bearers)
    issuers: Counter[str] = Counter(bearer.patient_id for bearer in listed)
    found: dict[tuple[str, Purpose], Answer] = {}
    for bearer in listed:
        concerning, facts = of_bearer(standing, bearer, alone=issuers[bearer.patient_id] == 1)
        if not concerning:
            continue
        stated = {decision.purpose for decision in concerning}
        holding = answers(concerning, facts, today, registry_apart=standing.registry_apart)
        for purpose in RESEARCH:
            answer = holding[purpose]
            if purpose not in stated and answer.word != "objection":
                continue
            key = (bearer.pseudonym, purpose)
            if key not in found or _STRICTNESS[answer.word] > _STRICTNESS[found[key].word]:
                found[key] = answer
    records = tuple(
        ConsentRecord(
            patient=pseudonym,
            purpose=purpose.value,
            decision=answer.word,
            date=(answer.made or today).isoformat(),
        )
        for (pseudonym, purpose), answer in sorted(found.items())
    )
    grounds = Counter(ground for _, ground in {(key[0], answer.ground) for key, answer in found.items()})
    return Resolved(records, sum(count > 1 for count in issuers.values()), grounds)


def of_bearer(standing: Standing, bearer: Bearer, *, alone: bool) -> tuple[list[Decision], PatientFacts]:
    """Return the decisions that count for a patient, and what is known of them.

    Args:
        standing: all that stands.
        bearer: the patient.
        alone: whether nobody else here has the same id from another issuer.
    """
    concerning = [
        decision
        for decision in standing.decisions.get(bearer.patient_id, ())
        if decision.patient.issuer == bearer.issuer
        or (not decision.patient.issuer and (alone or decision.word == "objection"))
        or (not bearer.issuer and decision.word == "objection")
    ]
    return concerning, _facts(standing, bearer)


def _facts(standing: Standing, bearer: Bearer) -> PatientFacts:
    """Return what is known of a patient; in doubt about the issuer, what makes them youngest, for that protects most."""
    known = standing.facts.get(bearer.patient_id, {})
    if (exact := known.get(bearer.issuer)) is not None:
        return exact
    possible = [facts for issuer, facts in known.items() if not issuer or not bearer.issuer]
    births = [facts.birth_date for facts in possible if facts.birth_date is not None]
    deaths = [facts.deceased for facts in possible if facts.deceased is not None]
    return PatientFacts(max(births, default=None), min(deaths, default=None))
