"""Attack: an answer that announces more than it may, more than it sends, or another protocol."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure

pytestmark = pytest.mark.docker


@pytest.mark.parametrize(
    ("lie", "detail"),
    [("arrays-length", "arrays-too-large"), ("head-length", "head-too-large"), ("magic", "bad-magic")],
)
def test_a_length_beyond_its_ceiling_is_not_waited_for(
    liars: Liars, tmp_path: Path, lie: str, detail: str
) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask(lie).failure == TrainFailure(ExitClass.PROTOCOL, detail=detail)


def test_an_answer_that_is_shorter_than_announced_is_none(liars: Liars, tmp_path: Path) -> None:
    with liars.liar(tmp_path) as train:
        # It hangs up behind it, so its own end is what is seen; what it sent is gone.
        failure = train.ask("truncated").failure
        assert failure.exit_class in {ExitClass.PROTOCOL, ExitClass.CRASH}
        assert failure.session_ended
