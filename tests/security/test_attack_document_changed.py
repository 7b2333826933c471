"""A policy file is changed beside its envelope, between two members, or between the members and the secretary who reads it."""

from pathlib import Path

import pytest
from board_kit import BoardKit, register_yaml

from policies.board.publishing.staging import stage
from policies.board.signing.signing_desk import envelope_path, sign_document
from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_PAYLOAD_TYPE
from policies.errors import RefusedError
from policies.refusals import RefusalCode

CODE = RefusalCode.DOCUMENT_CHANGED


def signed_file(board: BoardKit, *people: str) -> Path:
    path = board.folder / "policy.yaml"
    path.write_bytes(board.policy())
    envelope_path(path).write_bytes(board.signed(board.policy(), *people))
    return path


def change(path: Path) -> bytes:
    data = path.read_bytes().replace(b"minimum_patients: ", b"minimum_patients: 0")
    assert data != path.read_bytes()
    path.write_bytes(data)
    return data


def test_the_second_member_does_not_sign_what_the_first_did_not(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    path = signed_file(board, "alice")
    before = envelope_path(path).read_bytes()
    changed = change(path)
    with pytest.raises(RefusedError) as refused:
        sign_document(path, changed, POLICY_PAYLOAD_TYPE, board.keys["carol"])
    assert refused.value.code == CODE
    assert envelope_path(path).read_bytes() == before


@pytest.mark.parametrize("named", ["document", "envelope"])
def test_the_secretary_does_not_publish_what_is_not_what_she_reads(tmp_path: Path, named: str) -> None:
    board = BoardKit.found(tmp_path)
    path = signed_file(board, "alice", "carol")
    stage(board.repository, path)
    change(path)
    with pytest.raises(RefusedError) as refused:
        stage(board.repository, path if named == "document" else envelope_path(path))
    assert refused.value.code == CODE


def test_another_envelope_beside_an_honest_file_is_seen_too(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    path = tmp_path / "stations.yaml"
    path.write_bytes(register_yaml(1, "amstel"))
    envelope = board.signed(register_yaml(1, "amstel", "mole"), payload_type=REGISTER_PAYLOAD_TYPE)
    envelope_path(path).write_bytes(envelope)
    with pytest.raises(RefusedError) as refused:
        stage(board.repository, path)
    assert refused.value.code == CODE
    assert board.repository.staged() == {}


def test_an_envelope_alone_is_what_members_signed(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    path = signed_file(board, "alice", "carol")
    path.unlink()
    stage(board.repository, envelope_path(path))
    assert board.repository.staged()
