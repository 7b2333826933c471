"""Attack: an order signed by somebody else than the requester whom the policy names, the board's members included."""

from pathlib import Path

import pytest
from station_kit import StationKit, order_digest, prepare


@pytest.mark.parametrize("signer", ["stranger", "alice", "secretary", "witness", "developer"])
def test_only_the_requester_orders(tmp_path: Path, signer: str) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.order(signer)
    assert kit.service.handle(prepare(envelope), None)[0].code == "ORDER_SIGNATURE"
    assert kit.message(envelope)[0].code == "INSTRUCTION_UNKNOWN_ORDER"
    assert kit.runs.get(order_digest(envelope)) is None, "an order that nobody signed is not even kept"
    assert kit.sandbox.started == []
    assert "instruction-refused" in kit.events()
    kit.close()


def test_a_stripped_envelope_of_a_running_order_starts_nothing(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope, forged = kit.order(), None
    kit.orders -= 1
    forged = kit.order("stranger")
    assert order_digest(forged) == order_digest(envelope)
    kit.prepare(envelope)
    assert kit.service.handle(prepare(forged), None)[0].code == "ORDER_SIGNATURE"
    assert kit.prepare(envelope).status.value == "accepted"
    run = kit.runs.get(order_digest(envelope))
    assert run is not None
    assert run.envelope == envelope
    kit.close()
