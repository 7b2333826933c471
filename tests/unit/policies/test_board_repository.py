"""The board's side: roots, staging, publishing, and what a crash leaves."""

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, https_server, mirror_handler, permitted

from policies.board.publishing.status import status_of
from policies.errors import (
    DocumentError,
    NetworkError,
    NotFoundError,
    RefusedError,
    TrustError,
    UsageError,
)
from policies.refusals import Permitted, RefusalCode
from policies.trust.mirror import push, push_timestamp
from policies.trust.repository import BoardRepository
from policies.trust.root import RootPlan


def test_a_root_takes_its_threshold(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    repository = BoardRepository.create(tmp_path / "second", board.plan, now=NOW)
    with pytest.raises(TrustError, match="0 of 2"):
        repository.root.in_force()
    with pytest.raises(TrustError):
        repository.publish(board.keys["secretary"], now=NOW)
    first = repository.root.sign(board.keys["bob"])
    assert (first.signed, first.needed, first.valid) == (1, 2, False)
    assert not repository.root.sign(board.keys["bob"]).valid
    assert repository.root.sign(board.keys["alice"]).valid
    assert repository.root.drafted() is None
    assert repository.root.charter() == board.charter


def test_a_folder_holds_one_repository(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    with pytest.raises(UsageError, match="already"):
        BoardRepository.create(board.repository.folder, board.plan, now=NOW)


@pytest.mark.parametrize("threshold", [0, 1, 4])
def test_a_root_is_no_easier_than_a_policy(tmp_path: Path, threshold: int) -> None:
    board = BoardKit.found(tmp_path)
    with pytest.raises(UsageError):
        BoardRepository.create(tmp_path / "new", replace(board.plan, threshold=threshold), now=NOW)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("same_as", ["alice", "secretary", "developer"])
def test_the_witness_has_a_key_of_its_own(tmp_path: Path, same_as: str) -> None:
    board = BoardKit.found(tmp_path)
    plan = RootPlan(board.charter, 2, board.keys["secretary"].public_hex, board.keys[same_as].public_hex)
    with pytest.raises(UsageError, match="witness"):
        BoardRepository.create(tmp_path / "new", plan, now=NOW)


def test_nothing_is_staged_that_a_reader_would_refuse(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    for envelope in (board.signed(board.policy(), "alice"), board.signed(board.policy(), "alice", "bob")):
        with pytest.raises(RefusedError):
            board.repository.add_policy(envelope)
    with pytest.raises(DocumentError, match="fewer than 3 stations"):
        board.repository.add_policy(board.signed(board.policy(changes={"runs.minimum_stations": 2})))
    with pytest.raises(RefusedError):
        board.repository.set_register(
            board.signed(b"x", payload_type="application/vnd.pht.station-register+yaml")
        )
    assert board.repository.staged() == {}


def test_a_version_is_published_once(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    payload = board.policy(2)
    board.publish(board.signed(payload))
    changed = board.policy(2, {"title": "Another title"})
    for envelope in (board.signed(changed), board.signed(board.policy(1))):
        with pytest.raises(RefusedError, match="published already"):
            board.repository.add_policy(envelope)
    # one more signature over the same bytes is welcome
    board.publish(board.signed(payload, "alice", "bob", "carol"))
    found = permitted(board.client().refresh(NOW)).find("cxr-classification", 2)
    assert isinstance(found, Permitted)
    assert len(found.value.signers) == 3


def test_what_was_withdrawn_needs_a_new_version(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    board.repository.revoke("cxr-classification", 1, "withdrawn", now=NOW)
    board.publish()
    with pytest.raises(RefusedError, match="withdrawn"):
        board.repository.add_policy(board.signed(board.policy()))
    with pytest.raises(NotFoundError):
        board.repository.revoke("cxr-classification", 1, "again", now=NOW)
    board.publish(board.signed(board.policy(2)))


def test_the_register_only_goes_up(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.repository.set_register(board.signed_register(2))
    board.publish()
    for version in (1, 2):
        with pytest.raises(RefusedError):
            board.repository.set_register(board.signed_register(version, "amstel", "new"))
    board.repository.set_register(board.signed_register(3, "amstel", "new"))


def test_publishing_twice_changes_nothing(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    again = board.repository.publish(board.keys["secretary"], now=NOW)
    assert (again.changed, again.version) == (False, 1)
    renewed = board.repository.publish(board.keys["secretary"], now=NOW, renew=True)
    assert (renewed.changed, renewed.version) == (True, 2)


def test_half_a_lifetime_later_publishing_renews(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    later = NOW + timedelta(days=50)
    assert board.repository.publish(board.keys["secretary"], now=later).changed
    assert board.repository.snapshot().expires == later + timedelta(days=90)


@pytest.mark.parametrize("lost", [("2.snapshot.json",), ("2.snapshot.json", "2.targets.json")])
def test_a_crash_in_the_middle_leaves_the_state_before(tmp_path: Path, lost: tuple[str, ...]) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    board.repository.add_policy(board.signed(board.policy(2)))
    staged = board.repository.staged()
    board.repository.publish(board.keys["secretary"], now=NOW)
    # As if the power had failed before the snapshot was renamed into place: the staging area was not emptied yet.
    for name in lost:
        (board.repository.metadata / name).unlink()
    for path, data in staged.items():
        board.repository._stage(path, data)

    board.witness.sign_once(NOW)
    policies = permitted(board.client().refresh(NOW))
    assert list(policies.envelopes) == [("cxr-classification", 1)]
    board.publish()
    policies = permitted(board.client().refresh(NOW))
    assert list(policies.envelopes) == [("cxr-classification", 2)]
    assert board.repository.staged() == {}


def test_rotated_keys_take_over_at_the_next_publication(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    client = board.client()
    permitted(client.refresh(NOW))
    plan = replace(board.plan, secretary_key=board.keys["stranger"].public_hex)
    board.repository.root.propose(plan, now=NOW)
    for name in ("alice", "bob"):
        board.repository.root.sign(board.keys[name])
    with pytest.raises(TrustError):
        board.repository.publish(board.keys["secretary"], now=NOW)
    with pytest.raises(TrustError, match="secretary's key"):
        board.witness.sign_once(NOW)
    assert board.repository.publish(board.keys["stranger"], now=NOW).changed
    board.witness.sign_once(NOW)
    assert permitted(client.refresh(NOW)).state.root_version == 2


def test_a_mirror_gets_what_it_lacks(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    sent = push(board.repository.folder, tmp_path / "mirror")
    assert sent[-1] == "metadata/timestamp.json"
    assert len(sent) == 5
    assert push(board.repository.folder, tmp_path / "mirror") == ()
    board.witness.sign_once(NOW)
    assert push(board.repository.folder, tmp_path / "mirror") == ("metadata/timestamp.json",)
    permitted(board.client(mirror=tmp_path / "mirror").refresh(NOW))


def test_a_mirror_over_https_asks_for_a_token(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    folder, ca = board.repository.folder, tmp_path / "ca.pem"
    with https_server(mirror_handler(tmp_path / "mirror", "secret")) as (address, authority):
        authority.cert_pem.write_to_path(str(ca))
        to = f"{address}/mirror"
        for token in (None, "wrong"):
            with pytest.raises(TrustError, match="token"):
                push(folder, to, token=token, ca=ca)
        with pytest.raises(UsageError):
            push(folder, to.replace("https", "http"), token="secret", ca=ca)
        assert len(push(folder, to, token="secret", ca=ca)) == 5
        assert push(folder, to, token="secret", ca=ca) == ()
        board.witness.sign_once(NOW)
        push_timestamp(folder, to, token="secret", ca=ca)
        client = board.client(mirror=to, ca=ca)
        assert permitted(client.refresh(NOW)).state.timestamp_version == 2
        # the witness sends a timestamp only where its snapshot is
        board.publish(board.signed(board.policy(2)))
        with pytest.raises(NetworkError, match="lacks"):
            push_timestamp(folder, to, token="secret", ca=ca)
    with pytest.raises(NetworkError):
        push(folder, to, token="secret", ca=ca)


def test_a_timestamp_that_a_newer_one_overtook_on_its_way_is_no_fault(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    folder, ca = board.repository.folder, tmp_path / "ca.pem"
    there = tmp_path / "mirror" / "metadata" / "timestamp.json"
    refusing = threading.Event()

    class Mirror(mirror_handler(tmp_path / "mirror", "secret")):  # type: ignore[misc]
        def do_PUT(self) -> None:  # noqa: N802 - the name that http.server calls
            if not refusing.is_set():
                super().do_PUT()
                return
            # Another witness came first: what it vouched for stands by now, and the older word is refused.
            self.rfile.read(int(self.headers["Content-Length"]))
            there.write_bytes(newer)
            self._answer(400)

    with https_server(Mirror) as (address, authority):
        authority.cert_pem.write_to_path(str(ca))
        to = f"{address}/mirror"
        push(folder, to, token="secret", ca=ca)
        board.witness.sign_once(NOW)
        older = (folder / "metadata" / "timestamp.json").read_bytes()
        board.witness.sign_once(NOW)
        newer = (folder / "metadata" / "timestamp.json").read_bytes()
        (folder / "metadata" / "timestamp.json").write_bytes(older)
        refusing.set()
        push_timestamp(folder, to, token="secret", ca=ca)
        assert there.read_bytes() == newer
        # The other way round somebody has to know.
        newer = b"{}"
        with pytest.raises(NetworkError, match="400"):
            push_timestamp(folder, to, token="secret", ca=ca)


def test_status_says_what_is_in_force_and_what_waits(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    (waiting,) = status_of(board.repository.folder, NOW).policies
    assert waiting.refusal is RefusalCode.PURPOSE_TABLE_MISSING, "signed, and yet nobody may run it"
    board.repository.set_purposes(board.signed_purposes())
    board.publish()
    board.repository.set_register(board.signed_register())
    found = status_of(board.repository.folder, NOW)
    assert [(p.policy_id, p.signers, p.refusal) for p in found.policies] == [
        ("cxr-classification", ("Alice", "Carol"), None)
    ]
    assert found.warnings == ("1 staged, not published: stations.dsse.json.",)
    stale = status_of(board.repository.folder, NOW + timedelta(days=88))
    assert any("witness" in warning for warning in stale.warnings)
    assert any(warning.startswith("targets expires") for warning in stale.warnings)
