"""Attack: NaN and infinity, in the weights and in the numbers."""

from pathlib import Path

import pytest
from reply_kit import Liars

from station.sandbox.spec import ExitClass, TrainFailure
from station.selftest.releasing import release_of

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("lie", ["nan-payload", "infinite-payload"])
def test_weights_that_are_no_numbers_do_not_leave(liars: Liars, tmp_path: Path, lie: str) -> None:
    with liars.liar(tmp_path) as train:
        reply = train.ask(lie).reply
        assert reply.arrays is not None
        assert release_of(reply.arrays, tmp_path).startswith("RELEASE_TENSOR_NOT_FINITE")


@pytest.mark.parametrize("lie", ["nan-in-head", "huge-exponent"])
def test_numbers_that_are_none_end_the_session(liars: Liars, tmp_path: Path, lie: str) -> None:
    with liars.liar(tmp_path) as train:
        assert train.ask(lie).failure == TrainFailure(ExitClass.PROTOCOL, detail="not-finite")
