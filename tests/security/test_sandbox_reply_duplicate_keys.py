"""Attack: one key twice, so that two readers see two answers; and heads of another form."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure

pytestmark = pytest.mark.docker


@pytest.mark.parametrize(
    ("lie", "detail"),
    [
        ("duplicate-keys", "duplicate-key"),
        ("half-characters", "not-json"),
        ("not-an-object", "not-an-object"),
        ("more-keys", "its answer has another form than a reply"),
        ("code-in-error", "its answer has another form than a reply"),
        ("error-with-results", "its error came with results"),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_ends_the_session(
    liars: Liars, tmp_path: Path, lie: str, detail: str
) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask(lie).failure == TrainFailure(ExitClass.PROTOCOL, detail=detail)
