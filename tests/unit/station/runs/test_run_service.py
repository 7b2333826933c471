"""A run from its order to its end: real rules, records, cohorts and guard around a simulated container."""

import threading
from pathlib import Path

import pytest
from safetensors.numpy import load
from station_kit import (
    Busy,
    StationKit,
    TrainEndsError,
    honest,
    in_the_middle,
    instruction,
    order_digest,
    prepare,
    settings,
)

from policies.documents import digest_of
from policies.errors import NotFoundError
from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status, encode
from station.audit import verify
from station.egress.records.ledger import verify_ledger
from station.runs.states import Decision
from station.sandbox.spec import ExitClass, TrainFailure
from station.settings import CeilingSettings, HospitalSettings


def answered(
    kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1
) -> tuple[str, str | None]:
    reply, _ = kit.message(envelope, kind, round_)
    return reply.status.value, reply.code


def test_a_run_from_order_to_end(kit: StationKit) -> None:
    envelope = kit.ready()
    for round_ in (1, 2):
        reply, arrays = kit.message(envelope, Kind.TRAIN, round_)
        assert (reply.status, reply.code, reply.metrics) == (Status.RELEASED, None, {"loss": 0.5})
        # The delta from the inbound weights, never the weights; the counter does not leave.
        assert arrays is not None
        assert set(load(arrays)) == {"layer.weight", "layer.bias", "norm.running_mean"}
        assert kit.message(envelope, Kind.EVALUATE, round_)[0].metrics == {"auc": 0.75}
    reply, _ = kit.service.handle(instruction(envelope, Kind.FINISH), None)
    assert reply.status is Status.FINISHED
    assert kit.state(envelope) == "finished"
    assert not kit.sandbox.running
    assert len(kit.sandbox.started) == 1
    assert list(kit.paths.cohorts.iterdir()) == []
    assert isinstance(verify(kit.database), Permitted)
    assert isinstance(verify_ledger(kit.database), Permitted)


def test_everything_that_left_is_in_the_ledger_with_its_digest(kit: StationKit) -> None:
    envelope = kit.order()
    replies = [kit.service.handle(prepare(envelope), None)[0]]
    kit.prepare(envelope)
    replies += [kit.message(envelope)[0], kit.message(envelope)[0], kit.message(envelope, round_=9)[0]]
    replies.append(kit.service.handle(instruction(envelope, Kind.FINISH), None)[0])
    entries = [item.entry for item in kit.ledger.entries()]
    entered = {entry.digest: entry for entry in entries}
    for reply in replies:
        body = encode(reply)
        assert entered[digest_of(body)].size == len(body)
    releases = [entry for entry in entries if entry.type == "release"]
    assert [entry.repeated for entry in releases] == [False, True]
    assert len({entry.arrays_digest for entry in releases}) == 1


def test_data_is_used_only_after_the_audit_says_so(kit: StationKit) -> None:
    envelope = kit.ready()
    seen: list[list[str]] = []

    def train(request: object, cohort: object) -> object:
        seen.append(kit.events())
        return honest(request, cohort)

    kit.sandbox.train = train
    kit.message(envelope)
    assert seen[0][-1] == "data-used"
    order = [
        "order-seen",
        "order-admitted",
        "image-fetched",
        "cohort-frozen",
        "container-started",
        "data-used",
    ]
    places = [seen[0].index(event) for event in order]
    assert places == sorted(places)


def test_the_operator_is_asked_where_the_hospital_wants_that(tmp_path: Path) -> None:
    kit = StationKit.make(
        tmp_path, hospital=HospitalSettings(operator_approval="always", consent_max_age_days=30)
    )
    envelope = kit.order()
    reply = kit.prepare(envelope)
    assert (reply.status, reply.code) == (Status.PENDING, "OPERATOR_PENDING")
    assert kit.state(envelope) == "waiting-operator"
    assert answered(kit, envelope) == ("refused", "OPERATOR_PENDING")
    kit.decide(envelope, "approve")
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert answered(kit, envelope) == ("released", None)
    kit.close()


