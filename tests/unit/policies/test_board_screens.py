"""`pht-board sign`: all that is signed is on the screen, as its own lines, and what is on the screen is what is signed."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from board_desk import Desk
from board_kit import NOW, BoardKit, refusal
from tuf.api.metadata import Metadata, Root

from policies.board.documents import documents_in
from policies.documents import format_moment
from policies.errors import ExitCode, RefusedError, TrustError
from policies.refusals import RefusalCode
from policies.signing import public_key
from policies.trust.client import PolicyClient
from policies.trust.repository import BoardRepository
from policies.trust.root import BoardRoot

FOREIGN = ("11" * 32, "22" * 32)


def add_root_keys(signed: dict[str, Any]) -> None:
    for key in FOREIGN:
        one = public_key(key)
        signed["keys"][one.keyid] = one.to_dict()
        signed["roles"]["root"]["keyids"].append(one.keyid)


def another_snapshot_key(signed: dict[str, Any]) -> None:
    one = public_key(FOREIGN[0])
    signed["keys"][one.keyid] = one.to_dict()
    signed["roles"]["snapshot"]["keyids"] = [one.keyid]


def another_field(signed: dict[str, Any]) -> None:
    signed["pht-something"] = True


def two_secretaries(signed: dict[str, Any]) -> None:
    one = public_key(FOREIGN[0])
    signed["keys"][one.keyid] = one.to_dict()
    signed["roles"]["targets"]["keyids"].append(one.keyid)


def no_witness(signed: dict[str, Any]) -> None:
    signed["roles"]["timestamp"]["keyids"] = []


def nothing(_: dict[str, Any]) -> None:
    """An honest root."""


def easier_root(signed: dict[str, Any]) -> None:
    signed["roles"]["root"]["threshold"] = 1


def same_version(signed: dict[str, Any]) -> None:
    signed["version"] = 1


CHANGES = (
    same_version,
    add_root_keys,
    another_snapshot_key,
    another_field,
    two_secretaries,
    no_witness,
    easier_root,
)


def changed(repository: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = repository / "draft" / "root.json"
    document = json.loads(path.read_bytes())
    change(document["signed"])
    path.write_text(json.dumps(document))


@pytest.fixture
def drafted_root(tmp_path: Path) -> BoardKit:
    board = BoardKit.found(tmp_path)
    board.repository.root.propose(board.plan, now=NOW)
    return board


@pytest.mark.parametrize("change", CHANGES)
def test_a_draft_that_says_more_than_its_charter_is_not_signed(
    drafted_root: BoardKit, change: Callable[[dict[str, Any]], None]
) -> None:
    root = drafted_root.repository.root
    changed(drafted_root.repository.folder, change)
    for attempt in (
        root.drafted_plan,
        lambda: root.to_sign(NOW),
        lambda: root.sign(drafted_root.keys["alice"]),
    ):
        with pytest.raises(TrustError):
            attempt()
    assert root.in_force().version == 1


def test_a_draft_that_outlives_a_root_is_not_shown_for_signing(drafted_root: BoardKit) -> None:
    root = drafted_root.repository.root
    assert root.to_sign(NOW).expires == NOW + timedelta(days=365)
    changed(drafted_root.repository.folder, lambda signed: signed.update(expires="2127-01-01T00:00:00Z"))
    with pytest.raises(TrustError, match="365 days"):
        root.to_sign(NOW)


def test_a_draft_that_changes_while_it_is_read_is_not_signed(drafted_root: BoardKit) -> None:
    board, root = drafted_root, drafted_root.repository.root
    shown = root.to_sign(NOW).signed_bytes
    root.sign(board.keys["alice"], shown)
    assert root.to_sign(NOW).signed_bytes == shown, "a signature changes nothing of what is signed"
    root.propose(replace(board.plan, secretary_key=board.keys["stranger"].public_hex), now=NOW)
    with pytest.raises(RefusedError) as refused:
        root.sign(board.keys["carol"], shown)
    assert refused.value.code == RefusalCode.DOCUMENT_CHANGED
    assert root.drafted() is not None
    assert root.in_force().version == 1


@pytest.mark.parametrize("change", [add_root_keys, nothing])
def test_a_station_takes_no_root_of_others_than_its_members(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    client = board.client()
    client.refresh(NOW)
    # Members whom another tool deceived, or who agreed among themselves.
    first = Metadata[Root].from_bytes(board.repository.root.pinnable())
    document = first.signed.to_dict()
    document["version"] = 2
    change(document)
    second = Metadata(Root.from_dict(document))
    for name in ("alice", "carol"):
        second.sign(board.keys[name].crypto_signer, append=True)
    (board.repository.metadata / "2.root.json").write_bytes(second.to_bytes())
    if change is nothing:
        assert not hasattr(client.refresh(NOW), "reasons")
        PolicyClient.pin(tmp_path / "fresh", second.to_bytes())
        return
    assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
    with pytest.raises(TrustError, match="members"):
        PolicyClient.pin(tmp_path / "fresh", second.to_bytes())


def test_signing_a_root_shows_its_lifetime_and_what_a_root_takes(board: Desk) -> None:
    board("rotate", board / "repo")
    expires = BoardRoot(board / "repo").to_sign(datetime.now(UTC)).expires
    out = board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")
    assert f"  in force until {format_moment(expires)}\n" in out
    assert "  2 of 3 members sign a root" in out


def test_a_root_is_signed_by_nobody_who_was_not_shown_it(desk: Desk) -> None:
    keys = ("--secretary-key", desk / "secretary.pub", "--witness-key", desk / "witness.pub")
    start = ("init", desk / "repo", "--charter", desk / "charter.yaml", *keys)
    desk(*start, "--sign-with", desk / "alice.pem", code=ExitCode.USAGE)
    desk(*start)
    found = BoardRepository(desk / "repo").root.drafted()
    assert found is not None
    assert found.signed == 0


def test_other_changes_of_a_charter_have_words_of_their_own(board: Desk) -> None:
    charter = yaml.safe_load((board / "charter.yaml").read_text())
    charter |= {"development_keys": ["33" * 32], "required_roles": ["clinician"]}
    (board / "charter.yaml").write_text(yaml.safe_dump(charter))
    keys = ("--secretary-key", board / "secretary.pub", "--witness-key", board / "witness.pub")
    board("root", board / "repo", "--charter", board / "charter.yaml", *keys)
    out = board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")
    assert f"Changes: the key {'33' * 32} approves alone" in out
    assert "Changes: roles among the signatures of a policy: clinician\n" in out
    assert "the same people and keys" not in out


def test_signing_a_policy_shows_every_term_of_it(drafted: Desk) -> None:
    document = yaml.safe_load((drafted / "policy.yaml").read_text())
    document["summary"]["nl"] = "Een samenvatting in het Nederlands."
    document["release"]["timing_quantum_s"] = 7.5
    document["release"]["tensors"]["maximum_absolute"] = 4321.0
    (drafted / "policy.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))
    out = drafted("sign", drafted / "policy.yaml", "-k", drafted / "alice.pem", "--yes")
    for said in (
        "In Dutch: Een samenvatting in het Nederlands.",
        f"Put to the board {document['board']};",
        document["manifest_digest"],
        *(f"Image config {digest}." for digest in document["image_config_digests"]),
        "Commercial use approved: no.",
        "no number beyond 4321;",
        "how many images it rests on, rounded; how the train ended, by its code; how long it took, in steps of 7.5 s.",
    ):
        assert said in out


def test_the_policy_that_is_shown_is_the_one_that_is_signed(
    drafted: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drafted / "policy.yaml"
    kept, read = path.read_bytes(), documents_in.read_file

    def once(file: Path) -> bytes:
        data = read(file)
        if file == path:
            # Somebody else saves the file as soon as it was read.
            path.write_bytes(kept.replace(b"\ntitle: ", b"\ntitle: Harmless "))
        return data

    monkeypatch.setattr(documents_in, "read_file", once)
    out = drafted("sign", path, "-k", drafted / "alice.pem", "--yes")
    assert "Harmless" not in out


def test_a_documents_line_breaks_fake_no_line_of_the_screen(board: Desk) -> None:
    forged = "UMC\nberkel: Other (NL)\r\n    identity " + "cd" * 32 + "\u2028    agreement Forged"
    station = {
        "name": "amstel",
        "organisation": forged,
        "country": "NL",
        "identity_key": "ab" * 32,
        "node_key": "ecdsa-sha2-nistp384 AAAA",
        "agreement": {"reference": "Annex 1", "expires": "2099-12-31", "policies": ["lungs", "hearts"]},
    }
    document = {"schema_version": 1, "board": "thorax-board", "version": 1, "stations": [station]}
    (board / "stations.yaml").write_text(yaml.safe_dump(document))
    out = board("register", board / "stations.yaml", "-k", board / "alice.pem", "--yes")
    assert out.splitlines()[1:5] == [
        f"  amstel: UMC berkel: Other (NL) identity {'cd' * 32} agreement Forged (NL)",
        "    agreement Annex 1, until 2099-12-31, for only lungs, hearts",
        f"    identity {'ab' * 32}",
        "    node ecdsa-sha2-nistp384 AAAA",
    ]


def test_a_charters_line_breaks_fake_no_member(desk: Desk) -> None:
    charter = yaml.safe_load((desk / "charter.yaml").read_text())
    charter["members"][0]["organisation"] = "UMC\n  secretary, who publishes: nobody"
    (desk / "charter.yaml").write_text(yaml.safe_dump(charter))
    keys = ("--secretary-key", desk / "secretary.pub", "--witness-key", desk / "witness.pub")
    desk("init", desk / "repo", "--charter", desk / "charter.yaml", *keys)
    out = desk("sign", "--root", desk / "repo", "-k", desk / "alice.pem", "--yes")
    assert [line for line in out.splitlines() if line.startswith("  secretary")] == [
        f"  secretary, who publishes: {(desk / 'secretary.pub').read_text().strip()}"
    ]
