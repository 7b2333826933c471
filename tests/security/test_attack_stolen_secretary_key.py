"""The secretary's key is stolen, and nothing else: it withdraws and delays; it puts nothing in force and brings nothing back."""

from datetime import datetime
from pathlib import Path

import pytest
from attack_kit import LATER, POLICY, Attack, Siege, listed_by_secretary, resigned
from board_kit import BoardKit, permitted, refusal
from tuf.api.metadata import Metadata, Root

from policies.charter import policy_target
from policies.errors import TrustError
from policies.refusals import RefusalCode
from policies.trust.revocations import REVOKED_TARGET

CODE = RefusalCode.POLICY_REVOKED


def lists_a_withdrawn_policy_again(board: BoardKit) -> datetime:
    """The station saw it withdrawn; list and envelope are those of before, and the list of revocations is gone."""
    board.repository.revoke(*POLICY, "the label was wrong", now=LATER)
    before = board.repository.listed()
    board.publish(now=LATER)
    permitted(board.client().refresh(LATER))
    board.publish_unchecked(before, LATER)
    return LATER


def drops_the_policy(board: BoardKit) -> datetime:
    """All it can do against a policy is to withdraw it."""
    listing = {
        path: data for path, data in board.repository.listed().items() if path != policy_target(*POLICY)
    }
    board.publish_unchecked(listing, LATER)
    return LATER


ATTACKS = {"drops-the-policy": drops_the_policy}


@pytest.mark.parametrize("attack", [drops_the_policy, lists_a_withdrawn_policy_again])
def test_it_only_takes_away(tmp_path: Path, attack: Attack) -> None:
    assert Siege.lay(tmp_path).refused(attack) is CODE


def test_withdrawn_requesters_and_stations_stay_withdrawn(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    board = siege.board
    before = board.repository.listed()
    board.repository.revoke_requester(board.keys["requester"].public_hex, "key lost", now=LATER)
    board.repository.revoke_station("amstel", "left", now=LATER)
    board.publish(now=LATER)
    permitted(siege.client.refresh(LATER))
    for listing in (before, {**before, REVOKED_TARGET: b'{"schema_version":1}'}):
        board.publish_unchecked(listing, LATER)
        known = permitted(siege.client.refresh(LATER))
        assert known.revoked_stations == {"amstel"}
        assert refusal(known.find(*POLICY)) is RefusalCode.REQUESTER_REVOKED


def test_it_puts_no_policy_of_its_own_in_force(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    own = siege.board.signed(siege.board.policy(), "secretary")
    now = listed_by_secretary(siege.board, {policy_target(*POLICY): own})
    found = permitted(siege.client.refresh(now)).find(*POLICY)
    assert refusal(found) is RefusalCode.POLICY_SIGNATURES_TOO_FEW


def test_it_signs_no_timestamp_and_no_root(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)
    board = siege.board

    def timestamp(_board: BoardKit) -> datetime:
        forged = resigned(board, "timestamp.json", board.keys["secretary"])
        (board.repository.metadata / "timestamp.json").write_bytes(forged)
        return LATER

    def root(_board: BoardKit) -> datetime:
        board.repository.root.propose(board.plan, now=LATER)
        with pytest.raises(TrustError):
            board.repository.root.sign(board.keys["secretary"])
        draft = Metadata[Root].from_bytes((board.repository.folder / "draft" / "root.json").read_bytes())
        draft.sign(board.keys["secretary"].crypto_signer)
        draft.to_file(str(board.repository.metadata / "2.root.json"))
        return LATER

    assert siege.refused(timestamp) is RefusalCode.TRUST_UNVERIFIED
    assert siege.refused(root) is RefusalCode.TRUST_UNVERIFIED


def test_a_list_of_revocations_that_is_no_list_refuses_everything(tmp_path: Path) -> None:
    siege = Siege.lay(tmp_path)

    def garbage(board: BoardKit) -> datetime:
        return listed_by_secretary(board, {REVOKED_TARGET: b"[]"})

    assert siege.refused(garbage) is RefusalCode.TRUST_UNVERIFIED
