"""A researcher's request from its first word to a released model, over real HTTPS: who may move it, and what moves it by itself."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from orchestrator_site import (
    MANIFEST,
    Board,
    Site,
    policy_yaml,
    send,
    send_bundle,
    signed_order,
    site,
    station_keys,
    wait_until,
    weights,
)
from request_documents import left_unsigned, new_signer, request_signed, request_yaml
from sqlalchemy import select

from orchestrator.federation.orders import RunFolder, RunProgress, RunState
from orchestrator.registry.access import Principal, Role
from orchestrator.storage import StationRow
from policies.documents import canonical_json, digest_of
from policies.errors import DocumentError, NotFoundError, TrustError, UsageError
from policies.signing import Signer, generate_key, load_signer, sign_envelope, unsafe_payload
from policies.train_request import (
    PAYLOAD_TYPE,
    Declined,
    DeclineReason,
    RequestState,
    sign_request,
    verify_request,
)
from policies.wire.registry_client import RegistryClient


@dataclass
class World:
    place: Site
    board: Board
    requester: Signer
    alice: RegistryClient
    desk: RegistryClient
    folder: Path

    def document(self, **changes: object) -> bytes:
        return request_signed(self.requester, **changes)

    def unsigned(self, owner: str) -> str:
        return left_unsigned(self.place.services, owner, self.requester.public_hex)

    def publish(self) -> None:
        token = self.place.services.access.new_token(Role.BOARD, "secretary")
        self.board.publish(f"{self.place.url}/api/v1/mirror", token, self.place.ca)

    def approve(self, **changes: object) -> str:
        digest = self.board.add_policy(policy_yaml(self.requester.public_hex, **changes))
        self.publish()
        return digest

    def order(self, policy_digest: str) -> str:
        with self.place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        send(self.alice, self.folder, weights())
        return self.alice.post_order(signed_order(self.requester, policy_digest, weights()))

    def run_is(self, digest: str, state: RunState) -> None:
        """What the run worker writes."""
        folder = self.place.home.run_folder(digest)
        progress = RunProgress.model_validate_json((folder / "state.json").read_bytes())
        (folder / "state.json").write_text(progress.model_copy(update={"state": state}).model_dump_json())

    def states(self, request: str) -> list[str]:
        return [step.after for step in self.alice.requests.history(request)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # Every look is a fresh one, so that no test waits for a second to pass; the pace has a test of its own.
    monkeypatch.setattr("orchestrator.registry.requests.LOOK_AGAIN_S", 0.0)
    board = Board.found(tmp_path)
    generate_key(tmp_path / "requester.pem")
    board.set_register(station_keys())
    with site(tmp_path, board.root) as place:
        alice = place.client(Role.RESEARCHER, "alice")
        send_bundle(alice, tmp_path)
        desk = place.client(Role.BOARD, "board")
        found = World(place, board, load_signer(tmp_path / "requester.pem"), alice, desk, tmp_path)
        found.publish()
        place.services.stations.sync_quietly()
        yield found


def test_from_the_first_word_to_a_released_model(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    assert world.desk.requests.take_up(request, "On Thursday.").state is RequestState.IN_REVIEW
    policy = world.approve()
    found = world.alice.requests.get(request)
    assert (found.state, found.policy_id, found.policy_version) == (RequestState.APPROVED, "trivial", 1)
    order = world.order(policy)
    assert world.alice.requests.get(request).state is RequestState.ORDERED
    world.run_is(order, RunState.RUNNING)
    assert world.alice.requests.get(request).state is RequestState.RUNNING
    world.run_is(order, RunState.FINISHED)
    assert world.desk.requests.get(request).state is RequestState.RELEASED
    history = world.alice.requests.history(request)
    assert [step.after for step in history] == [
        "submitted", "in-review", "approved", "ordered", "running", "released",
    ]  # fmt: skip
    assert [step.who for step in history] == [
        "researcher:alice", "board:board", "board's mirror", "orders", "runs", "runs",
    ]  # fmt: skip
    assert [step.number for step in history] == list(range(1, 7))
    assert history[1].text == "On Thursday."
    assert history[2].text == "trivial version 1"


def test_what_happened_while_nobody_looked_is_in_the_history_all_the_same(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    order = world.order(world.approve())
    world.run_is(order, RunState.FINISHED)
    world.place.services.keep_up()
    assert _stored(world) == ["submitted", "approved", "ordered", "running", "released"]
    assert world.states(request)[-1] == "released"


def test_publication_and_order_are_recorded_without_a_look(world: World) -> None:
    world.alice.requests.submit(world.document())
    policy = world.approve()
    wait_until(lambda: _stored(world) == ["submitted", "approved"], 60.0, "the publication's step")
    world.order(policy)
    wait_until(lambda: _stored(world) == ["submitted", "approved", "ordered"], 60.0, "the order's step")


def _stored(world: World) -> list[str]:
    with world.place.services.database.reading() as session:
        rows = session.connection().exec_driver_sql("SELECT after FROM request_history ORDER BY number")
        return [row[0] for row in rows]


def test_a_run_that_failed_leaves_an_order(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    order = world.order(world.approve())
    for state in (RunState.RUNNING, RunState.FAILED, RunState.QUEUED, RunState.RUNNING):
        world.run_is(order, state)
        world.alice.requests.get(request)
    steps = world.alice.requests.history(request)[3:]
    assert [(step.after, step.code) for step in steps] == [
        ("running", ""), ("ordered", "RUN_FAILED"), ("running", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [{"manifest_digest": digest_of(b"other")}, {"requester": None}])
def test_a_policy_of_another_train_or_key_approves_nothing(world: World, changes: dict[str, object]) -> None:
    request = world.alice.requests.submit(world.document()).id
    if changes.get("requester", 0) is None:
        document = yaml.safe_load(policy_yaml(world.requester.public_hex))
        changes = {"requester": document["requester"] | {"key": "ab" * 32}}
    world.approve(**changes)
    assert world.alice.requests.get(request).state is RequestState.SUBMITTED


def test_a_revoked_policy_withdraws_what_it_approved(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    world.approve()
    assert world.alice.requests.get(request).state is RequestState.APPROVED
    world.board.repository.revoke("trivial", 1, "The consent was not what we thought.", now=datetime.now(UTC))
    world.publish()
    assert world.alice.requests.get(request).state is RequestState.WITHDRAWN
    last = world.alice.requests.history(request)[-1]
    assert (last.who, last.before, last.code) == ("board's mirror", "approved", "POLICY_REVOKED")


def test_a_mirror_that_does_not_verify_says_nothing(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    world.approve()
    assert world.alice.requests.get(request).state is RequestState.APPROVED
    again = world.alice.requests.submit(world.document(collections=["other"]))
    assert again.state is RequestState.APPROVED
    (world.place.home.mirror / "metadata" / "timestamp.json").write_bytes(b"{}")
    third = world.alice.requests.submit(world.document(collections=["third"]))
    assert third.state is RequestState.SUBMITTED
    assert world.alice.requests.get(request).state is RequestState.APPROVED


def test_the_same_document_again_is_the_same_request(world: World) -> None:
    first = world.alice.requests.submit(world.document())
    assert world.alice.requests.submit(world.document()).id == first.id
    world.alice.requests.withdraw(first.id, "Not any more.")
    assert world.alice.requests.submit(world.document()).id != first.id
    assert [one.state for one in world.alice.requests.all()] == [
        RequestState.SUBMITTED,
        RequestState.WITHDRAWN,
    ]
    assert [one.id for one in world.alice.requests.all(RequestState.WITHDRAWN)] == [first.id]


def test_a_declined_request_may_still_be_approved_by_signatures_but_not_taken_up(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    world.desk.requests.decline(request, Declined(reason=DeclineReason.PURPOSE, text="For whom?"))
    last = world.alice.requests.history(request)[-1]
    assert (last.after, last.code, last.text) == ("declined", "purpose", "For whom?")
    with pytest.raises(UsageError, match="declined"):
        world.desk.requests.take_up(request)
    world.approve()
    assert world.alice.requests.get(request).state is RequestState.APPROVED


def test_who_may_not_move_a_request(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    for client in (
        world.alice,
        world.place.client(Role.OPERATOR, "op"),
        world.place.client(Role.AUDITOR, "eva"),
    ):
        with pytest.raises(TrustError):
            client.requests.take_up(request)
        with pytest.raises(TrustError):
            client.requests.decline(request, Declined(reason=DeclineReason.OTHER, text="x"))
    with pytest.raises(TrustError):
        world.desk.requests.withdraw(request)
    with pytest.raises(NotFoundError):
        world.place.client(Role.RESEARCHER, "mallory").requests.withdraw(request)
    assert world.states(request) == ["submitted"]


def test_a_request_for_a_train_that_is_not_here_is_refused(world: World) -> None:
    unknown = {"name": "trivial", "version": "1.0.1", "manifest_digest": digest_of(MANIFEST)}
    with pytest.raises(UsageError, match=r"no trivial 1\.0\.1") as found:
        world.alice.requests.submit(world.document(train=unknown))
    assert "submit" in found.value.hint


def test_what_is_no_request_is_refused(world: World) -> None:
    twice = b"schema_version: 1\nschema_version: 1\n"
    unsigned = request_yaml(world.requester.public_hex)
    for data in (b"", b"{}", b"[1]", b"a: &x [*x]", b"\xff\xfe", twice, b"x" * 70_000, unsigned):
        with pytest.raises((UsageError, DocumentError)):
            world.alice.requests.submit(data)
    assert world.alice.requests.all() == []


def test_a_researcher_has_a_bounded_number_of_open_requests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.registry.requests.MAX_OPEN", 2)
    for number in range(2):
        world.alice.requests.submit(world.document(collections=[f"c{number}"]))
    with pytest.raises(UsageError, match="2 of your requests are open"):
        world.alice.requests.submit(world.document(collections=["c3"]))


def test_a_copy_is_of_no_use_to_another_account_whoever_sends_theirs_first(world: World) -> None:
    mallory = world.place.client(Role.RESEARCHER, "mallory")
    with pytest.raises(UsageError, match="signed for another account"):
        mallory.requests.submit(world.document())
    request = world.alice.requests.submit(world.document()).id
    with pytest.raises(UsageError, match="signed for another account"):
        mallory.requests.submit(world.document())
    assert [one.id for one in world.desk.requests.all()] == [request]
    assert mallory.requests.all() == []
    world.approve()
    found = world.desk.requests.get(request)
    assert (found.state, found.owner, found.signed) == (RequestState.APPROVED, "alice", True)


@pytest.mark.parametrize("case", ["sender", "text", "other key", "other type", "no signature"])
def test_what_the_named_key_did_not_sign_is_not_kept(world: World, case: str) -> None:
    mine, theirs = world.document(), new_signer(world.folder)
    text = request_yaml(world.requester.public_hex)
    payload = unsafe_payload(mine, PAYLOAD_TYPE)
    forged = {
        "sender": resigned(mine, payload.replace(b'"alice"', b'"mallory"')),
        "text": resigned(mine, payload.replace(b"thorax", b"brains")),
        "other key": sign_envelope(payload, PAYLOAD_TYPE, theirs),
        "other type": sign_envelope(payload, "application/vnd.pht.run-order+json", world.requester),
        "no signature": resigned(mine, payload, signatures=[]),
    }[case]
    assert forged != mine
    sender = world.place.client(Role.RESEARCHER, "mallory") if case == "sender" else world.alice
    with pytest.raises(UsageError):
        sender.requests.submit(forged)
    assert world.desk.requests.all() == []
    with pytest.raises(TrustError, match="not the key"):
        sign_request(text, "mallory", theirs)
    assert world.place.services.audit.page(0)[0][-1].event.action == "request-refused"


def resigned(envelope: bytes, payload: bytes, **changes: object) -> bytes:
    """The envelope's signatures over something else."""
    return canonical_json(json.loads(envelope) | {"payload": base64.b64encode(payload).decode()} | changes)


