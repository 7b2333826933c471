"""Attack: numbers of a hundred thousand digits, on which readers have spent minutes."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure

pytestmark = pytest.mark.docker


def test_a_number_of_many_digits_ends_the_session_at_once(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask("huge-number").failure == TrainFailure(ExitClass.PROTOCOL, detail="number-too-long")
