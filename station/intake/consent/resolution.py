"""From decisions by the hospital's ids to the state by pseudonym that compute gets. Pure.

Whose word is it? A decision that names an issuer is that issuer's patient's. One that names none is the patient's with that id, where
one issuer only gave it out. Doubt protects: where it could be several patients', a consent is nobody's and an objection
everybody's; an objection that names an issuer counts also for a patient whose images came without one.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from station.handover import ConsentRecord
from station.intake.consent.decisions import RESEARCH, Decision, PatientFacts, PatientId, Purpose
from station.intake.consent.effective import Answer, Ground, answers


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
    """Return the state of the patients whose images are here; one known under several ids (merged) is one patient."""
    by_pseudonym: defaultdict[str, list[Bearer]] = defaultdict(list)
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for bearer in bearers:
        by_pseudonym[bearer.pseudonym].append(bearer)
        owners[bearer.patient_id].add(bearer.pseudonym)
    records: list[ConsentRecord] = []
    grounds: Counter[Ground] = Counter()
    for pseudonym, ids in sorted(by_pseudonym.items()):
        shared = {bearer.patient_id for bearer in ids if len(owners[bearer.patient_id]) > 1}
        concerning, facts = of_patient(standing, ids, shared)
        if not concerning:
            continue
        stated = {decision.purpose for decision in concerning}
        holding = answers(concerning, facts, today, registry_apart=standing.registry_apart)
        told = {
            purpose: holding[purpose]
            for purpose in RESEARCH
            if purpose in stated or holding[purpose].word == "objection"
        }
        records.extend(_record(pseudonym, purpose, answer, today) for purpose, answer in sorted(told.items()))
        grounds.update({answer.ground for answer in told.values()})
    return Resolved(tuple(records), sum(len(found) > 1 for found in owners.values()), grounds)


def of_patient(
    standing: Standing, ids: Collection[Bearer], shared: Collection[str]
) -> tuple[list[Decision], PatientFacts]:
    """Return the decisions that count for a patient, and what is known of them.

    Args:
        standing: all that stands.
        ids: the patient, under each of their ids.
        shared: those of the ids that another issuer has given to somebody else here.
    """
    concerning = [
        decision
        for bearer in ids
        for decision in standing.decisions.get(bearer.patient_id, ())
        if decision.patient.issuer == bearer.issuer
        or (not decision.patient.issuer and bearer.patient_id not in shared)
        or (decision.word == "objection" and not (decision.patient.issuer and bearer.issuer))
    ]
    known = [_facts(standing, bearer) for bearer in ids]
    return concerning, _youngest(known)


def _record(pseudonym: str, purpose: Purpose, answer: Answer, today: date) -> ConsentRecord:
    made = (answer.made or today).isoformat()
    return ConsentRecord(patient=pseudonym, purpose=purpose.value, decision=answer.word, date=made)


def _facts(standing: Standing, bearer: Bearer) -> PatientFacts:
    """Return what is known of a patient; in doubt about the issuer, what makes them youngest, for that protects most."""
    known = standing.facts.get(bearer.patient_id, {})
    if (exact := known.get(bearer.issuer)) is not None:
        return exact
    return _youngest([facts for issuer, facts in known.items() if not issuer or not bearer.issuer])


def _youngest(known: Collection[PatientFacts]) -> PatientFacts:
    births = [facts.birth_date for facts in known if facts.birth_date is not None]
    deaths = [facts.deceased for facts in known if facts.deceased is not None]
    return PatientFacts(max(births, default=None), min(deaths, default=None))
