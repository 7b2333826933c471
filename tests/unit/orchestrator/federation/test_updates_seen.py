"""Which updates an order remembers: what may come again, not every one of a thousand rounds."""

from pathlib import Path

from orchestrator.federation.orders import RunFolder
from orchestrator.federation.updates import StationUpdates
from policies.bundle import BlobFolder
from policies.documents import digest_of

STATIONS = 100


def test_the_list_does_not_grow_with_the_rounds_and_forgets_nothing_that_lies_there(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    blobs = BlobFolder(tmp_path / "blobs")
    updates = StationUpdates(RunFolder(tmp_path / "runs" / ("0" * 64)), blobs)
    again = digest_of(b"sent again after it was averaged")
    blobs.path(again).write_bytes(b"sent again after it was averaged")
    updates.seen.add(again)
    for round_ in range(1, 51):
        now = {digest_of(f"{round_} {number}".encode()) for number in range(STATIONS)}
        updates.seen |= now
        updates.turn(now)
        # Asked for again by an attempt of this round or the one before.
        assert now <= updates.seen
        assert len(updates.seen) <= 2 * STATIONS + 1
    updates.forget_seen()
    assert not blobs.path(again).exists()
