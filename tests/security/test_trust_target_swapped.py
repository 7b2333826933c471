"""The mirror serves other bytes under a policy's name: shortened, lengthened, or another signed policy."""

from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, refusal

from policies.refusals import RefusalCode


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_other_bytes_than_listed_are_refused(tmp_path: Path, change: str) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    (file,) = board.repository.targets.rglob("*.dsse.json")
    data = file.read_bytes()
    other = board.signed(board.policy(changes={"data.minimum_patients": 1}))
    file.write_bytes({"shorter": data[:-1], "longer": data + b" ", "other": other}[change])
    assert refusal(board.client().refresh(NOW)) is RefusalCode.TRUST_CHANGED
