"""Each rule's answer for each station: yes, no, or not known from a profile; and whether enough stations could take part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from policies.board.simulation.assumptions import PatientBounds, Question, facts_for, patient_bounds
from policies.refusal_texts import text_of
from policies.refusals import Reason
from policies.rules.admission import explain
from policies.rules.cohort_rules import cohort_reasons
from policies.rules.hours import asks_operator
from policies.station_profile import StationProfile

Answer = Literal["yes", "no", "not known"]

_CONSENT: Final = "how old the consent register is, only the station knows"
_COUNTERS: Final = "what was used before, only the station knows"
_TRAIN: Final = "what the train asks for: give --train"
_ORDER: Final = "the widest order that the policy permits was assumed: give --order"
_BOARD: Final = "what the board published: give --repository"


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """One rule's answer.

    Attributes:
        answer: "no" holds whatever is not known; "yes" rests on known facts alone.
        reasons: refusal codes with what they mean, for "no".
        note: what is not known, or what the answer rests on.
    """

    rule: str
    answer: Answer
    reasons: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class StationAnswer:
    """What one station would say.

    Attributes:
        made: when its profile was made.
        could_run: no rule says no.
    """

    station: str
    made: str
    rules: tuple[RuleAnswer, ...]
    could_run: bool


@dataclass(frozen=True, slots=True)
class Simulation:
    """What all stations would say.

    Attributes:
        needed: how many stations a run takes.
        possible: at how many of those with a profile nothing refuses.
        silent: stations of the register without a profile, where an order may name them.
        verdict: whether `needed` could be reached, in words.
    """

    stations: tuple[StationAnswer, ...]
    needed: int
    possible: int
    silent: tuple[str, ...]
    verdict: str


def simulate(question: Question, profiles: Sequence[StationProfile]) -> Simulation:
    """Ask every station's rules.

    Raises:
        DocumentError: a profile has hours that are none.
    """
    registered = [station.name for station in question.register.stations] if question.register else []
    names = {profile.station for profile in profiles} & set(registered or [each.station for each in profiles])
    answers = tuple(
        answer_of(question, profile, names | {profile.station}) for profile in sorted(profiles, key=_name)
    )
    could = set(question.order.stations) if question.order else set(registered)
    silent = tuple(
        name
        for name in registered
        if name in could and name not in question.revoked_stations | {each.station for each in profiles}
    )
    needed = max(
        question.policy.runs.minimum_stations, question.order.minimum_stations if question.order else 1
    )
    possible = sum(each.could_run for each in answers)
    return Simulation(answers, needed, possible, silent, _verdict(needed, possible, silent, question))


def answer_of(question: Question, profile: StationProfile, stations: set[str]) -> StationAnswer:
    """Ask one station's rules."""
    facts = facts_for(question, profile, stations)
    bounds = patient_bounds(facts, profile)
    facts = replace(facts, patients=bounds.most)
    notes = _notes(question, profile, bounds)
    answers = [_withdrawals(question)]
    for verdict in explain(facts):
        # A rule that this module does not know of yet may rest on anything.
        note = notes.get(verdict.rule, lambda: "only the station knows")()
        answer: Answer = "no" if verdict.reasons else "not known" if note else "yes"
        answers.append(RuleAnswer(verdict.rule, answer, tuple(map(_reason, verdict.reasons)), note))
    answers += [_cohort(question), _engine(profile), *_anonymity(profile)]
    could_run = all(each.answer != "no" for each in answers)
    return StationAnswer(profile.station, f"{profile.made:%Y-%m-%d}", tuple(answers), could_run)


def _notes(
    question: Question, profile: StationProfile, bounds: PatientBounds
) -> dict[str, Callable[[], str]]:
    """Say for each rule what it rests on that is not known; an empty text where all of it is."""
    train = "" if question.manifest else _TRAIN
    board = "" if question.register else _BOARD
    return {
        "features": lambda: train,
        "time": lambda: "",
        "purpose": lambda: board,
        "register": lambda: board,
        "order": lambda: _COUNTERS if question.order else _ORDER,
        "manifest": lambda: train or ("" if question.order else _ORDER),
        "hospital": lambda: train or _gpus(question, profile),
        "consent": lambda: _CONSENT,
        "data": lambda: _patients(bounds, question.policy.data.minimum_patients),
        "budgets": lambda: _COUNTERS,
        "operator": lambda: (
            "the operator is asked" if asks_operator(profile.operator_approval, question.policy.kind) else ""
        ),
    }


def _gpus(question: Question, profile: StationProfile) -> str:
    asks = question.manifest is not None and question.manifest.resources.gpu != "none"
    silent = asks and question.policy.resources.gpu and profile.gpu_memory_mib is None
    return "whether it leases a GPU, its profile does not say" if silent else ""


def _patients(bounds: PatientBounds, minimum: int) -> str:
    told = f"{minimum} needed; the profile tells of about {bounds.told} in the collections that are open"
    if bounds.most is None:
        return f"{told}, and 0 also stands for too few to say"
    if bounds.most < minimum:
        return f"{told}: {bounds.most} at most when these counts were set"
    return f"{told}; how many of them agreed and have such images, only the station knows"


def _reason(reason: Reason) -> str:
    detail = f" ({reason.detail})" if reason.detail else ""
    return f"{reason.code}: {text_of(reason.code).means}{detail}"


def _withdrawals(question: Question) -> RuleAnswer:
    """What a station asks of the board's repository before any rule: do policy and requester still count?"""
    if question.withdrawn is None:
        return RuleAnswer("withdrawals", "not known", (), _BOARD)
    return RuleAnswer(
        "withdrawals", "no" if question.withdrawn else "yes", tuple(map(_reason, question.withdrawn)), ""
    )


def _cohort(question: Question) -> RuleAnswer:
    if question.manifest is None:
        return RuleAnswer("cohort", "not known", (), _TRAIN)
    reasons = cohort_reasons(question.policy, question.manifest)
    return RuleAnswer("cohort", "no" if reasons else "yes", tuple(map(_reason, reasons)), "")


def _engine(profile: StationProfile) -> RuleAnswer:
    engine = profile.engine
    if engine is None:
        return RuleAnswer(
            "engine", "not known", (), "its container engine did not answer when the profile was made"
        )
    if engine.unfit:
        cannot = f"The container engine cannot enforce {', '.join(engine.unfit)}: no train runs there."
        return RuleAnswer("engine", "no", (cannot,), "")
    return RuleAnswer("engine", "yes", (), "")


def _anonymity(profile: StationProfile) -> list[RuleAnswer]:
    if profile.minimum_k is None:
        return []
    note = f"the cohort must be {profile.minimum_k}-anonymous; only the station can count that"
    return [RuleAnswer("anonymity", "not known", (), note)]


def _verdict(needed: int, possible: int, silent: tuple[str, ...], question: Question) -> str:
    stations = f"{possible} of the {needed} stations that a run takes"
    if possible >= needed:
        return f"{possible} stations do not refuse, {needed} are needed: that could be reached."
    if question.register is None:
        return f"{stations}: not with these profiles alone."
    if possible + len(silent) >= needed:
        return f"{stations}; not known of {', '.join(silent)}: no profile was given."
    return f"{stations}: this cannot be reached with the stations of the register."


def _name(profile: StationProfile) -> str:
    return profile.station
