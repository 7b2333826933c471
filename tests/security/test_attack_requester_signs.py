"""The requester sits on the board and approves the request they made: with the very key, or another under the same name."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import POLICY, Siege, listed_by_secretary, rotate
from board_kit import BoardKit, permitted

from policies.charter import policy_target
from policies.cli import app
from policies.console import run
from policies.errors import ExitCode
from policies.refusal_texts import CATALOGUE
from policies.refusals import RefusalCode

CODE = RefusalCode.POLICY_SIGNER_IS_REQUESTER


def _listed(board: BoardKit, changes: dict[str, object], *signers: str) -> datetime:
    envelope = board.signed(board.policy(changes=changes), *(signers or ("alice", "bob", "carol")))
    return listed_by_secretary(board, {policy_target(*POLICY): envelope})


def with_the_key(board: BoardKit) -> datetime:
    return _listed(board, {"requester.key": board.keys["alice"].public_hex})


def under_the_name(board: BoardKit) -> datetime:
    return _listed(board, {"requester.contact": "Alice"})


def with_the_development_key(board: BoardKit) -> datetime:
    changes = {"role": "development", "requester.key": board.keys["developer"].public_hex}
    return _listed(board, changes, "developer")


def beside_enough_others(board: BoardKit) -> datetime:
    """No member's key, and more members than it takes."""
    return _listed(board, {}, "alice", "bob", "carol", "requester")


ATTACKS = {
    "with-the-key": with_the_key,
    "beside-enough-others": beside_enough_others,
    "under-the-name": under_the_name,
    "with-the-development-key": with_the_development_key,
}


@pytest.mark.parametrize("how", ATTACKS)
def test_nobody_decides_on_their_own_request(tmp_path: Path, how: str) -> None:
    assert Siege.lay(tmp_path).refused(ATTACKS[how]) is CODE


@pytest.mark.parametrize(
    "contact", ["ALICE", "alice ", "A l i c e", "Al\u00edce", "\uff21\uff4c\uff49\uff43\uff45", "A.l.i.c.e."]
)
def test_another_way_to_write_the_name_is_the_name(tmp_path: Path, contact: str) -> None:
    def spelled(board: BoardKit) -> datetime:
        return _listed(board, {"requester.contact": contact})

    assert Siege.lay(tmp_path).refused(spelled) is CODE


def test_others_may_decide_on_a_members_request(tmp_path: Path) -> None:
    """Alice asks, Bob and Carol decide: that takes a board on which Alice is not the only clinician."""
    siege = Siege.lay(tmp_path)
    charter = siege.board.charter.model_copy(update={"required_roles": ("patient-representative",)})
    rotate(siege.board, charter=charter)
    siege.board.publish()
    now = _listed(siege.board, {"requester.contact": "Alice"}, "bob", "carol")
    permitted(permitted(siege.client.refresh(now)).find(*POLICY))  # type: ignore[arg-type]


def test_our_tools_do_not_sign_with_the_requesters_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = BoardKit.found(tmp_path)
    path = tmp_path / "policy.yaml"
    path.write_bytes(board.policy())
    key = str(tmp_path / "keys" / "requester.pem")
    assert run(app, ["sign", str(path), "--key", key, "--yes"]) == ExitCode.REFUSED
    said = capsys.readouterr().err
    assert CODE in said
    assert CATALOGUE[CODE].do in said
    assert list(tmp_path.glob("*.dsse.json")) == []