def test_whoever_may_see_a_request_can_verify_it(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    for client in (world.alice, world.desk, world.place.client(Role.AUDITOR, "eva")):
        proven = verify_request(client.requests.envelope(request))
        assert (proven.sender, proven.document) == ("alice", client.requests.get(request).request)
    with pytest.raises(NotFoundError):
        world.place.client(Role.RESEARCHER, "mallory").requests.envelope(request)
    with pytest.raises(NotFoundError, match="never signed"):
        world.desk.requests.envelope(world.unsigned("alice"))


def test_two_accounts_of_one_key_each_ask_for_themselves(world: World) -> None:
    request = world.alice.requests.submit(world.document()).id
    second = world.place.client(Role.RESEARCHER, "alice-too")
    other = second.requests.submit(request_signed(world.requester, "alice-too")).id
    policy = world.approve()
    assert {one.state for one in world.desk.requests.all()} == {RequestState.APPROVED}
    assert not any(one.contested for one in world.desk.requests.all())
    world.order(policy)
    assert world.alice.requests.get(request).state is RequestState.ORDERED
    assert second.requests.get(other).state is RequestState.APPROVED


def test_a_request_of_an_earlier_version_stands_behind_one_that_is_signed(world: World) -> None:
    copied = world.unsigned("mallory")
    request = world.alice.requests.submit(world.document()).id
    world.approve()
    assert world.alice.requests.get(request).state is RequestState.APPROVED
    found = world.desk.requests.get(copied)
    assert (found.state, found.contested, found.signed) == (RequestState.SUBMITTED, True, False)


def test_a_request_of_an_earlier_version_is_signed_by_sending_it_again(world: World) -> None:
    copied, mine = world.unsigned("mallory"), world.unsigned("alice")
    world.approve()
    assert {one.state for one in world.desk.requests.all()} == {RequestState.SUBMITTED}
    sent = world.alice.requests.submit(world.document())
    assert (sent.id, sent.signed, sent.state) == (mine, True, RequestState.APPROVED)
    assert world.desk.requests.get(copied).state is RequestState.SUBMITTED


# What an earlier version took in proves no key.


def test_who_copies_a_request_from_the_mirror_follows_nobody_elses_run(world: World) -> None:
    request = world.unsigned("alice")
    policy = world.approve()
    assert world.alice.requests.get(request).state is RequestState.APPROVED
    mallory = world.place.client(Role.RESEARCHER, "mallory")
    copied = world.unsigned("mallory")
    assert {one.contested for one in world.desk.requests.all()} == {True}
    assert not mallory.requests.get(copied).contested
    world.run_is(world.order(policy), RunState.RUNNING)
    assert world.alice.requests.get(request).state is RequestState.RUNNING
    assert [step.after for step in mallory.requests.history(copied)] == ["submitted"]
    assert {one.id for one in world.desk.requests.all() if one.contested} == {copied}


def test_of_two_who_claim_one_key_the_policy_approves_neither(world: World) -> None:
    mallory = world.place.client(Role.RESEARCHER, "mallory")
    copied = world.unsigned("mallory")
    request = world.unsigned("alice")
    world.approve()
    assert {one.state for one in world.desk.requests.all()} == {RequestState.SUBMITTED}
    world.desk.requests.decline(copied, Declined(reason=DeclineReason.OTHER, text="Not your key."))
    assert world.alice.requests.get(request).state is RequestState.APPROVED
    world.alice.requests.withdraw(request)
    assert [step.after for step in mallory.requests.history(copied)] == ["submitted", "declined"]


def test_an_order_proves_whose_key_it_is(world: World) -> None:
    mallory = world.place.client(Role.RESEARCHER, "mallory")
    copied = world.unsigned("mallory")
    request = world.unsigned("alice")
    policy = world.approve()
    assert world.alice.requests.get(request).state is RequestState.SUBMITTED
    world.order(policy)
    assert world.alice.requests.get(request).state is RequestState.ORDERED
    assert mallory.requests.get(copied).state is RequestState.SUBMITTED


def test_an_approval_of_the_wrong_one_may_be_declined_and_no_other(world: World) -> None:
    mallory = world.place.client(Role.RESEARCHER, "mallory")
    copied = world.unsigned("mallory")
    policy = world.approve()
    assert mallory.requests.get(copied).state is RequestState.APPROVED
    why = Declined(reason=DeclineReason.OTHER, text="Not your key.")
    with pytest.raises(UsageError, match="approved"):
        world.desk.requests.decline(copied, why)
    world.run_is(world.order(policy), RunState.RUNNING)
    assert mallory.requests.get(copied).state is RequestState.APPROVED
    world.desk.requests.decline(copied, why)
    shown = mallory.requests.get(copied)
    assert (shown.state, shown.policy_id) == (RequestState.DECLINED, None)


def test_who_was_declined_may_ask_again_with_the_same_document(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.registry.requests.MAX_OPEN", 1)
    first = world.alice.requests.submit(world.document()).id
    world.desk.requests.decline(first, Declined(reason=DeclineReason.INCOMPLETE, text="Call us."))
    again = world.alice.requests.submit(world.document())
    assert (again.id != first, again.state) == (True, RequestState.SUBMITTED)
    world.approve()
    assert world.alice.requests.get(again.id).state is RequestState.APPROVED
    assert world.states(first) == ["submitted", "declined"]
    assert world.alice.requests.withdraw(first).state is RequestState.WITHDRAWN


def test_a_look_reads_each_run_once_and_not_more_often_than_its_pace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, read, me = world.place.services.requests, [], threading.get_ident()
    plain = RunFolder.read_progress

    def counted(folder: RunFolder) -> RunProgress:
        # The front follows as well, in a thread of its own.
        if threading.get_ident() == me:
            read.append(folder.order_digest)
        return plain(folder)

    for number in range(4):
        world.alice.requests.submit(world.document(collections=[f"c{number}"]))
    policy = world.approve()
    orders = sorted(world.order(policy) for _ in range(2))
    requests.follow(at_once=True)
    monkeypatch.setattr(RunFolder, "read_progress", counted)
    requests.follow(at_once=True)
    assert sorted(read) == orders
    monkeypatch.setattr("orchestrator.registry.requests.LOOK_AGAIN_S", 3600.0)
    requests.follow(at_once=True)
    read.clear()
    principal = Principal(Role.BOARD, "board")
    assert len(requests.all(principal)) == 4
    assert requests.get(principal, requests.all(principal)[0].id).state is RequestState.ORDERED
    assert read == []


def test_a_damaged_run_holds_its_own_request_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    request = world.alice.requests.submit(world.document()).id
    order = world.order(world.approve())
    world.run_is(order, RunState.RUNNING)
    assert world.alice.requests.get(request).state is RequestState.RUNNING
    state = world.place.home.run_folder(order) / "state.json"
    whole = state.read_bytes()
    state.write_bytes(b"{")
    bob = world.place.client(Role.RESEARCHER, "bob")
    other = bob.requests.submit(request_signed(new_signer(world.folder), "bob")).id
    assert world.desk.requests.take_up(other).state is RequestState.IN_REVIEW
    assert {one.id: one.state for one in world.desk.requests.all()} == {
        request: RequestState.RUNNING,
        other: RequestState.IN_REVIEW,
    }
    assert [record.message for record in caplog.records].count("run_of_request_damaged") == 1
    state.write_bytes(whole)
    world.run_is(order, RunState.FINISHED)
    assert world.alice.requests.get(request).state is RequestState.RELEASED