def test_a_hold_keeps_a_train_out_until_it_is_approved(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.decide(envelope, "hold")
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []
    for _ in range(2):
        assert kit.prepare(envelope).code == "HOSPITAL_HELD"
        assert answered(kit, envelope) == ("refused", "HOSPITAL_HELD")
    assert kit.state(envelope) == "held"
    kit.decide(envelope, "approve")
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert answered(kit, envelope) == ("released", None)


def test_a_hold_before_anything_ran_can_be_approved_after_being_asked_again(kit: StationKit) -> None:
    envelope = kit.order()
    kit.service.handle(prepare(envelope), None)
    kit.decide(envelope, "hold")
    assert kit.prepare(envelope).code == "HOSPITAL_HELD"
    kit.decide(envelope, "approve")
    assert kit.prepare(envelope).status is Status.ACCEPTED


def test_the_operator_can_hold_and_approve_what_is_refused_just_now(kit: StationKit) -> None:
    envelope = kit.order()
    kit.clock.forward(days=20)
    kit.policy_is_fresh()
    assert kit.prepare(envelope).code == "ORDER_EXPIRED"
    assert kit.state(envelope) == "refused"
    kit.decide(envelope, "approve")
    assert kit.state(envelope) == "refused"
    kit.decide(envelope, "hold")
    assert kit.state(envelope) == "held"


@pytest.mark.parametrize(("word", "code"), [("stop", "RUN_STOPPED"), ("hold", "HOSPITAL_HELD")])
def test_the_operators_word_ends_a_message_under_way(kit: StationKit, word: str, code: str) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (_, replies):
        kit.decide(envelope, word)
    assert [(reply.status, reply.code, arrays) for reply, arrays in replies] == [(Status.FAILED, code, None)]
    assert kit.state(envelope) == {"stop": "stopped", "hold": "held"}[word]
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.failures == 0, "the train did nothing wrong"
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []
    assert kit.releases.list() == []
    if word == "stop":
        assert answered(kit, envelope) == ("refused", "RUN_STOPPED")
        assert kit.prepare(envelope).code == "RUN_STOPPED"


def test_the_operators_word_is_on_record_before_the_container_ends(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.decide(envelope, "stop")
    events = kit.events()
    assert events.index("operator-stopped") < events.index("container-ended") < events.index("cohort-wiped")


def test_a_train_that_answers_as_the_operator_stops_it_releases_nothing(kit: StationKit) -> None:
    envelope = kit.ready()

    def train(request: object, cohort: object) -> object:
        # Recorded, and the container not killed yet: the narrowest moment.
        kit.runs.decide(order_digest(envelope), Decision.STOPPED, "an.operator")
        return honest(request, cohort)

    kit.sandbox.train = train
    assert answered(kit, envelope) == ("withheld", "RUN_STOPPED")
    assert kit.releases.list() == []
    assert not kit.sandbox.running


def test_a_message_that_waited_while_the_run_was_stopped_does_not_start_it_again(kit: StationKit) -> None:
    envelope = kit.ready()
    second: list[tuple[str, str | None]] = []
    with in_the_middle(kit, envelope):
        waiting = threading.Thread(
            target=lambda: second.append(answered(kit, envelope, Kind.TRAIN, 2)), daemon=True
        )
        waiting.start()
        kit.decide(envelope, "stop")
    waiting.join(120)
    assert second == [("refused", "RUN_STOPPED")]
    assert len(kit.sandbox.started) == 1
    assert not kit.sandbox.running


def test_prepare_is_answered_at_once_while_a_message_is_under_way(kit: StationKit) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (busy, _):
        reply, _ = kit.service.handle(prepare(envelope), None)
        assert reply.status is Status.PENDING
        busy.go_on.set()
    assert kit.prepare(envelope).status is Status.ACCEPTED


def test_a_train_that_fails_three_times_is_out(kit: StationKit) -> None:
    envelope = kit.ready()

    def crash(*_: object) -> object:
        raise TrainEndsError(TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"))

    kit.sandbox.train = crash
    for _ in range(3):
        assert answered(kit, envelope) == ("failed", "TRAIN_CRASHED")
    assert kit.state(envelope) == "failed"
    assert answered(kit, envelope) == ("refused", "TRAIN_FAILED_TOO_OFTEN")
    assert kit.prepare(envelope).code == "TRAIN_FAILED_TOO_OFTEN"
    assert not kit.sandbox.running
    assert list(kit.paths.cohorts.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TrainFailure(ExitClass.CRASH), "TRAIN_CRASHED"),
        (TrainFailure(ExitClass.OUT_OF_MEMORY), "TRAIN_OUT_OF_MEMORY"),
        (TrainFailure(ExitClass.PROTOCOL), "TRAIN_PROTOCOL"),
        (TrainFailure(ExitClass.TIMEOUT), "TRAIN_TIMEOUT"),
        (TrainFailure(ExitClass.DECLARED_ERROR, "NO_LABELS", session_ended=False), "NO_LABELS"),
        (TrainFailure(ExitClass.DECLARED_ERROR, "DIVERGED", session_ended=False), "TRAIN_DECLARED_ERROR"),
        (TrainFailure(ExitClass.DECLARED_ERROR, "PATIENT_12345", session_ended=False), "TRAIN_CRASHED"),
    ],
)
def test_what_is_told_of_a_failure(kit: StationKit, failure: TrainFailure, code: str) -> None:
    envelope = kit.ready()

    def fail(*_: object) -> object:
        raise TrainEndsError(failure)

    kit.sandbox.train = fail
    reply, arrays = kit.message(envelope)
    assert (reply.status, reply.code, reply.metrics, arrays) == (Status.FAILED, code, {}, None)
    kit.sandbox.train = honest
    assert answered(kit, envelope) == ("released", None)
    assert len(kit.sandbox.started) == (2 if failure.session_ended else 1)


def test_a_container_that_went_with_the_engine_is_no_failure_of_the_train(kit: StationKit) -> None:
    envelope = kit.ready()

    def taken(*_: object) -> object:
        raise TrainEndsError(TrainFailure(ExitClass.TAKEN_AWAY, detail="the launcher or the engine is away"))

    kit.sandbox.train = taken
    for _ in range(5):
        assert answered(kit, envelope) == ("failed", "ENGINE_UNAVAILABLE")
    kit.sandbox.train = honest
    assert answered(kit, envelope) == ("released", None)


def test_a_withheld_answer_counts_as_a_failure(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.train = lambda *_: ({"loss": 0.5, "extra": 1.0}, {}, None)
    for _ in range(3):
        assert answered(kit, envelope)[0] == "withheld"
    assert kit.state(envelope) == "failed"
    assert kit.releases.list() == []
    assert list(kit.paths.work.iterdir()) == []


def test_a_train_that_never_starts_is_told_and_counted(kit: StationKit) -> None:
    kit.sandbox.start_failures = 3
    envelope = kit.order()
    assert [kit.prepare(envelope).code for _ in range(4)] == [
        "TRAIN_CRASHED",
        "TRAIN_CRASHED",
        "TRAIN_FAILED_TOO_OFTEN",
        "TRAIN_FAILED_TOO_OFTEN",
    ]
    assert kit.state(envelope) == "failed"
    assert list(kit.paths.cohorts.iterdir()) == []
    assert list(kit.paths.work.iterdir()) == []


def test_a_train_whose_restarts_fail_leaves_nothing_behind(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.running[0].stop()
    kit.sandbox.start_failures = 3
    assert [answered(kit, envelope)[1] for _ in range(4)] == [
        *["TRAIN_CRASHED"] * 3,
        "TRAIN_FAILED_TOO_OFTEN",
    ]
    assert list(kit.paths.cohorts.iterdir()) == []
    assert not kit.warm.has(order_digest(envelope))


def test_a_container_that_died_is_started_again_for_the_next_message(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.running[0].stop()
    assert answered(kit, envelope) == ("released", None)
    assert len(kit.sandbox.started) == 2
    assert kit.events().count("cohort-frozen") == 1


def test_what_the_preparation_found_is_told_once_and_then_looked_at_again(kit: StationKit) -> None:
    kit.launcher.away = True
    envelope = kit.order()
    assert kit.prepare(envelope).code == "ENGINE_UNAVAILABLE"
    kit.launcher.away = False
    assert kit.prepare(envelope).status is Status.ACCEPTED


def test_the_network_may_come_back_while_it_prepares(kit: StationKit) -> None:
    envelope = kit.order()
    kit.shelf.away = True
    assert kit.service.handle(prepare(envelope), None)[0].status is Status.PENDING
    kit.shelf.away = False
    assert kit.prepare(envelope).status is Status.ACCEPTED


def test_a_message_without_the_network_fails_and_can_be_repeated(kit: StationKit) -> None:
    envelope = kit.ready()
    assert answered(kit, envelope) == ("released", None)
    kit.shelf.away = True
    second = kit.shelf.put(kit.weights(2))
    reply, _ = kit.message(envelope, round_=2, weights=second)
    assert (reply.status, reply.code) == (Status.FAILED, "NETWORK_UNAVAILABLE")
    kit.shelf.away = False
    assert kit.message(envelope, round_=2, weights=second)[0].status is Status.RELEASED


def test_no_more_runs_at_once_than_the_hospital_wants(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, ceilings=CeilingSettings(memory_mib=1024, cpus=2.0, runs_at_once=1))
    first, second = kit.ready(), kit.order()
    assert kit.prepare(second).code == "RESOURCES_BUSY"
    assert answered(kit, first) == ("released", None)
    kit.service.handle(instruction(first, Kind.FINISH), None)
    assert kit.prepare(second).status is Status.ACCEPTED
    kit.close()


def test_an_order_that_nobody_carries_on_keeps_no_other_out(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, ceilings=CeilingSettings(memory_mib=1024, cpus=2.0, runs_at_once=1))
    first, second = kit.ready(), kit.order()
    kit.service.run_over(order_digest(first))
    kit.until(lambda: kit.state(first) == "preparing")
    assert kit.prepare(second).status is Status.ACCEPTED
    kit.close()


def test_two_orders_at_once_do_not_both_take_the_policys_last_run(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"runs.runs": 1, "runs.releases": 40})
    envelopes = [kit.order(), kit.order()]
    together = threading.Barrier(2)

    def ask(envelope: bytes) -> None:
        together.wait(120)
        kit.service.handle(prepare(envelope), None)

    threads = [threading.Thread(target=ask, args=(envelope,)) for envelope in envelopes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(kit.prepare(envelope).code or "" for envelope in envelopes) == ["", "BUDGET_RUNS"]
    kit.close()


def test_an_order_gets_the_same_container_name_and_only_its_ceilings(kit: StationKit) -> None:
    kit.ready()
    spec = kit.sandbox.started[0].spec
    assert spec.run_id.startswith("run-")
    assert (spec.memory_bytes, spec.cpus) == (256 << 20, 1.0)
    assert spec.wall_clock_s == 12 * 3600
    assert spec.cohort_dir.startswith(str(kit.paths.cohorts))
    assert spec.control_dir.startswith(str(kit.paths.control))


def test_logs_are_kept_for_the_operator_after_the_container(kit: StationKit) -> None:
    envelope = kit.ready()
    digest = order_digest(envelope)
    assert kit.warm.logs(digest) == "what the train printed"
    kit.service.handle(instruction(envelope, Kind.FINISH), None)
    assert kit.warm.logs(digest) == "what the train printed"
    (kept,) = kit.paths.train_logs.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFoundError):
        kit.warm.logs("sha256:" + "0" * 64)


def test_a_message_has_the_shortest_of_the_deadlines(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.train = Busy()
    reply, _ = kit.message(envelope, deadline_s=1)
    assert (reply.status, reply.code) == (Status.FAILED, "TRAIN_TIMEOUT")


def test_locks_do_not_pile_up(kit: StationKit) -> None:
    for number in range(50):
        kit.service.handle(instruction(kit.order(), Kind.TRAIN, number + 1), None)
    assert len(kit.warm._locks) == 0


def test_settings_of_the_kit_are_a_hospitals(kit: StationKit) -> None:
    assert settings().hospital_rules(kit.clock()).quiet is False
