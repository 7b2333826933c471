"""The reader's side of the repository where nobody attacks: fetching, remembering, doing without the mirror."""

from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, connect_proxy, https_server, mirror_handler, permitted, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.charter import policy_target
from policies.documents import digest_of
from policies.refusals import Permitted, RefusalCode
from policies.trust.state import VerifiedState, remember
from policies.wire.proxies import Proxy


def test_a_published_policy_is_found_with_its_signers(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    payload = board.policy()
    board.publish(board.signed(payload, "alice", "bob", "carol"))
    policies = permitted(board.client().refresh(NOW))
    found = policies.find("cxr-classification", 1)
    assert isinstance(found, Permitted)
    assert found.value.digest == digest_of(payload)
    assert found.value.signers == {board.keys[name].public_hex for name in ("alice", "bob", "carol")}
    assert found.value.policy.requester.key == board.keys["requester"].public_hex
    assert policies.policies == {("cxr-classification", 1): found.value}
    assert policies.charter == board.charter
    assert policies.state.expires == NOW + timedelta(hours=1)
    assert policies.state.reached


def test_what_was_never_published_is_missing(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    policies = permitted(board.client().refresh(NOW))
    assert refusal(policies.find("another", 1)) is RefusalCode.POLICY_MISSING
    assert refusal(policies.find("cxr-classification", 2)) is RefusalCode.POLICY_MISSING


def test_a_revocation_names_its_reason(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    board.repository.revoke("cxr-classification", 1, "The label was wrong.", now=NOW)
    board.publish()
    # ... also to a reader that never saw the policy
    found = permitted(board.client("new").refresh(NOW)).find("cxr-classification", 1)
    assert refusal(found) is RefusalCode.POLICY_REVOKED
    assert found.reasons[0].detail == "The label was wrong."  # type: ignore[union-attr]


def test_a_new_version_replaces_the_one_before(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy(1)))
    board.publish(board.signed(board.policy(2)))
    policies = permitted(board.client().refresh(NOW))
    assert list(policies.envelopes) == [("cxr-classification", 2)]
    assert refusal(policies.find("cxr-classification", 1)) is RefusalCode.POLICY_REVOKED


def test_the_last_verified_state_counts_while_the_mirror_is_away(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    client = board.client()
    permitted(client.refresh(NOW))
    board.repository.folder.rename(tmp_path / "away")
    later = permitted(client.refresh(NOW + timedelta(minutes=59)))
    assert not later.state.reached
    assert isinstance(later.find("cxr-classification", 1), Permitted)
    assert refusal(client.refresh(NOW + timedelta(minutes=61))) is RefusalCode.TRUST_EXPIRED
    # ... and another process of the same station sees the same
    assert not permitted(board.client(mirror=tmp_path / "nowhere").refresh(NOW)).state.reached


def test_without_any_verified_state_an_absent_mirror_refuses(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    result = board.client(mirror=tmp_path / "nowhere").refresh(NOW)
    assert refusal(result) is RefusalCode.TRUST_UNREACHABLE
    assert result.reasons[0].detail == "the folder does not exist"  # type: ignore[union-attr]


def test_a_download_that_breaks_off_leaves_the_last_state_usable(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    client = board.client()
    permitted(client.refresh(NOW))
    board.publish(board.signed(board.policy(2)))
    (board.repository.metadata / "2.targets.json").rename(tmp_path / "withheld")
    half = permitted(client.refresh(NOW))
    assert (half.state.targets_version, half.state.reached) == (1, False)
    (tmp_path / "withheld").rename(board.repository.metadata / "2.targets.json")
    assert permitted(client.refresh(NOW)).state.targets_version == 2


def test_over_https(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    with https_server(mirror_handler(board.repository.folder)) as (address, authority):
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        client = board.client(mirror=f"{address}/mirror/", ca=tmp_path / "ca.pem")
        assert isinstance(permitted(client.refresh(NOW)).find("cxr-classification", 1), Permitted)
        board.publish(board.signed(board.policy(2)))
        assert isinstance(permitted(client.refresh(NOW)).find("cxr-classification", 2), Permitted)
    assert not permitted(client.refresh(NOW)).state.reached


def test_through_a_proxy_and_never_by_the_environments_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with (
        https_server(mirror_handler(board.repository.folder)) as (address, authority),
        connect_proxy() as (proxy, asked),
    ):
        ca = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        permitted(board.client(mirror=f"{address}/mirror", ca=ca).refresh(NOW))
        assert asked == []
        assert permitted(
            board.client(mirror=f"{address}/mirror", ca=ca, proxy=Proxy(proxy)).refresh(NOW)
        ).state.reached
        assert asked == [address.removeprefix("https://")]


def test_the_registers_stations_come_along(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.repository.set_register(board.signed_register(1, "amstel", "dommel"))
    board.publish()
    register = permitted(board.client().refresh(NOW)).register
    assert register is not None
    assert register.find("dommel") is not None
    assert register.find("rijn") is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 5)), max_size=8))
def test_what_was_seen_and_withdrawn_only_grows(listings: list[dict[str, int]]) -> None:
    state = VerifiedState(verified_at="")
    for listing in listings:
        targets = {policy_target(name, version): "" for name, version in listing.items()}
        after = remember(state, NOW, {}, {}, targets)
        assert all(after.seen[name] >= version for name, version in state.seen.items())
        assert all(after.withdrawn[name] >= version for name, version in state.withdrawn.items())
        assert all(after.seen[name] >= version for name, version in listing.items())
        assert all(after.withdrawn[name] == after.seen[name] for name in state.seen if name not in listing)
        state = after
