"""A station that is killed at any moment of a run: nothing is lost, nothing is released twice, nothing half-done is released."""

from pathlib import Path

import pytest
from station_kit import (
    StationKit,
    broken_disk,
    honest,
    in_the_middle,
    instruction,
    order_digest,
    prepare,
)

from policies.errors import StorageError
from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status, encode
from station.audit import verify
from station.egress.records.ledger import verify_ledger
from station.runs.states import RunEvent


def released(kit: StationKit, envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1) -> bytes:
    reply, arrays = kit.message(envelope, kind, round_)
    assert reply.status is Status.RELEASED, reply
    return encode(reply) + (arrays or b"")


def test_a_repeat_gets_the_same_bytes_and_asks_the_train_nothing(kit: StationKit) -> None:
    envelope = kit.ready()
    first = released(kit, envelope)
    kit.sandbox.train = lambda *_: ({"loss": 99.0}, {}, None)
    for attempt in (2, 3):
        reply, arrays = kit.message(envelope, attempt=attempt)
        assert encode(reply) + (arrays or b"") == first
    assert len(kit.sandbox.asked) == 1
    assert kit.releases.releases_used("cxr-classification") == 1


def test_after_a_restart_a_recorded_release_is_answered_as_it_is(kit: StationKit) -> None:
    envelope = kit.ready()
    first = released(kit, envelope)
    kit.again()
    assert kit.state(envelope) == "preparing"
    assert released(kit, envelope) == first
    assert len(kit.sandbox.started) == 1, "an answer that is recorded needs no container"
    assert released(kit, envelope, Kind.EVALUATE)
    assert len(kit.sandbox.started) == 2, "the next one does"
    assert kit.releases.releases_used("cxr-classification") == 2


def test_a_station_killed_in_the_middle_of_a_message_answers_it_in_its_next_life(kit: StationKit) -> None:
    envelope = kit.ready()
    with in_the_middle(kit, envelope) as (_, lost):
        lives = kit.database
        kit.again()
        assert kit.database is not lives
    assert [reply.status for reply, _ in lost] == [] or lost[0][0].status is not Status.RELEASED
    assert kit.releases.list() == []
    assert released(kit, envelope)
    assert isinstance(verify(kit.database), Permitted)
    assert isinstance(verify_ledger(kit.database), Permitted)


def test_a_restart_leaves_no_cohort_and_no_weights_behind(kit: StationKit) -> None:
    kit.ready()
    assert list(kit.paths.cohorts.iterdir())
    kit.again()
    assert kit.launcher.removed == 1, "compute alone may have died: its containers go before their data"
    kit.launcher.away = True
    kit.again()
    for folder in (kit.paths.cohorts, kit.paths.work, kit.paths.control):
        assert list(folder.iterdir()) == []


def test_the_same_cohort_is_frozen_again_after_a_restart(kit: StationKit) -> None:
    envelope = kit.ready()

    def cohort() -> dict[str, bytes]:
        folder = Path(kit.sandbox.started[-1].spec.cohort_dir)
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = cohort()
    kit.again()
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert cohort() == before


def test_the_operators_word_outlives_the_station(kit: StationKit) -> None:
    held, stopped, finished = kit.ready(), kit.order(), kit.order()
    kit.decide(held, "hold")
    kit.prepare(stopped)
    kit.decide(stopped, "stop")
    kit.prepare(finished)
    kit.service.handle(instruction(finished, Kind.FINISH), None)
    kit.again()
    assert kit.prepare(held).code == "HOSPITAL_HELD"
    assert kit.prepare(stopped).code == "RUN_STOPPED"
    assert kit.prepare(finished).code == "ORDER_SPENT"


