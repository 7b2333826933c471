"""Attack: an answer that comes a byte at a time, to keep the station at it until the deadline."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("lie", ["drip", "drip-arrays"])
def test_a_dripping_answer_ends_long_before_its_deadline(liars: Liars, tmp_path: Path, lie: str) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask(lie).failure == TrainFailure(ExitClass.PROTOCOL, detail="too-slow")
