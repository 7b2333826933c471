"""A finished order: what it released is sent again as it is, where every rule still permits; nothing is computed any more."""

from datetime import timedelta

from station_kit import StationKit, instruction, prepare

from policies.documents import format_moment
from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status, encode
from station.audit import verify
from station.egress.records.ledger import verify_ledger


def bytes_of(kit: StationKit, envelope: bytes, kind: Kind, round_: int = 1, attempt: int = 1) -> bytes:
    reply, arrays = kit.message(envelope, kind, round_, attempt=attempt)
    assert reply.status is Status.RELEASED, reply
    return encode(reply) + (arrays or b"")


def work_done(kit: StationKit) -> tuple[int, int, int, int]:
    used = kit.releases.releases_used("cxr-classification")
    return len(kit.sandbox.started), len(kit.sandbox.asked), len(kit.releases.list()), used


def finish(kit: StationKit, envelope: bytes) -> None:
    assert kit.service.handle(instruction(envelope, Kind.FINISH), None)[0].status is Status.FINISHED


def test_a_finished_order_repeats_its_releases_byte_for_byte_and_does_nothing_else(kit: StationKit) -> None:
    envelope = kit.ready()
    kinds = (Kind.TRAIN, Kind.EVALUATE)
    first = [bytes_of(kit, envelope, kind) for kind in kinds]
    finish(kit, envelope)
    done = work_done(kit)
    # Also in the station's next life.
    for life in range(2):
        for attempt in (2, 3):
            assert [bytes_of(kit, envelope, kind, attempt=attempt) for kind in kinds] == first
        for kind in kinds:
            reply, arrays = kit.message(envelope, kind, 2)
            assert (reply.status, reply.code, arrays) == (Status.REFUSED, "ORDER_SPENT", None)
        reply, _ = kit.service.handle(prepare(envelope), None)
        assert (reply.status, reply.code) == (Status.REFUSED, "ORDER_SPENT")
        assert kit.state(envelope) == "finished"
        if not life:
            done = work_done(kit)
            kit.again()
    assert work_done(kit)[1:] == done[1:]
    assert isinstance(verify(kit.database), Permitted)
    assert isinstance(verify_ledger(kit.database), Permitted)
    assert kit.events().count("release-repeated") >= 1


def test_what_an_operator_stopped_is_not_repeated(kit: StationKit) -> None:
    envelope = kit.ready()
    bytes_of(kit, envelope, Kind.TRAIN)
    kit.decide(envelope, "stop")
    reply, arrays = kit.message(envelope, attempt=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, "RUN_STOPPED", None)


def test_a_policy_that_the_board_withdrew_ends_the_repeats_too(kit: StationKit) -> None:
    envelope = kit.ready()
    bytes_of(kit, envelope, Kind.TRAIN)
    finish(kit, envelope)
    kit.board.repository.revoke("cxr-classification", 1, "a fault was found", now=kit.clock())
    kit.board.publish(now=kit.clock())
    kit.clock.forward(seconds=2)
    reply, arrays = kit.message(envelope, attempt=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, "POLICY_REVOKED", None)
    assert kit.state(envelope) == "finished"


def test_a_consent_register_that_grew_too_old_ends_the_repeats_too(kit: StationKit) -> None:
    expires = format_moment(kit.clock() + timedelta(days=90))
    envelope = kit.ready(expires=expires)
    bytes_of(kit, envelope, Kind.TRAIN)
    finish(kit, envelope)
    kit.clock.forward(days=31)
    kit.policy_is_fresh()
    reply, arrays = kit.message(envelope, attempt=2)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, "CONSENT_STALE", None)
