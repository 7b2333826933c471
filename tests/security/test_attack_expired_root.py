"""The root is past its lifetime, while everything below it is fresh: who the members are is not vouched for any more."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import Siege
from board_kit import NOW, BoardKit, permitted

from policies.errors import TrustError
from policies.refusals import RefusalCode

CODE = RefusalCode.TRUST_ROOT_EXPIRED
END = NOW + timedelta(days=365)


def expired(board: BoardKit) -> datetime:
    eve = END - timedelta(minutes=10)
    board.repository.publish(board.keys["secretary"], now=eve, renew=True)
    board.witness.sign_once(eve)
    return END


ATTACKS = {"expired": expired}


def test_it_counts_to_the_last_second(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    assert siege.refused(expired) is CODE
    assert siege.newcomer(END) is CODE
    permitted(siege.client.refresh(END - timedelta(seconds=1)))


def test_an_honest_witness_vouches_for_nothing_below_it(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    expired(siege.board)
    with pytest.raises(TrustError, match="expired"):
        siege.board.witness.sign_once(END)
