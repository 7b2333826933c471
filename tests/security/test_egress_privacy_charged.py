"""Attack: get a number out that nobody was charged for.

A train leaves an optional figure out and states it in another round, hides a table among the permitted ones, answers so that a rule withholds
after the noise was drawn, or hopes for a station whose ledger is not asked. Every number that leaves has noise and was charged before
it; what is charged is written in the documents and does not depend on what the train states.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egress_documents import METRIC, ORDER, Bench, head, manifest, moved, weights
from map_documents import BY_SEX, ENDS, MAP_ROWS, SHARES, map_manifest, row
from privacy_kit import MULTIPLIER, Books, noisy, noisy_policy
from roster_kit import roster
from station_kit import StationKit, TrainEndsError, honest

from policies.privacy import Query, Spent, cost_of
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from policies.wire.instructions import Status
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld
from station.runs.charging import unpaid_in
from station.sandbox.spec import ExitClass, TrainFailure
from station.settings import HospitalSettings

OPTIONAL = {**METRIC, "key": "extra", "required": False}
UNPERMITTED = {**METRIC, "key": "unpermitted", "required": False}
EVALUATED = {**METRIC, "key": "auc", "stage": "evaluate", "split": "validation", "maximum": 1.0}
# Patients, and ten images of each.
COUNTS = CohortCounts({Split.TRAINING: SplitCounts(70, 700), Split.VALIDATION: SplitCounts(20, 200)})
SUM = {
    "key": "nodules_sum",
    "column": "nodules",
    "measure": "sum",
    "by": "sex",
    "decimals": 1,
    "split": "training",
}
MEDIAN = {
    "key": "median_share", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5], "split": "training",
    "probabilities": [0.5],
}  # fmt: skip


@dataclass
class Till:
    """Who is asked to charge patients: takes note, and looks that nothing was drawn yet."""

    out: Path
    refuses: bool = False
    charged: list[tuple[str, ...]] = field(default_factory=list)

    def charge(self, queries: tuple[Query, ...]) -> Refused | None:
        assert not self.out.exists(), "something was drawn before it was charged"
        if self.refuses:
            return Refused.because(RefusalCode.BUDGET_PRIVACY)
        self.charged.append(tuple(map(str, queries)))
        return None


class Station(Bench):
    """A guard with noise; the train declares an optional figure, and one that the policy does not permit."""

    def __init__(self, folder: Path, **release: Any) -> None:
        super().__init__(folder)
        self.till = Till(self.out)
        self.train = manifest(metrics=[METRIC, OPTIONAL, UNPERMITTED, EVALUATED])
        self.rules = noisy_policy(**{"metrics": ["loss", "extra", "auc"], "queries": 200, **release})

    def ask(self, stage: Any = "train", tensors: dict[str, Any] | None = None, **metrics: Any) -> Any:
        judge = Guard(self.contract(self.train, self.rules), COUNTS, None, self.till.charge)
        arrays = self.answer(tensors) if stage == "train" else None
        return judge.check(self.request(stage), head(metrics=metrics), arrays)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def left(outcome: Any) -> set[str]:
    """What left, by the names that queries have."""
    assert isinstance(outcome, Release), outcome
    arrays = {"update"} if outcome.arrays is not None else set()
    return arrays | {f"metric:{key}" for key in outcome.metrics} | set(outcome.tables)


@pytest.mark.parametrize("stated", [{"loss": 0.5}, {"loss": 0.5, "extra": 1.0}], ids=["left out", "stated"])
def test_an_optional_figure_is_charged_and_leaves_whether_it_is_stated_or_not(
    station: Station, stated: dict[str, float]
) -> None:
    everything = ("update", "metric:loss", "metric:extra")
    assert left(station.ask(**stated)) == set(everything)
    assert station.till.charged == [everything]


def test_what_is_declared_and_not_permitted_neither_leaves_nor_costs(station: Station) -> None:
    outcome = station.ask(loss=0.5, extra=1.0, unpermitted=99.0)
    assert "metric:unpermitted" not in left(outcome)
    assert "metric:unpermitted" not in station.till.charged[0]


def test_each_stage_charges_its_own_figures(station: Station) -> None:
    assert left(station.ask("evaluate", auc=0.7)) == {"metric:auc"}
    assert station.till.charged == [("metric:auc",)]


def test_every_kind_of_table_is_charged(tmp_path: Path) -> None:
    train = map_manifest(rows=MAP_ROWS, aggregates=[SHARES, BY_SEX, ENDS, SUM, MEDIAN])
    keys = ["lung_shares", "nodules_by_sex", "ends", "nodules_sum", "median_share"]
    rules = noisy_policy(
        "analysis", 400, metrics=[], tables=keys, trust_statement=None, error_codes=["NO_LUNG"]
    )
    till = Till(tmp_path / "out")
    tally = Tally(train, roster(training=70, validation=20))
    for number in range(70):
        tally.answered(f"training{number}", row(0.3, nodules=number % 7, sex="F" if number else "M"))
    judge = Guard(ReleaseContract.build(train, rules, None), COUNTS, None, till.charge)
    assert left(judge.count(GuardRequest(ORDER, 1, "analyse", None, tmp_path / "out"), tally)) == set(keys)
    [charged] = till.charged
    assert set(charged) == {
        "count:lung_shares", "count:nodules_by_sex", "count:ends", "quantiles:median_share",
        "sum-patients:nodules_sum", "sum:nodules_sum", "sum-of-squares:nodules_sum",
    }  # fmt: skip
    privacy = rules.release.differential_privacy
    assert privacy is not None
    assert cost_of(privacy, ReleaseContract.build(train, rules, None).queries["analyse"]) == Spent.of(
        MULTIPLIER, 7
    )


BAD: dict[str, dict[str, Any]] = {
    "an undeclared figure": {"loss": 0.5, "hidden": 1.0},
    "a figure out of its range": {"loss": 1000.0},
    "a required figure missing": {"extra": 1.0},
    "a text for a figure": {"loss": "0.5"},
    "not a number among the weights": {"loss": 0.5, "tensors": "nan"},
    "a tensor too many": {"loss": 0.5, "tensors": "extra"},
    "a weight beyond the bound": {"loss": 0.5, "tensors": "huge"},
}


def tensors(how: str | None) -> dict[str, Any] | None:
    if how is None:
        return None
    made = moved(weights())
    if how == "extra":
        return {**made, "more": np.ones(3, np.float32)}
    made["layer.weight"] = np.full((4, 3), np.nan if how == "nan" else 1e30, np.float32)
    return made


@pytest.mark.parametrize("reply", BAD)
def test_what_a_rule_withholds_was_neither_charged_nor_drawn(station: Station, reply: str) -> None:
    fields = dict(BAD[reply])
    outcome = station.ask(tensors=tensors(fields.pop("tensors", None)), **fields)
    assert isinstance(outcome, Withheld)
    assert station.till.charged == []
    assert not station.out.exists()


def test_what_could_be_too_large_is_withheld_before_it_is_paid_for(tmp_path: Path) -> None:
    (tmp_path / "fits").mkdir()
    whole = Station(tmp_path / "fits").ask(loss=0.5)
    # Room for the update, and none for the numbers beside it.
    station = Station(tmp_path, maximum_bytes=whole.arrays.size)
    outcome = station.ask(loss=0.5)
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_TOO_LARGE
    assert station.till.charged == []


def test_nothing_is_drawn_for_whom_nobody_can_charge(station: Station) -> None:
    station.till.refuses = True
    outcome = station.ask(loss=0.5)
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.BUDGET_PRIVACY
    assert not station.out.exists()


def test_a_guard_without_a_ledger_lets_nothing_leave(station: Station) -> None:
    judge = Guard(station.contract(station.train, station.rules), COUNTS)
    outcome = judge.check(station.request(), head(metrics={"loss": 0.5}), station.answer())
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.BUDGET_PRIVACY


def test_no_number_leaves_as_it_was_stated(station: Station) -> None:
    """The bare minimum of each range is stated; with noise of fifty ranges it does not come out as stated twenty times."""
    told = {station.ask("evaluate", auc=0.5).metrics["auc"] for _ in range(20)}
    assert told != {0.5}
    assert len(station.till.charged) == 20


def test_buffers_stay_and_examples_are_patients(station: Station) -> None:
    outcome = station.ask(loss=0.5)
    assert isinstance(outcome, Release)
    assert outcome.num_examples == 70, (
        "patients, not the seven hundred images that one train could make of one patient"
    )
    contract = station.contract(station.train, station.rules)
    assert contract.tensors is not None
    kept = {rule.reply.name for rule in contract.tensors if rule.released is None}
    assert kept == {"norm.running_mean", "norm.num_batches_tracked"}


def crashes(_request: Any, _cohort: Path) -> Any:
    raise TrainEndsError(TrainFailure(ExitClass.CRASH))


def runs_out_of_memory(_request: Any, _cohort: Path) -> Any:
    raise TrainEndsError(TrainFailure(ExitClass.OUT_OF_MEMORY))


def names_a_granted_error(_request: Any, _cohort: Path) -> Any:
    raise TrainEndsError(TrainFailure(ExitClass.DECLARED_ERROR, error_code="NO_LABELS"))


def states_too_much(request: Any, cohort: Path) -> Any:
    return {"loss": 1e9}, *honest(request, cohort)[1:]


def states_more(request: Any, cohort: Path) -> Any:
    return {"loss": 0.5, "hidden": 1.0}, *honest(request, cohort)[1:]


def test_how_a_train_fails_says_nothing(tmp_path: Path) -> None:
    """Noise does not cover that a message failed; which of forty codes it failed with would be five bits a time."""
    patient = HospitalSettings(operator_approval="never", consent_max_age_days=30, failed_messages=20)
    kit = StationKit.make(tmp_path, policy=noisy(6), hospital=patient)
    envelope = kit.ready()
    told, ways = set(), (crashes, runs_out_of_memory, names_a_granted_error, states_too_much, states_more)
    for attempt, train in enumerate(ways, 1):
        kit.sandbox.train = train
        reply, arrays = kit.message(envelope, attempt=attempt)
        told.add((reply.status, reply.code, arrays, reply.compute_s))
    assert told == {(Status.FAILED, RefusalCode.TRAIN_FAILED.value, None, 0.0)}
    codes = {code for item in kit.audit.events(limit=100_000) for code in item.record.codes}
    assert {"TRAIN_CRASHED", "TRAIN_OUT_OF_MEMORY", "RELEASE_METRIC_RANGE", "RELEASE_METRIC_EXTRA"} <= codes
    assert kit.privacy.draws() == [], "what failed cost nobody anything"
    kit.close()


def test_numbers_without_a_charge_are_not_recorded_whoever_made_them(tmp_path: Path) -> None:
    """As if the guard had a hole: a release that another ledger was asked for, brought to this station's records."""
    books = Books(tmp_path)
    release = books.answer(then=None)
    assert isinstance(release, Release)
    with books.records.database.read() as session:
        assert unpaid_in(session, books.rules, release) is None
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Books(tmp_path / "elsewhere")
    with elsewhere.records.database.read() as session:
        refused = unpaid_in(session, books.rules, release)
    assert refused is not None
    assert refused.code is RefusalCode.BUDGET_PRIVACY
    books.close()
    elsewhere.close()


def test_rows_that_a_program_writes_who_sees_everybody_make_no_private_table(tmp_path: Path) -> None:
    """One patient could change every row, so no noise of the size of one patient protects that patient."""
    train = map_manifest({"interface": "flower", "kind": "analysis"})
    rules = noisy_policy("analysis", 200, metrics=[], tables=["lung_shares"], trust_statement=None)
    till = Till(tmp_path / "out")
    judge = Guard(
        ReleaseContract.build(train, rules, None), COUNTS, roster(training=70, validation=20), till.charge
    )
    outcome = judge.check(GuardRequest(ORDER, 1, "analyse", None, tmp_path / "out"), head(metrics={}), None)
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_NOT_PERMITTED
    assert till.charged == []
