"""A train that goes on with an image which the hospital took back: every door is shut, also with a dead watcher."""

from pathlib import Path

import pytest
from catalogue_log import patient
from cohort_files import KEY
from station_kit import PATIENTS, StationKit, order_digest

from policies.splits import Split
from policies.wire.instructions import Status


@pytest.mark.parametrize("how", ["removed", "merged"])
def test_nothing_made_of_a_removed_image_leaves(tmp_path: Path, how: str) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    number = next(n for n in PATIENTS if KEY.split_of(patient(n)) is Split.TRAINING)
    cohort = Path(kit.sandbox.started[0].spec.cohort_dir)

    def stubborn(request: object, folder: object) -> object:
        # The image goes while the train works on it, and no watcher looks before it answers.
        if how == "removed":
            kit.intake.removed(number)
        else:
            kit.intake.merged(number, into=max(PATIENTS))
        from station_kit import honest

        return honest(request, folder)  # type: ignore[arg-type]

    kit.sandbox.train = stubborn  # type: ignore[assignment]
    reply, arrays = kit.message(envelope)
    assert reply.status is Status.WITHHELD
    assert arrays is None
    assert kit.releases.list(order_digest(envelope)) == []
    assert [entry.entry.type for entry in kit.ledger.entries() if entry.entry.type == "release"] == []
    # A station that was killed right then freezes without it too.
    kit.again()
    from station_kit import honest

    kit.sandbox.train = honest
    reply, _ = kit.message(envelope)
    assert reply.status is Status.RELEASED
    assert not cohort.exists()
    kit.close()
