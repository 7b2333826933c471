"""Attack: an answer to another request than was asked, and two to one."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure

pytestmark = pytest.mark.docker


def test_an_answer_to_another_request_ends_the_session(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        train.honest()
        assert train.ask("other-id").failure == TrainFailure(
            ExitClass.PROTOCOL, detail="it answered another request"
        )
