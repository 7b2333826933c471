"""Attack: an order that was finished is brought again, as it is, and with more signatures around it."""

from pathlib import Path

from station_kit import StationKit, instruction, order_digest, prepare

from policies.signing import add_signature
from policies.wire.instructions import Kind, Status


def test_a_finished_order_is_spent_whatever_its_envelope(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    kit.message(envelope)
    assert kit.service.handle(instruction(envelope, Kind.FINISH), None)[0].status is Status.FINISHED
    dressed = add_signature(envelope, kit.board.keys["stranger"])
    assert dressed != envelope
    assert order_digest(dressed) == order_digest(envelope)
    used = (len(kit.sandbox.started), len(kit.sandbox.asked), len(kit.releases.list()))
    for again in (envelope, dressed):
        reply, _ = kit.service.handle(prepare(again), None)
        assert (reply.status, reply.code) == (Status.REFUSED, "ORDER_SPENT")
        for kind in (Kind.TRAIN, Kind.EVALUATE):
            reply, arrays = kit.message(again, kind, 2)
            assert (reply.status, reply.code, arrays) == (Status.REFUSED, "ORDER_SPENT", None)
    assert used == (len(kit.sandbox.started), len(kit.sandbox.asked), len(kit.releases.list()))
    kit.close()


def test_one_order_in_two_envelopes_is_one_run(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    first = kit.message(envelope)
    dressed = add_signature(envelope, kit.board.keys["stranger"])
    assert kit.prepare(dressed).status is Status.ACCEPTED
    assert kit.message(dressed) == first
    assert len(kit.sandbox.started) == 1
    assert len(kit.runs.list()) == 1
    kit.close()