def test_failures_are_counted_over_restarts(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.train = lambda *_: ({"surprise": 1.0}, {}, None)
    codes = []
    for _ in range(4):
        codes.append(kit.message(envelope)[0].code)
        kit.again()
    assert codes[-1] == "TRAIN_FAILED_TOO_OFTEN"
    assert kit.state(envelope) == "failed"


def test_a_disk_that_fails_before_the_release_leaves_nothing(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = kit.ready()
    with monkeypatch.context() as patched:
        patched.setattr("station.egress.records.releases.move_durably", broken_disk)
        reply, arrays = kit.message(envelope)
        assert (reply.status, reply.code, arrays) == (Status.FAILED, "STATION_STORAGE", None)
    assert kit.releases.list() == []
    assert kit.shelf.pushed == []
    assert kit.releases.releases_used("cxr-classification") == 0
    assert [item.entry.type.value for item in kit.ledger.entries()].count("release") == 0
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.failures == 0, "the hospital's disk is not the train's fault"
    assert released(kit, envelope)


def test_an_end_of_a_message_that_cannot_be_recorded_leaves_the_run_usable(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = kit.ready()
    transition = type(kit.runs).transition

    def full(self: object, order: str, event: RunEvent, **more: object) -> object:
        if event is RunEvent.ANSWERED:
            raise StorageError("the disk is full")
        return transition(self, order, event, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(kit.runs), "transition", full)
        reply, _ = kit.message(envelope)
        assert reply.code == "STATION_STORAGE"
    assert kit.state(envelope) == "busy"
    # What was recorded is answered; what comes next is prepared again.
    assert released(kit, envelope)
    assert released(kit, envelope, Kind.EVALUATE)
    assert kit.state(envelope) == "ready"
    assert len(kit.sandbox.running) == 1


def test_prepare_finds_a_run_whose_end_could_not_be_recorded(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.runs.transition(order_digest(envelope), RunEvent.BEGIN)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    assert len(kit.sandbox.running) == 1
    assert released(kit, envelope)


def test_without_an_audit_nothing_happens(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = kit.ready()
    with monkeypatch.context() as patched:
        patched.setattr(type(kit.audit), "append", broken_disk)
        reply, _ = kit.message(envelope)
        assert reply.code == "STATION_STORAGE"
    assert kit.sandbox.asked == [], "data would have been used without a record"
    assert released(kit, envelope)


def test_without_a_ledger_nothing_leaves(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = kit.ready()
    with monkeypatch.context() as patched:
        patched.setattr("station.egress.records.ledger.EgressLedger.append", broken_disk)
        patched.setattr("station.egress.records.ledger.EgressLedger.append_in", broken_disk)
        for asked in (instruction(envelope), prepare(envelope), instruction(envelope, Kind.FINISH)):
            with pytest.raises(StorageError):
                kit.service.handle(asked, None)
        with pytest.raises(StorageError):
            kit.service.fault(instruction(envelope))
    assert kit.releases.list() == []
    assert kit.shelf.pushed == []


def test_arrays_too_large_for_a_message_travel_by_digest_and_again_after_the_network(tmp_path: Path) -> None:
    import numpy as np
    from egress_documents import weights
    from safetensors.numpy import save

    big = save({**weights(), "layer.weight": np.zeros((128, 256), np.float32)})
    kit = StationKit.make(tmp_path)
    blob = kit.shelf.put(big)
    envelope = kit.ready(initial_weights={"digest": blob.digest, "size": blob.size})

    def train(request: object, cohort: object) -> object:
        answer = honest(request, cohort)
        kit.shelf.away = True
        return answer

    kit.sandbox.train = train
    reply, arrays = kit.message(envelope, weights=blob)
    assert (reply.status, reply.code, arrays) == (Status.FAILED, "NETWORK_UNAVAILABLE", None)
    kit.shelf.away = False
    reply, arrays = kit.message(envelope, weights=blob, attempt=2)
    assert (reply.status, reply.attempt, arrays) == (Status.RELEASED, 1, None)
    assert reply.release is not None
    assert kit.shelf.pushed == [reply.release.digest]
    assert len(kit.sandbox.asked) == 1
    kit.close()


def test_half_of_one_rounds_weights_is_not_the_beginning_of_anothers(kit: StationKit) -> None:
    envelope = kit.ready()
    released(kit, envelope)
    released(kit, envelope, Kind.EVALUATE)
    inbound = kit.warm._prepared[order_digest(envelope)].work / "inbound"
    second, third = kit.shelf.put(kit.weights(2)), kit.shelf.put(kit.weights(3))
    assert kit.message(envelope, round_=2, weights=second)[0].status is Status.RELEASED
    (inbound / "half.safetensors.part").write_bytes(b"half of something else")
    assert kit.message(envelope, Kind.EVALUATE, round_=2, weights=third)[0].status is Status.RELEASED
    assert [path.name for path in inbound.iterdir()] == [f"{third.digest[7:]}.safetensors"]
