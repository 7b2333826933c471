"""Attack: a patient withdraws in the middle of a round; the round's answer, or the next one beside it, would tell of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue_log import patient
from cohort_files import KEY
from station_kit import PATIENTS, StationKit, honest, in_the_middle

from policies.splits import Split
from policies.wire.instructions import Kind, Status
from station.cohorts import load

VICTIM = next(number for number in PATIENTS if KEY.split_of(patient(number)) is Split.VALIDATION)
SMALL = {"release.minimum_cell_count": 2}


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    made = StationKit.make(tmp_path, SMALL)
    yield made
    made.close()


def withdraws(kit: StationKit) -> None:
    kit.intake.consent(**{f"p{VICTIM}": "objection"})
    kit.catalogue.sync()
    kit.warm.withdraw(kit.gatekeeper.consenting)


def test_nothing_computed_with_them_leaves(kit: StationKit) -> None:
    envelope = kit.ready()
    reply, _ = kit.message(envelope, Kind.EVALUATE)
    assert reply.metrics == {"auc": 0.75}, "a figure of all of the split"
    with in_the_middle(kit, envelope, Kind.TRAIN) as (busy, replies):
        withdraws(kit)
        busy.go_on.set()
    assert [(answer.status, answer.code) for answer, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert [(stored.round, stored.stage) for stored in kit.releases.list()] == [(1, "evaluate")]

    # The next round goes on without them, and its figure, of all but one, stays here.
    reply, _ = kit.message(envelope, Kind.TRAIN)
    assert reply.status is Status.RELEASED
    reply, _ = kit.message(envelope, Kind.EVALUATE, 2)
    assert (reply.status, reply.metrics) == (Status.RELEASED, {})
    cohorts = [load(Path(session.spec.cohort_dir)) for session in kit.sandbox.running]
    assert cohorts
    assert all(patient(VICTIM) not in cohort.patients for cohort in cohorts)


def test_a_withdrawal_while_the_answer_is_recorded(kit: StationKit) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: Path) -> object:
        kit.intake.consent(**{f"p{VICTIM}": "objection"})
        return honest(request, cohort)  # type: ignore[arg-type]

    kit.sandbox.train = train  # type: ignore[assignment]
    reply, _ = kit.message(envelope, Kind.EVALUATE)
    assert (reply.status, reply.code, reply.metrics) == (Status.WITHHELD, "CONSENT_WITHDRAWN", {})
    assert kit.releases.list() == []
