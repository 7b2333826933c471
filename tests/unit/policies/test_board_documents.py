"""What a reader makes of the board's further documents: purposes, withdrawals, opinions, decisions."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from board_kit import NOW, BoardKit, permitted, refusal
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.charter import policy_target
from policies.decisions import DECISIONS_TARGET, RefusedRequest
from policies.documents import canonical_json, digest_of
from policies.errors import NotFoundError, TrustError
from policies.opinions import OPINION_PAYLOAD_TYPE, opinion_target
from policies.policy import PlainSummary
from policies.purposes import PURPOSES_TARGET
from policies.refusals import RefusalCode, Refused
from policies.signing import unsafe_payload
from policies.trust.client import PolicyClient
from policies.trust.revocations import (
    REVOKED_TARGET,
    RememberedRevocations,
    Revocation,
    RevocationList,
    RevokedRequester,
    RevokedStation,
)
from policies.trust.state import VerifiedState, remember
from policies.trust.verification import verify_purposes

ID = "cxr-classification"


@pytest.fixture
def board(tmp_path: Path) -> BoardKit:
    board = BoardKit.found(tmp_path)
    board.repository.set_register(board.signed_register(1, "amstel", "berkel"))
    board.repository.set_purposes(board.signed_purposes())
    board.publish(board.signed(board.policy()))
    return board


def found(client: PolicyClient) -> RefusalCode | None:
    """Why the policy permits nothing; None where it does."""
    result = permitted(client.refresh(NOW)).find(ID, 1)
    return result.code if isinstance(result, Refused) else None


# -- purposes


def test_the_table_comes_along(board: BoardKit) -> None:
    table = permitted(board.client().refresh(NOW)).purposes
    assert table is not None
    assert table.version == 1


@pytest.mark.parametrize(
    "signers", [("alice",), ("alice", "bob"), ("secretary", "requester"), ("developer",)]
)
def test_a_table_takes_the_members_as_a_policy_does(board: BoardKit, signers: tuple[str, ...]) -> None:
    payload = unsafe_payload(board.signed_purposes(), "application/vnd.pht.purpose-table+yaml")
    envelope = board.signed(payload, *signers, payload_type="application/vnd.pht.purpose-table+yaml")
    assert isinstance(verify_purposes(envelope, board.charter), Refused)
    board.publish_unchecked(board.repository.listed() | {PURPOSES_TARGET: envelope})
    assert isinstance(board.client().refresh(NOW), Refused)


def test_a_table_of_another_board_is_refused(board: BoardKit) -> None:
    envelope = board.signed_purposes(1, {"board": "other-board"})
    assert isinstance(verify_purposes(envelope, board.charter), Refused)
    board.publish_unchecked(board.repository.listed() | {PURPOSES_TARGET: envelope})
    assert isinstance(board.client().refresh(NOW), Refused)


# -- withdrawals: readers remember what a hostile secretary takes off the list again

KEY = "ab" * 32


def entries(what: str, number: int) -> Mapping[str, object]:
    common = {"reason": "a reason", "when": NOW}
    return {
        "revoked": Revocation(policy_id=f"p{number}", version=1, **common),  # type: ignore[arg-type]
        "requesters": RevokedRequester(key=f"{number:064x}", **common),  # type: ignore[arg-type]
        "stations": RevokedStation(name=f"s{number}", **common),  # type: ignore[arg-type]
    }[what]  # type: ignore[return-value]


lists = st.builds(
    lambda revoked, requesters, stations: RevocationList(
        schema_version=1,
        revoked=tuple(entries("revoked", number) for number in revoked),  # type: ignore[arg-type]
        requesters=tuple(entries("requesters", number) for number in requesters),  # type: ignore[arg-type]
        stations=tuple(entries("stations", number) for number in stations),  # type: ignore[arg-type]
    ),
    *(st.sets(st.integers(0, 5)) for _ in range(3)),
)


@given(lists, lists)
def test_what_is_withdrawn_only_grows(before: RevocationList, later: RevocationList) -> None:
    joined = before.joined_with(later)
    for field in ("revoked", "requesters", "stations"):
        old, new, both = (set(getattr(one, field)) for one in (before, later, joined))
        assert both == old | new
        assert len(getattr(joined, field)) == len(both)
    assert joined.joined_with(before) == joined


def test_a_requester_who_was_withdrawn_stays_so_when_the_list_is_gone(board: BoardKit) -> None:
    client = board.client()
    assert found(client) is None
    listed = board.repository.listed()
    board.repository.revoke_requester(board.keys["requester"].public_hex, "stolen", now=NOW)
    board.publish()
    assert found(client) is RefusalCode.REQUESTER_REVOKED
    board.publish_unchecked(listed)
    assert found(client) is RefusalCode.REQUESTER_REVOKED
    fresh = board.client("newcomer")
    assert found(fresh) is None, "who never saw it cannot know: that is why the witness must be another"


def test_a_station_that_was_withdrawn_stays_so_when_the_list_is_gone(board: BoardKit) -> None:
    client = board.client()
    listed = board.repository.listed()
    board.repository.revoke_station("berkel", "left", now=NOW)
    board.publish()
    assert permitted(client.refresh(NOW)).revoked_stations == {"berkel"}
    board.publish_unchecked(listed)
    assert permitted(client.refresh(NOW)).revoked_stations == {"berkel"}
    assert permitted(client.last_verified(NOW)).revoked_stations == {"berkel"}
    with pytest.raises(NotFoundError):
        board.repository.revoke_station("nowhere", "left", now=NOW)


def test_a_version_withdrawn_by_name_before_it_was_seen_stays_withdrawn(board: BoardKit) -> None:
    client = board.client()
    listed = board.repository.listed()
    early = Revocation(policy_id=ID, version=2, reason="never to be signed", when=NOW)
    words = canonical_json(RevocationList(schema_version=1, revoked=(early,)))
    board.publish_unchecked(listed | {REVOKED_TARGET: words})
    permitted(client.refresh(NOW))
    board.publish_unchecked(listed | {policy_target(ID, 2): board.signed(board.policy(2))})
    assert refusal(permitted(client.refresh(NOW)).find(ID, 2)) is RefusalCode.POLICY_REVOKED


@pytest.mark.parametrize("words", [b"", b"[]", b'{"schema_version":2}', b'{"schema_version":1,"more":1}'])
def test_a_list_of_withdrawals_that_cannot_be_read_refuses(board: BoardKit, words: bytes) -> None:
    board.publish_unchecked(board.repository.listed() | {REVOKED_TARGET: words})
    assert refusal(board.client().refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED


# -- opinions


def opinion(board: BoardKit, who: str, **changes: object) -> bytes:
    words = {
        "schema_version": 1,
        "policy_id": ID,
        "version": 1,
        "policy_digest": digest_of(board.policy()),
        "verdict": "dissent",
        "text": "No.",
        "when": "2026-11-22T12:00:00Z",
        **changes,
    }
    return board.signed(canonical_json(words), who, payload_type=OPINION_PAYLOAD_TYPE)


def place(board: BoardKit, who: str) -> str:
    return opinion_target(ID, 1, board.keys[who].public_hex)


def test_a_members_opinion_is_read(board: BoardKit) -> None:
    board.publish_unchecked(board.repository.listed() | {place(board, "bob"): opinion(board, "bob")})
    (said,) = permitted(board.client().refresh(NOW)).opinions(ID, 1)
    assert (said.member.name, said.opinion.verdict, said.opinion.text) == ("Bob", "dissent", "No.")
    assert permitted(board.client().refresh(NOW)).opinions(ID, 2) == ()


OTHERS_WORDS = {
    "signed by another member": lambda board: {place(board, "bob"): opinion(board, "alice")},
    "of nobody on the board": lambda board: {place(board, "stranger"): opinion(board, "stranger")},
    "about other bytes": lambda board: {
        place(board, "bob"): opinion(board, "bob", policy_digest="sha256:" + "0" * 64)
    },
    "about another policy": lambda board: {place(board, "bob"): opinion(board, "bob", policy_id="other")},
    "about another version": lambda board: {place(board, "bob"): opinion(board, "bob", version=2)},
    "of tomorrow's form": lambda board: {place(board, "bob"): opinion(board, "bob", schema_version=2)},
    "no envelope": lambda board: {place(board, "bob"): b"{}"},
    "another kind of document": lambda board: {
        place(board, "bob"): board.signed(b"{}", "bob", payload_type="application/json")
    },
}


@pytest.mark.parametrize("what", OTHERS_WORDS)
def test_what_is_not_a_members_own_word_is_left_out_and_hinders_nothing(board: BoardKit, what: str) -> None:
    board.publish_unchecked(board.repository.listed() | OTHERS_WORDS[what](board))
    client = board.client()
    assert permitted(client.refresh(NOW)).opinions(ID, 1) == ()
    assert found(client) is None


def test_an_opinion_needs_its_policy(board: BoardKit) -> None:
    with pytest.raises(NotFoundError):
        board.repository.add_opinion(opinion(board, "bob", version=2))
    both = board.signed(
        unsafe_payload(opinion(board, "bob"), OPINION_PAYLOAD_TYPE),
        "bob",
        "alice",
        payload_type=OPINION_PAYLOAD_TYPE,
    )
    with pytest.raises(TrustError, match="one member's"):
        board.repository.add_opinion(both)
    board.repository.add_opinion(opinion(board, "bob"))
    board.repository.revoke(ID, 1, "a fault", now=NOW)
    board.publish()
    assert permitted(board.client().refresh(NOW)).opinion_envelopes == {}


# -- decisions


def test_decisions_are_read_when_asked_for(board: BoardKit) -> None:
    assert permitted(board.client().refresh(NOW)).decisions.refused == ()
    words = PlainSummary(nl="Nee.", en="No.")
    for title in ("Faces", "Names"):
        board.repository.announce(RefusedRequest(title=title, organisation="Acme", reason=words, when=NOW))
    board.publish()
    assert [entry.title for entry in permitted(board.client().refresh(NOW)).decisions.refused] == [
        "Faces",
        "Names",
    ]


def test_decisions_that_cannot_be_read_stop_no_train(board: BoardKit) -> None:
    board.publish_unchecked(board.repository.listed() | {DECISIONS_TARGET: b'{"schema_version":9}'})
    client = board.client()
    assert found(client) is None
    with pytest.raises(TrustError):
        _ = permitted(client.refresh(NOW)).decisions


def test_more_is_remembered_than_one_document_holds() -> None:
    many = tuple(entries("stations", number) for number in range(100_000))
    seen = RememberedRevocations(schema_version=1, stations=many)  # type: ignore[arg-type]
    later = RevocationList(schema_version=1, stations=(entries("stations", 100_000),))  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        RevocationList(schema_version=1, stations=(*many, *later.stations))  # type: ignore[arg-type]
    before = VerifiedState(verified_at="", revocations=seen)
    after = remember(before, NOW, {}, {}, {REVOKED_TARGET: canonical_json(later).decode()})
    assert len(after.revocations.stations) == 100_001
    assert VerifiedState.model_validate_json(canonical_json(after)) == after, "and read again"


def test_a_state_that_is_not_valid_is_not_verified(board: BoardKit, monkeypatch: pytest.MonkeyPatch) -> None:
    def invalid(*_: object) -> VerifiedState:
        return VerifiedState.model_validate({"unknown": "secret"})

    client = board.client()
    permitted(client.refresh(NOW))
    monkeypatch.setattr("policies.trust.client.update", invalid)
    refused = client.refresh(NOW)
    assert refusal(refused) is RefusalCode.TRUST_UNVERIFIED
    assert "secret" not in str(refused)
