"""A station that is spoken to in a later version of the protocol: refused by its code, on record, and nothing else happens."""

import json
from pathlib import Path

from station_kit import StationKit, instruction, prepare

from policies.wire.instructions import WIRE_VERSION, Kind, Status, decode_instruction, encode


def test_a_later_version_is_refused_by_its_code_and_the_older_one_still_answered(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.order()
    before = kit.ledger.head().digest
    for asked in (prepare(envelope), instruction(envelope, Kind.TRAIN, 1)):
        # As an orchestrator of that version would write it, with a key that nobody knows yet.
        body = json.dumps(
            json.loads(encode(asked)) | {"version": WIRE_VERSION + 1, "shards": [1, 2]}
        ).encode()
        later = decode_instruction(body)
        assert later.weights is None
        reply, arrays = kit.service.handle(later, None)
        assert (reply.status, reply.code, arrays) == (Status.REFUSED, "PROTOCOL_VERSION", None)
        assert reply.version == WIRE_VERSION
        assert (reply.kind, reply.order_digest, reply.round) == (asked.kind, asked.order_digest, asked.round)
    assert kit.ledger.head().digest != before
    assert kit.sandbox.running == []
    assert kit.prepare(envelope).status is Status.ACCEPTED
    kit.close()
