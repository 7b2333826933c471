"""The mirror hides that a policy, a requester or a station was withdrawn: who saw it knows, who did not learns it in one lifetime."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Siege, old_state
from board_kit import NOW, BoardKit, permitted, refusal

from policies.refusals import RefusalCode
from policies.trust.policy_set import PolicySet
from policies.trust.revocations import REVOKED_TARGET

CODE = RefusalCode.TRUST_EXPIRED


def of_policy(board: BoardKit) -> None:
    board.repository.revoke(*POLICY, "the label was wrong", now=LATER)


def of_requester(board: BoardKit) -> None:
    board.repository.revoke_requester(board.keys["requester"].public_hex, "key lost", now=LATER)


def of_station(board: BoardKit) -> None:
    board.repository.revoke_station("amstel", "left the consortium", now=LATER)


REVOCATIONS: dict[str, Callable[[BoardKit], None]] = {
    "policy": of_policy, "requester": of_requester, "station": of_station,
}  # fmt: skip


def hidden(board: BoardKit) -> datetime:
    """All three are published, and the mirror goes on with the state before."""
    metadata = board.repository.metadata
    shutil.copytree(metadata, board.folder / "hiding")
    for withdraw in REVOCATIONS.values():
        withdraw(board)
    board.publish(now=LATER)
    shutil.rmtree(metadata)
    shutil.copytree(board.folder / "hiding", metadata)
    return NOW + timedelta(hours=1)


ATTACKS = {"hidden": hidden}


def test_all_three_hidden(tmp_path: Path) -> None:
    assert Siege.lay(tmp_path).refused(hidden) is CODE


def withdrawn(known: PolicySet, what: str) -> bool:
    if what == "station":
        return "amstel" in known.revoked_stations
    return refusal(known.find(*POLICY)) in {RefusalCode.POLICY_REVOKED, RefusalCode.REQUESTER_REVOKED}


@pytest.mark.parametrize("what", REVOCATIONS)
def test_who_saw_it_does_not_unlearn_it(tmp_path: Path, what: str) -> None:
    siege = Siege.lay(tmp_path)
    REVOCATIONS[what](siege.board)
    siege.board.publish(now=LATER)
    assert withdrawn(permitted(siege.client.refresh(LATER)), what)
    shutil.copytree(old_state(siege.board) / "metadata", siege.board.repository.metadata, dirs_exist_ok=True)
    assert refusal(siege.client.refresh(LATER)) is RefusalCode.TRUST_ROLLBACK
    assert withdrawn(permitted(siege.client.last_verified(LATER)), what)


@pytest.mark.parametrize("what", REVOCATIONS)
def test_who_did_not_see_it_works_on_for_one_lifetime_at_most(tmp_path: Path, what: str) -> None:
    siege = Siege.lay(tmp_path)
    shutil.copytree(siege.board.repository.folder, tmp_path / "hiding")
    REVOCATIONS[what](siege.board)
    siege.board.publish(now=LATER)
    hiding = siege.board.client(mirror=tmp_path / "hiding")
    permitted(hiding.refresh(LATER))
    assert refusal(hiding.refresh(NOW + timedelta(hours=1))) is CODE
    newcomer = siege.board.client("newcomer", mirror=tmp_path / "hiding")
    assert refusal(newcomer.refresh(NOW + timedelta(hours=1))) is CODE


@pytest.mark.parametrize("what", REVOCATIONS)
def test_a_mirror_cannot_serve_everything_but_the_list_of_revocations(tmp_path: Path, what: str) -> None:
    siege = Siege.lay(tmp_path)
    REVOCATIONS[what](siege.board)
    siege.board.publish(now=LATER)
    (hidden_list,) = siege.board.repository.targets.glob(f"*.{REVOKED_TARGET}")
    content = hidden_list.read_bytes()
    hidden_list.unlink()
    # As if out of reach: what was verified before counts, and for its own lifetime only.
    assert not permitted(siege.client.refresh(LATER)).state.reached
    assert refusal(siege.client.refresh(NOW + timedelta(hours=1))) is CODE
    hidden_list.write_bytes(content)
    assert withdrawn(permitted(siege.client.refresh(LATER)), what)
