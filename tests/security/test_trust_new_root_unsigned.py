"""A new root that would make the attacker the board: signed by strangers, by one member, or by the secretary."""

from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal
from tuf.api.metadata import Metadata, Root

from policies.errors import TrustError
from policies.refusals import RefusalCode


@pytest.mark.parametrize(
    ("signers", "code"),
    [
        ((), RefusalCode.TRUST_UNVERIFIED),
        (("stranger",), RefusalCode.TRUST_UNVERIFIED),
        (("secretary", "witness"), RefusalCode.TRUST_UNVERIFIED),
        (("alice",), RefusalCode.TRUST_SIGNATURES_TOO_FEW),
    ],
)
def test_a_root_without_the_members_is_refused(
    tmp_path: Path, signers: tuple[str, ...], code: RefusalCode
) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    stranger = board.charter.model_copy(
        update={
            "members": (
                board.charter.members[0].model_copy(update={"key": board.keys["stranger"].public_hex}),
            )
        }
    )
    charter = stranger.model_copy(update={"threshold": 1, "required_roles": ()})
    board.repository.root.propose(replace(board.plan, charter=charter, threshold=1), now=NOW)
    draft = Metadata[Root].from_bytes((board.repository.folder / "draft" / "root.json").read_bytes())
    for name in signers:
        draft.sign(board.keys[name].crypto_signer, append=True)
    draft.to_file(str(board.repository.metadata / "2.root.json"))

    assert refusal(board.client().refresh(NOW)) is code
    with pytest.raises(TrustError):
        board.witness.sign_once(NOW)


def test_the_secretary_cannot_sign_the_root(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.repository.root.propose(board.plan, now=NOW)
    for name in ("secretary", "witness", "stranger", "developer"):
        with pytest.raises(TrustError):
            board.repository.root.sign(board.keys[name])


def test_old_and_new_members_together_change_the_charter(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    client = board.client()
    permitted(client.refresh(NOW))
    charter = board.charter.model_copy(update={"threshold": 3})
    board.repository.root.propose(replace(board.plan, charter=charter, threshold=3), now=NOW)
    for name in ("alice", "carol"):
        assert not board.repository.root.sign(board.keys[name]).valid
    assert permitted(client.refresh(NOW)).charter.threshold == 2
    assert board.repository.root.sign(board.keys["bob"]).valid
    board.publish()
    found = permitted(client.refresh(NOW))
    assert (found.charter.threshold, found.state.root_version) == (3, 2)
