"""The pack of a real run: it verifies from the root alone, tells of that run only, and of no patient."""

import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from evidence_kit import EvidenceRun, members
from sqlalchemy import text
from station_kit import order_digest

from policies.documents import digest_of
from policies.errors import NotFoundError, StateError
from policies.evidence import verify_pack
from policies.evidence.archive import DIGESTS, LEDGER
from policies.wire.instructions import Kind
from station.audit.events import AuditEvent, AuditRecord
from station.egress.records.repeats import LIMIT
from station.evidence.kept import keep_terms


@pytest.fixture
def run(tmp_path: Path) -> Iterator[EvidenceRun]:
    made = EvidenceRun.make(tmp_path)
    yield made
    made.kit.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceRun]:
    """A run that tests read and leave as it is."""
    made = EvidenceRun.make(tmp_path_factory.mktemp("shared"))
    yield made
    made.kit.close()


def test_it_verifies_from_the_root_alone(shared: EvidenceRun) -> None:
    verdict = verify_pack(shared.pack(), shared.root, shared.kit.clock())
    assert verdict.holds, verdict.findings
    assert [finding.step for finding in verdict.findings] == [
        "container", "files", "repository", "board", "order", "statement", "ledger",
    ]  # fmt: skip
    assert verdict.notes == ()
    said = verdict.run
    assert said is not None
    assert [(release.round, release.stage) for release in said.releases] == [
        (1, "train"), (1, "evaluate"), (2, "train"), (2, "evaluate"),
    ]  # fmt: skip
    assert all(release.arrays_bytes for release in said.releases if release.stage == "train")
    assert all(release.examples % 10 == 0 for release in said.releases)
    assert said.privacy_spent.mechanism == "none"
    assert said.refusals == {}


def test_what_is_expired_by_now_was_valid_then(shared: EvidenceRun) -> None:
    verdict = verify_pack(shared.pack(), shared.root, shared.kit.clock() + timedelta(days=4000))
    assert verdict.holds, verdict.findings
    assert [note.split(" was valid then")[0] for note in verdict.notes] == [
        "The state of the repository",
        "The policy",
    ]


def test_a_withdrawn_policy_does_not_change_what_was_permitted_then(run: EvidenceRun) -> None:
    board = run.kit.board
    board.repository.revoke("cxr-classification", 1, "the label was wrong", now=run.kit.clock())
    run.kit.policy_is_fresh()
    assert verify_pack(run.pack(), run.root, run.kit.clock()).holds


def test_the_same_run_gives_the_same_bytes_whatever_happened_since(run: EvidenceRun) -> None:
    run.kit.message(run.envelope, Kind.FINISH)
    before = run.pack("before.zip").read_bytes()
    other = run.kit.ready()
    run.round(1, other)
    run.kit.audit.append(AuditRecord(event=AuditEvent.AUDIT_EXPORTED, actor="operator:desk"))
    run.kit.clock.forward(hours=1)
    assert run.pack("after.zip").read_bytes() == before


def test_a_run_that_was_asked_again_without_end_and_whose_payloads_are_purged(run: EvidenceRun) -> None:
    told = verify_pack(run.pack("before.zip"), run.root, run.kit.clock()).run
    for attempt in range(2, LIMIT + 10):
        run.kit.message(run.envelope, Kind.EVALUATE, 1, attempt=attempt)
        run.kit.message(run.envelope, Kind.EVALUATE, 9, attempt=attempt)
    run.kit.rounds.outbox.repeats.flush()
    with run.kit.database.write() as session:
        session.execute(text("UPDATE releases SET purged = '2026-11-22T12:00:00.000000Z', reply = x''"))
    verdict = verify_pack(run.pack("after.zip"), run.root, run.kit.clock())
    assert verdict.holds, verdict.findings
    assert told is not None
    assert verdict.run is not None
    assert verdict.run.releases == told.releases


def test_nothing_of_another_run_is_in_it(run: EvidenceRun) -> None:
    other = run.kit.ready()
    run.round(1, other)
    run.kit.message(run.envelope, Kind.FINISH)
    content = members(run.pack())
    whole = b"".join(content.values())
    assert order_digest(other).removeprefix("sha256:").encode() not in whole
    assert json.loads(other)["payload"].encode() not in whole
    # The other run's entries lie between ours: their digests are listed, their content is not.
    entries = [json.loads(line) for line in content[LEDGER].splitlines()]
    listed = content[DIGESTS].decode().splitlines()
    assert len(listed) > len(entries) + 1
    assert {entry["order_digest"] for entry in entries} == {run.digest}
    assert verify_pack(run.kit.folder / "evidence.zip", run.root, run.kit.clock()).holds
    assert verify_pack(run.pack("other.zip", order_digest(other)), run.root, run.kit.clock()).holds


def test_no_patient_no_path_no_log_text_and_no_word_of_the_audit_is_in_it(run: EvidenceRun) -> None:
    canary = "CANARY-7316-van-der-Berg"
    run.kit.audit.append(
        AuditRecord(
            event=AuditEvent.TRAIN_FAILED, actor=f"operator:{canary}", object=run.digest, outcome="failed",
            detail=f"{canary} at /srv/{canary}", codes=("CONSENT_WITHDRAWN", "TRAIN_CRASHED"),
        )
    )  # fmt: skip
    kit = run.kit
    pack = run.pack()
    whole = pack.read_bytes() + b"".join(members(pack).values())
    with kit.database.read() as session:
        pseudonyms = {row[0] for row in session.execute(text("SELECT patient FROM cohort_usage_patients"))}
    assert len(pseudonyms) > 10
    secrets = {canary, str(kit.folder), "/srv/", "what the train printed", "CONSENT_WITHDRAWN"}
    for secret in secrets | pseudonyms:
        assert secret.encode() not in whole, secret
    verdict = verify_pack(pack, run.root, kit.clock())
    assert verdict.run is not None
    assert verdict.run.refusals == {"TRAIN_CRASHED": 1}


def test_a_zip_tool_reads_it_and_every_date_is_the_same(shared: EvidenceRun) -> None:
    with zipfile.ZipFile(shared.pack()) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_order_that_was_never_admitted_has_no_pack(shared: EvidenceRun) -> None:
    with pytest.raises(NotFoundError):
        shared.pack("none.zip", digest_of(b"no order"))
    assert not list(shared.kit.folder.glob("*none.zip*"))


def test_what_was_kept_first_stands(run: EvidenceRun) -> None:
    place = run.kit.paths.trust / "runs" / f"{run.digest.removeprefix('sha256:')}.json"
    before = place.read_bytes()
    assert place.stat().st_mode & 0o777 == 0o600
    run.kit.clock.forward(minutes=10)
    run.kit.policy_is_fresh()
    run.kit.again()
    run.kit.prepare(run.envelope)
    assert place.read_bytes() == before
    with pytest.raises(StateError, match="does not hold the run's policy"):
        keep_terms(run.kit.paths.trust, digest_of(b"another"), ("no-policy", 1), b"", run.kit.clock())
