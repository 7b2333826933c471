"""Attack: an answer that goes on behind its announced end, and one that never gets there."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure, TrainReply

pytestmark = pytest.mark.docker


def test_bytes_behind_the_announced_end_end_the_session(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        seen = train.ask("endless")
        if isinstance(seen.outcome, TrainReply):  # what goes on was not there yet when the answer was read
            seen.stored.unlink()
            seen = train.ask("endless")
        assert seen.failure.exit_class is ExitClass.PROTOCOL
        assert seen.failure.session_ended


def test_an_answer_that_is_never_complete_is_waited_for_no_longer_than_its_pace(
    liars: Liars, tmp_path: Path
) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask("never-complete").failure == TrainFailure(ExitClass.PROTOCOL, detail="too-slow")
