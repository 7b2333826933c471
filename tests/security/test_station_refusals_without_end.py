"""Attack: an orchestrator sends instructions that are refused, again and again, to fill the station's disk with audit."""

from pathlib import Path

from station_kit import StationKit, instruction, prepare

from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status
from station.audit import verify
from station.audit.thinning import LIMIT


def test_the_audit_grows_by_a_bounded_number_of_events(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    unknown = kit.order()
    foreign = kit.order(signer="stranger")
    before = len(kit.events())
    times = 3 * LIMIT
    for _ in range(times):
        for attack in (instruction(unknown, Kind.TRAIN, 1), prepare(foreign)):
            reply, arrays = kit.service.handle(attack, None)
            assert (reply.status, arrays) == (Status.REFUSED, None)
    written = len(kit.events()) - before
    assert written <= 2 * LIMIT
    kit.audit.thinned.flush(all_of_it=True)
    counts = [event.record.numbers.get("left_out", 0) for event in kit.audit.events(limit=100_000)]
    assert written + sum(counts) == 2 * times, "none is lost"
    assert isinstance(verify(kit.database), Permitted)
    kit.close()


def test_a_refused_order_that_is_brought_again_and_again(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    kit.intake.consent(source=kit.clock().replace(year=2020), p0="consent")
    kit.catalogue.sync()
    envelope = kit.order()
    before = len(kit.events())
    for _ in range(3 * LIMIT):
        reply, _ = kit.service.handle(prepare(envelope), None)
        assert (reply.status, reply.code) == (Status.REFUSED, "CONSENT_STALE")
    assert len(kit.events()) - before <= 3 * LIMIT, "seen, looked at again, refused"
    kit.close()
