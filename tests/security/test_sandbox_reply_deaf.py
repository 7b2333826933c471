"""Attack: a train that takes nothing of a large request, to keep the station at it until the deadline."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import MIB, ExitClass, TrainFailure

pytestmark = pytest.mark.docker


def test_who_does_not_listen_is_not_spoken_to_for_long(liars: Liars, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(64 * MIB))
    with liars.liar(tmp_path) as train:
        assert train.ask("deaf").reply
        assert train.ask("deaf", inbound=weights).failure == TrainFailure(
            ExitClass.PROTOCOL, detail="too-slow"
        )
