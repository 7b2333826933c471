"""Attack: instructions of nonsense, in any order and number; every answer is from the closed list, none starts a train."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from station_kit import StationKit

from policies.errors import WireError
from policies.wire.instructions import Blob, Instruction, Kind, Status, decode_instruction, encode

DIGESTS = st.sampled_from(["sha256:" + digit * 64 for digit in "0123"])
WORDS = st.text(max_size=300) | st.sampled_from(["{}", "null", "[]", '{"payload": "AA==", "signatures": []}'])


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    kind = draw(st.sampled_from(Kind))
    bare = kind in {Kind.PREPARE, Kind.FINISH}
    return Instruction(
        kind=kind,
        order_digest=draw(DIGESTS),
        order=draw(WORDS) if kind is Kind.PREPARE else None,
        round=0 if bare else draw(st.integers(1, 100_000)),
        attempt=draw(st.integers(1, 1_000_000)),
        config={}
        if bare
        else draw(st.dictionaries(st.sampled_from(["rate", "a/b", "x.y"]), st.floats(0, 1))),
        weights=Blob(digest=draw(DIGESTS), size=draw(st.integers(0, 2**40)))
        if kind in {Kind.TRAIN, Kind.EVALUATE}
        else None,
        deadline_s=draw(st.integers(1, 604_800)),
    )


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> StationKit:
    return StationKit.make(tmp_path_factory.mktemp("station"))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=instructions(), arrays=st.none() | st.binary(max_size=200))
def test_nonsense_is_refused_audited_and_entered(
    kit: StationKit, asked: Instruction, arrays: bytes | None
) -> None:
    # Another hour begins: within one, what is refused without end is counted.
    kit.audit.thinned.flush(all_of_it=True)
    kit.rounds.outbox.repeats.flush()
    audited, entered = kit.audit.head().seq, kit.ledger.head().seq
    reply, out = kit.service.handle(asked, arrays)
    assert (reply.status, out) == (Status.REFUSED, None)
    assert reply.code in {"ORDER_INVALID", "INSTRUCTION_UNKNOWN_ORDER"}
    assert (reply.order_digest, reply.round, reply.attempt) == (
        asked.order_digest,
        asked.round,
        asked.attempt,
    )
    assert encode(reply)
    assert kit.audit.head().seq == audited + 1
    assert kit.ledger.head().seq == entered + 1
    assert kit.runs.list() == []
    assert kit.sandbox.started == []


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_bytes_that_are_no_instruction_do_not_reach_the_station(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_instruction(body)


def test_a_refusal_names_no_policy_and_no_path(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    reply, _ = kit.message(kit.order())
    said = encode(reply).decode()
    for secret in (str(tmp_path), "cxr-classification", "amstel"):
        assert secret not in said
    kit.close()
