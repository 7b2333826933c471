"""How much one party may keep: counted from what is there, refused with what to do, free again once it is gone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from orchestrator_site import LAYER, Site, send, send_bundle, site
from orchestrator_site import weights as initial_weights
from result_documents import accepted_order
from tool_kit import Tool

from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.federation.updates import update_path
from orchestrator.registry.access import Principal, Role, order_scope
from orchestrator.registry.quota import QuotaError
from orchestrator.services import open_services
from orchestrator.settings import LimitSettings
from orchestrator.storage import OrderRow
from policies.documents import digest_of
from policies.errors import ExitCode, NotFoundError, UsageError

MIB = 1 << 20
ALICE, AMSTEL = Principal(Role.RESEARCHER, "alice"), Principal(Role.STATION, "amstel")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, researcher_mib=2, station_mib=1) as found:
        yield found


def _bytes(number: int, size: int) -> bytes:
    return bytes([number]) * size


def test_a_researcher_who_keeps_too_much_is_told_what_to_do_and_can_do_it(
    place: Site, tmp_path: Path
) -> None:
    alice = place.client(Role.RESEARCHER, "alice")
    first = send(alice, tmp_path, _bytes(1, MIB))
    send(alice, tmp_path, _bytes(2, MIB - 1000))
    with pytest.raises(UsageError, match=r"limits\.researcher_mib: 2\.0 of 2 MiB are used") as refused:
        send(alice, tmp_path, _bytes(3, 1001))
    assert "pht-train storage delete" in refused.value.hint
    send(alice, tmp_path, _bytes(4, 1000))
    # Another one's room is their own.
    bob = place.client(Role.RESEARCHER, "bob")
    send(bob, tmp_path, _bytes(1, MIB))
    assert alice.holding().used_bytes == 2 * MIB
    alice.delete_blob(first.digest)
    assert not alice.has_blob(first.digest)
    assert bob.has_blob(first.digest)
    send(alice, tmp_path, _bytes(3, 1001))
    bob.delete_blob(first.digest)
    assert place.services.blobs.path(first.digest) is None
    with pytest.raises(NotFoundError):
        bob.delete_blob(first.digest)
    said = [one.event for one in place.services.audit.page(0)[0] if one.event.action == "blob-removed"]
    assert [one.who for one in said] == ["researcher:alice", "researcher:bob"]


def test_the_problem_says_limit_and_use_for_a_program_to_read(place: Site) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "alice")
    data = _bytes(1, 3 * MIB)
    with place.raw(Authorization=f"Bearer {token}") as http:
        target = f"/api/v1/blobs/{digest_of(data)}"
        # Announced, and not sent: it is refused before a byte.
        answer = http.put(target, headers={"Content-Range": f"bytes 0-0/{len(data)}"}, content=b"x")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    body = answer.json()
    assert body["code"] == "QUOTA_EXCEEDED"
    assert (body["limit_bytes"], body["used_bytes"], body["asked_bytes"]) == (2 * MIB, 0, 3 * MIB)
    assert place.services.quotas.used(ALICE) == 0


def test_uploads_at_once_do_not_pass_together(place: Site) -> None:
    quotas = place.services.quotas
    gate, got = threading.Barrier(8), []

    def one(number: int) -> bool:
        gate.wait(60)
        try:
            got.append(
                quotas.begin(ALICE, MIB // 2, path=Path(f"{number}"), digest=digest_of(bytes([number])))
            )
        except QuotaError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 4
    assert quotas.used(ALICE) == 2 * MIB
    got[0].end()
    with pytest.raises(QuotaError):
        quotas.check(ALICE, MIB // 2 + 1)
    quotas.check(ALICE, MIB // 2)
    for share in got[1:]:
        share.end()
    assert quotas.used(ALICE) == 0


def test_who_announces_little_for_much_that_is_kept_makes_no_room(place: Site, tmp_path: Path) -> None:
    alice, quotas = place.client(Role.RESEARCHER, "alice"), place.services.quotas
    kept = send(alice, tmp_path, _bytes(1, 2 * MIB - 10))
    left = place.services.blobs.partial_path(digest_of(b"left"), ALICE.id)
    left.write_bytes(b"123456789")
    share = quotas.begin(ALICE, 1, path=left, digest=kept.digest)
    assert quotas.used(ALICE) == 2 * MIB - 1
    with pytest.raises(QuotaError):
        quotas.check(ALICE, 2)
    share.end()
    # The same bytes once more are no more bytes.
    left.unlink()
    quotas.begin(ALICE, 2 * MIB - 10, digest=kept.digest).end()


def test_what_is_left_of_an_upload_counts_until_it_is_removed(place: Site, tmp_path: Path) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "alice")
    data = _bytes(1, MIB + MIB // 2)
    digest = digest_of(data)
    with place.raw(Authorization=f"Bearer {token}") as http:
        half = {"Content-Range": f"bytes 0-{MIB - 1}/{len(data)}"}
        assert http.put(f"/api/v1/blobs/{digest}", headers=half, content=data[:MIB]).status_code == 201
    alice = place.with_token(token)
    assert alice.holding().used_bytes == MIB
    with pytest.raises(UsageError, match="researcher_mib"):
        send(alice, tmp_path, _bytes(2, MIB + 1))
    # The rest of the same one is within: what is here of it is not counted twice.
    send(alice, tmp_path, data)
    assert alice.holding().used_bytes == len(data)
    alice.delete_blob(digest)
    with place.raw(Authorization=f"Bearer {token}") as http:
        http.put(f"/api/v1/blobs/{digest}", headers=half, content=data[:MIB])
    assert [one.use for one in alice.holding().blobs] == ["unfinished"]
    alice.delete_blob(digest)
    assert alice.holding().used_bytes == 0


def test_the_count_is_that_of_the_disk_also_for_a_process_that_just_began(
    place: Site, tmp_path: Path
) -> None:
    alice = place.client(Role.RESEARCHER, "alice")
    send_bundle(alice, tmp_path)
    used = alice.holding().used_bytes
    documents = used - sum(one.size for one in alice.holding().blobs)
    assert 0 < documents < 10_000, "the index in the database counts too"
    again = open_services(place.home)
    assert again.quotas.used(ALICE) == used
    again.close()


def test_what_a_train_or_an_unfinished_order_needs_is_not_removed(place: Site, tmp_path: Path) -> None:
    alice = place.client(Role.RESEARCHER, "alice")
    layer = send_bundle(alice, tmp_path).layers[0]
    with pytest.raises(UsageError, match="by a train"):
        alice.delete_blob(layer.digest)
    weights = send(alice, tmp_path, initial_weights())
    accepted = accepted_order(folder=tmp_path)
    run = FolderQueue(place.home.runs).submit(accepted)
    now = datetime.now(UTC)
    with place.services.database.transaction() as session:
        session.add(
            OrderRow(
                digest=accepted.order_digest,
                order_id=accepted.order.order_id,
                policy_id="p",
                policy_version=1,
                requester="researcher:alice",
                accepted=now,
            )
        )
    place.services.access.grant(weights.digest, order_scope(accepted.order_digest))
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.FAILED):
        run.write_progress(RunProgress(state=state))
        with pytest.raises(UsageError, match="by an order that is not finished"):
            alice.delete_blob(weights.digest)
    assert {one.digest: one.use for one in alice.holding().blobs}[weights.digest] == "order"
    run.write_progress(RunProgress(state=RunState.FINISHED))
    alice.delete_blob(weights.digest)
    assert place.services.blobs.path(weights.digest) is None
    assert place.services.blobs.path(layer.digest) is not None


def test_a_station_fills_no_more_than_its_own_room(place: Site) -> None:
    quotas, folder = place.services.quotas, place.home.blobs
    for number in range(3):
        update = update_path(folder, digest_of(bytes([number % 2])), "amstel", digest_of(bytes([9, number])))
        update.parent.mkdir(parents=True, exist_ok=True)
        update.write_bytes(_bytes(number, 300_000))
    assert quotas.used(AMSTEL) == 900_000
    with pytest.raises(QuotaError, match=r"limits\.station_mib"):
        quotas.check(AMSTEL, MIB - 900_000 + 1)
    quotas.check(AMSTEL, MIB - 900_000)
    quotas.check(Principal(Role.STATION, "berkel"), MIB)
    update.unlink()
    quotas.check(AMSTEL, MIB - 600_000)


def test_the_tool_shows_what_is_kept_and_frees_it(
    place: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool, token = Tool(capsys), tmp_path / "token"
    token.write_text(place.services.access.new_token(Role.RESEARCHER, "alice"))
    alice = ("--to", place.url, "--token-file", token, "--ca", place.ca)
    sent = send(place.with_token(token.read_text()), tmp_path, _bytes(1, MIB))
    shown = tool("storage", "list", *alice)
    assert sent.digest in shown
    assert "1.0 MiB are used of 2 MiB" in shown
    assert "digest" in tool.error(ExitCode.USAGE, "storage", "delete", "../runs", *alice)
    assert "Removed" in tool("storage", "delete", sent.digest, *alice)
    assert "0.0 MiB are used" in tool("storage", "list", *alice)


def test_without_a_limit_only_where_the_settings_say_so(tmp_path: Path) -> None:
    default = LimitSettings().quota()
    assert default.researcher_bytes == 262_144 * MIB
    assert default.station_bytes == 65_536 * MIB
    with site(tmp_path, researcher_mib=0) as place:
        place.services.quotas.check(ALICE, 1 << 60)


def test_pushed_images_count_too(place: Site) -> None:
    token = place.services.access.new_token(Role.RESEARCHER, "alice")
    with place.raw(Authorization=f"Bearer {token}") as http:
        began = http.post("/v2/trivial/blobs/uploads/")
        where = began.headers["location"]
        assert http.patch(where, content=_bytes(1, MIB)).status_code == 202
        assert place.services.quotas.used(ALICE) == MIB
        # In pieces, without a length: it is refused when there is too much of it.
        refused = http.patch(where, content=iter([_bytes(2, MIB), _bytes(3, MIB)]))
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "DENIED")
        assert "limits.researcher_mib" in refused.json()["errors"][0]["message"]
        assert place.services.quotas.used(ALICE) <= 2 * MIB
        assert http.delete(where).status_code == 204
        assert place.services.quotas.used(ALICE) == 0
        whole = http.post(f"/v2/trivial/blobs/uploads/?digest={digest_of(LAYER)}", content=LAYER)
        assert whole.status_code == 201
        assert place.services.quotas.used(ALICE) == len(LAYER)
