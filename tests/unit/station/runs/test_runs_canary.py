"""The canary in a station's run: what leaves scored, what stays, what ends a scoring, and what is left of it."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary_kit import Remembers, canary_manifest, make_kit
from catalogue_log import patient
from cohort_files import KEY
from egress_documents import weights
from safetensors.numpy import load
from station_documents import as_yaml
from station_kit import StationKit, honest
from station_simulators import Answered, TrainEndsError

from policies.documents import canonical_json
from policies.errors import UnavailableError
from policies.splits import Split
from policies.wire.instructions import Kind, StationReply, encode
from station.audit.log import StoredEvent
from station.runs.places import run_id
from station.runs.train_logs import TrainLogs
from station.sandbox.spec import ExitClass, TrainFailure, TrainRequest
from station.settings import CeilingSettings, HospitalSettings

Make = Callable[..., StationKit]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    kits: list[StationKit] = []

    def made(**changes: Any) -> StationKit:
        kits.append(make_kit(tmp_path, monkeypatch, **changes))
        return kits[-1]

    yield made
    for kit in kits:
        kit.close()


def asked(
    kit: StationKit, train: Any, envelope: bytes, round_: int = 1, kind: Kind = Kind.TRAIN
) -> StationReply:
    kit.sandbox.train = train
    return kit.message(envelope, kind, round_)[0]


def scored(kit: StationKit) -> list[StoredEvent]:
    return [
        item for item in kit.audit.events(limit=100_000) if item.record.event.value == "membership-scored"
    ]


def test_an_update_that_tells_nothing_leaves_as_it_was(make: Make) -> None:
    kit = make()
    train = Remembers()
    kit.sandbox.train = train
    reply, arrays = kit.message(kit.ready())
    assert (reply.status.value, reply.code) == ("released", None)
    assert arrays is not None
    (_, before), (_, after) = train.seen
    inbound, update = load(before), load(after)
    assert all((inbound[name] == values).all() for name, values in weights().items())
    # What is scored is what leaves: clipped, rounded, and without what the policy keeps here.
    assert "norm.num_batches_tracked" not in load(arrays)
    for name, values in inbound.items():
        assert np.allclose(update[name], values + load(arrays).get(name, 0), atol=1e-6)
    (event,) = scored(kit)
    assert event.record.numbers["patients_each_side"] >= 10
    assert event.record.numbers["gain_auc_permille"] == 500
    assert 50 < event.record.numbers["loss_auc_permille"] < 950


def test_an_update_that_tells_its_members_stays(make: Make) -> None:
    kit = make()
    envelope = kit.ready()
    reply = asked(kit, Remembers(gain=10.0), envelope)
    assert (reply.status.value, reply.code) == ("withheld", "RELEASE_MEMBERSHIP")
    assert scored(kit)[-1].record.numbers["gain_auc_permille"] == 1000
    assert kit.releases.list() == []
    assert not (kit.paths.work / run_id(kit.runs.list()[0]) / "release.safetensors").exists()
    # It counts as a failed message, and the next one may do better.
    assert asked(kit, Remembers(), envelope).status.value == "released"


def test_the_score_is_in_the_audit_and_in_nothing_that_leaves(make: Make) -> None:
    kit = make()
    envelope = kit.ready()
    replies = [asked(kit, Remembers(gain=0.2), envelope), asked(kit, Remembers(gain=10.0), envelope, 2)]
    numbers = [event.record.numbers for event in scored(kit)]
    assert numbers[0]["gain_auc_permille"] == numbers[1]["gain_auc_permille"] == 1000
    for reply in replies:
        assert set(json.loads(encode(reply))) <= set(StationReply.model_fields)
        assert reply.metrics == {} or set(reply.metrics) == {"loss"}
    ledger = b"".join(link.body for link in _ledger(kit))
    assert b"auc" not in ledger
    assert b"permille" not in ledger
    run = kit.runs.list()[0]
    assert "permille" not in repr(run)


def _ledger(kit: StationKit) -> list[Any]:
    from station.egress.records.tables import LedgerRow

    with kit.database.read() as session:
        return list(session.query(LedgerRow))


def test_the_cohort_is_blind_and_gone_afterwards(make: Make) -> None:
    kit = make()
    train = Remembers()
    envelope = kit.ready()
    warm = Path(kit.sandbox.started[0].spec.cohort_dir)
    listed = json.loads((warm / "datalist.json").read_bytes())
    names = {
        case[key]
        for split in ("training", "validation")
        for case in listed[split]
        for key in ("case", "patient")
    }
    caught: list[str] = []

    def look(request: TrainRequest, cohort: Path) -> Answered:
        if request.kind == "score":
            caught.append(
                "".join(str(path) for path in cohort.rglob("*")) + (cohort / "datalist.json").read_text()
            )
            assert cohort != warm
        return train(request, cohort)

    assert asked(kit, look, envelope).status.value == "released"
    assert len(caught) == 2
    assert caught[0] == caught[1]
    assert not [name for name in names if name in caught[0]]
    scoring = kit.sandbox.started[1]
    assert scoring.spec.run_id != kit.sandbox.started[0].spec.run_id
    assert scoring.killed.is_set()
    assert scoring.spec.image_config_digest == kit.sandbox.started[0].spec.image_config_digest
    assert not Path(scoring.spec.cohort_dir).exists()
    assert not list(kit.paths.work.rglob("scored*"))
    assert kit.sandbox.started[0].alive, "the one that trained stays warm beside it"


def test_each_round_is_scored_in_a_container_of_its_own_and_evaluations_are_not(make: Make) -> None:
    kit = make()
    envelope = kit.ready()
    train = Remembers()
    for round_ in (1, 2):
        assert asked(kit, train, envelope, round_).status.value == "released"
        assert asked(kit, train, envelope, round_, Kind.EVALUATE).status.value == "released"
    assert len(kit.sandbox.started) == 3
    assert len({session.spec.run_id for session in kit.sandbox.started}) == 3
    assert [[one.kind for one in session.asked] for session in kit.sandbox.started] == [
        ["train", "evaluate", "train", "evaluate"],
        ["score", "score"],
        ["score", "score"],
    ]
    # Who asks again gets what was recorded, and nothing is scored for it.
    assert asked(kit, train, envelope, 1).status.value == "released"
    assert len(kit.sandbox.started) == 3


def test_without_a_limit_nothing_is_scored(make: Make) -> None:
    kit = make(limit=None)
    assert asked(kit, Remembers(gain=10.0), kit.ready()).status.value == "released"
    assert len(kit.sandbox.started) == 1
    assert scored(kit) == []


ANSWERS: Mapping[str, Callable[[list[float]], Any]] = {
    "too few": lambda losses: losses[:-1],
    "too many": lambda losses: [*losses, 1.0],
    "nan": lambda losses: [float("nan"), *losses[1:]],
    "words": lambda losses: ["low", *losses[1:]],
    "constant": lambda losses: [0.5] * len(losses),
    "by place": lambda losses: [value + at for at, value in enumerate(losses)],
    "nothing": lambda _losses: [],
}


def test_an_answer_that_is_none_withholds(make: Make) -> None:
    patient = HospitalSettings(operator_approval="never", consent_max_age_days=30, failed_messages=100)
    kit = make(hospital=patient)
    envelope = kit.ready()
    for name, answer in ANSWERS.items():
        reply = asked(kit, Remembers(answer=answer), envelope)
        assert (reply.status.value, reply.code) == ("withheld", "RELEASE_UNSCORED"), name
    # One that declares scores and answers something else.
    reply = asked(kit, honest, envelope)
    assert (reply.status.value, reply.code) == ("withheld", "RELEASE_UNSCORED")
    assert kit.releases.list() == []
    assert len({event.record.detail for event in scored(kit)}) == 4
    assert asked(kit, Remembers(), envelope).status.value == "released"


def failing(times: int, exit_class: ExitClass, train: Remembers) -> Callable[[TrainRequest, Path], Answered]:
    left = [times]

    def fail(request: TrainRequest, cohort: Path) -> Answered:
        if request.kind == "score" and left[0] > 0:
            left[0] -= 1
            raise TrainEndsError(TrainFailure(exit_class, detail="it failed", session_ended=False))
        return train(request, cohort)

    return fail


def test_one_failed_container_costs_nothing_and_two_withhold(make: Make) -> None:
    kit = make()
    envelope = kit.ready()
    assert asked(kit, failing(1, ExitClass.CRASH, Remembers()), envelope).status.value == "released"
    assert len(kit.sandbox.started) == 3
    reply = asked(kit, failing(2, ExitClass.CRASH, Remembers()), envelope, 2)
    assert (reply.status.value, reply.code) == ("withheld", "RELEASE_UNSCORED")
    assert "it failed" in scored(kit)[-1].record.detail
    assert "what the train printed" in kit.warm.logs(envelope_digest(envelope))


def test_one_that_takes_too_long_is_not_asked_again(make: Make) -> None:
    kit = make()
    reply = asked(kit, failing(1, ExitClass.TIMEOUT, Remembers()), kit.ready())
    assert (reply.status.value, reply.code) == ("withheld", "RELEASE_UNSCORED")
    assert len(kit.sandbox.started) == 2


def test_failing_to_score_ends_a_run_like_any_failure(make: Make) -> None:
    """Which messages fail is a signal that a train could send: as many as the hospital allows, and no more."""
    kit = make()
    envelope = kit.ready()
    codes = [asked(kit, failing(99, ExitClass.CRASH, Remembers()), envelope).code for _ in range(3)]
    assert codes == ["RELEASE_UNSCORED"] * 3
    assert kit.state(envelope) == "failed"


def envelope_digest(envelope: bytes) -> str:
    from station_kit import order_digest

    return order_digest(envelope)


def test_an_engine_that_does_not_answer_is_nobodys_failure(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = make()
    envelope = kit.ready()
    start = kit.sandbox.start

    def away(_spec: Any) -> Any:
        raise UnavailableError("the container engine does not answer")

    monkeypatch.setattr(kit.sandbox, "start", away)
    reply = asked(kit, Remembers(), envelope)
    assert (reply.status.value, reply.code) == ("failed", "ENGINE_UNAVAILABLE")
    run = kit.runs.list()[0]
    assert run.failures == 0
    assert kit.releases.list() == []
    monkeypatch.setattr(kit.sandbox, "start", start)
    assert asked(kit, Remembers(), envelope).status.value == "released"


def test_where_two_do_not_fit_one_follows_the_other(make: Make) -> None:
    kit = make(ceilings=CeilingSettings(memory_mib=400, cpus=2.0, runs_at_once=2))
    envelope = kit.ready()
    at_work: list[int] = []

    train = Remembers()

    def count(request: TrainRequest, cohort: Path) -> Answered:
        at_work.append(len(kit.sandbox.running))
        return train(request, cohort)

    for round_ in (1, 2):
        assert asked(kit, count, envelope, round_).status.value == "released"
    assert at_work == [1] * 6
    assert [session.spec.beside for session in kit.sandbox.started] == [None] * 4
    assert kit.clock() is not None


def test_run_hours_pass_while_it_scores_also_where_the_other_has_ended(make: Make) -> None:
    kit = make(ceilings=CeilingSettings(memory_mib=400, cpus=2.0, runs_at_once=2))
    envelope = kit.ready()
    train = Remembers()

    def slow(request: TrainRequest, cohort: Path) -> Answered:
        if request.kind == "score":
            kit.clock.forward(minutes=5)
        return train(request, cohort)

    clock, digest = kit.containers.clock, envelope_digest(envelope)
    left = clock.left_s(digest, 2.0)
    kit.policy_is_fresh()
    asked(kit, slow, envelope)
    assert left - clock.left_s(digest, 2.0) >= 600
    spent = clock.left_s(digest, 2.0)
    kit.clock.forward(minutes=5)
    assert clock.left_s(digest, 2.0) == spent, "no container runs, so nothing counts"


def interrupted(kit: StationKit, envelope: bytes, act: Callable[[], object]) -> list[StationReply]:
    """Do something while an update is being scored; the message must end by it, and not by its own time."""
    replies: list[StationReply] = []
    entered, go_on = threading.Event(), threading.Event()
    train = Remembers()

    def waits(request: TrainRequest, cohort: Path) -> Answered:
        if request.kind == "score":
            entered.set()
            go_on.wait(600)
        return train(request, cohort)

    kit.sandbox.train = waits
    message = threading.Thread(
        target=lambda: replies.append(kit.message(envelope, deadline_s=600)[0]), daemon=True
    )
    actor = threading.Thread(target=act, daemon=True)
    try:
        message.start()
        assert entered.wait(60)
        assert list(kit.paths.cohorts.rglob("blind/*/datalist.json"))
        actor.start()
        for thread in (actor, message):
            thread.join(60)
            assert not thread.is_alive(), "the scoring goes on"
    finally:
        go_on.set()
    return replies


@pytest.mark.parametrize(("word", "code"), [("stop", "RUN_STOPPED"), ("hold", "HOSPITAL_HELD")])
def test_the_operators_word_ends_a_scoring(make: Make, word: str, code: str) -> None:
    kit = make()
    envelope = kit.ready()
    (reply,) = interrupted(kit, envelope, lambda: kit.decide(envelope, word))
    assert reply.code == code
    assert kit.releases.list() == []
    assert not kit.sandbox.running
    assert not list(kit.paths.cohorts.iterdir())


def test_a_log_that_another_thread_is_writing_is_no_fault_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever ends a scoring writes the log of the train while the message writes the scoring's.
    kept = [tmp_path / f"{number}.log" for number in range(3)]
    for number, path in enumerate(kept):
        path.write_text("")
        os.utime(path, (number, number))
    listed = [tmp_path / ".0.log.half-written", *kept, tmp_path / "newest.log"]
    monkeypatch.setattr(Path, "iterdir", lambda _folder: iter(listed))
    TrainLogs(tmp_path, kept=3).keep("newest", "")
    assert [path.exists() for path in kept] == [False, True, True]


def test_a_withdrawal_ends_a_scoring_and_is_no_failure_of_the_train(make: Make) -> None:
    kit = make()
    envelope = kit.ready()

    def withdraw() -> None:
        trained = next(at for at in range(1, 50) if KEY.split_of(patient(at)) is Split.TRAINING)
        kit.intake.consent(p0="consent", **{f"p{trained}": "objection"})
        kit.catalogue.sync()
        kit.warm.withdraw(kit.gatekeeper.consenting)

    (reply,) = interrupted(kit, envelope, withdraw)
    assert reply.code == "CONSENT_WITHDRAWN"
    assert kit.runs.list()[0].failures == 0
    assert kit.releases.list() == []
    # The next message freezes the cohort again, without them, and is scored.
    assert asked(kit, Remembers(), envelope).status.value == "released"


def test_a_station_that_stops_leaves_no_container_and_no_cohort(make: Make) -> None:
    kit = make()
    interrupted(kit, kit.ready(), kit.warm.close)
    assert not kit.sandbox.running
    assert not list(kit.paths.cohorts.rglob("datalist.json"))


def test_a_station_that_is_killed_while_it_scores_wipes_the_blind_cohort_at_its_next_start(
    make: Make,
) -> None:
    kit = make()
    kit.ready()
    left = next(kit.paths.cohorts.iterdir()) / "blind" / "0123"
    left.mkdir(parents=True)
    (left / "datalist.json").write_text("{}")
    kit.again()
    assert not list(kit.paths.cohorts.rglob("datalist.json"))


def test_too_few_patients_are_refused_before_a_container_starts(make: Make) -> None:
    kit = make(patients=24)
    reply = kit.prepare(kit.order())
    assert (reply.status.value, reply.code) == ("refused", "DATA_TOO_FEW_PATIENTS")
    assert kit.sandbox.started == []


def test_a_train_that_does_not_answer_score_is_not_admitted(make: Make) -> None:
    manifest = as_yaml(canary_manifest())
    del manifest["outputs"]["membership_scores"]
    kit = make(manifest=canonical_json(manifest))
    reply = kit.prepare(kit.order())
    assert (reply.status.value, reply.code) == ("refused", "RELEASE_UNSCORED")
    assert kit.sandbox.started == []
