"""A pack of a run that admission must have refused does not hold, however well it is signed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from board_kit import NOW, permitted, register_yaml
from evidence_kit import EvidenceRun, members, resigned
from station_kit import MANIFEST, STATIONS

from policies.charter import REGISTER_PAYLOAD_TYPE, REGISTER_TARGET
from policies.evidence import Verdict, verify_pack
from policies.evidence.archive import TARGETS
from policies.purposes import PURPOSES_TARGET
from policies.trust.revocations import REVOKED_TARGET
from station.evidence.kept import keep_terms

OTHER_RULES = [
    {"purpose": "external-validation", "requester_class": "commercial", "consents": ["research-commercial"]}
]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[EvidenceRun]:
    made = EvidenceRun.make(tmp_path)
    yield made
    made.kit.close()


def nothing(run: EvidenceRun) -> None:
    """The state that the run was admitted under."""


def other_purposes(run: EvidenceRun) -> None:
    board = run.kit.board
    board.repository.set_purposes(board.signed_purposes(2, {"rules": OTHER_RULES}))
    board.publish()


def no_purposes(run: EvidenceRun) -> None:
    listed = dict(run.kit.board.repository.listed())
    del listed[PURPOSES_TARGET]
    run.kit.board.publish_unchecked(listed)


def a_withdrawn_peer(run: EvidenceRun) -> None:
    run.kit.board.repository.revoke_station("dommel", "left the study", now=NOW)
    run.kit.board.publish()


def a_peer_that_is_not_registered(run: EvidenceRun) -> None:
    document = yaml.safe_load(register_yaml(3, *STATIONS[:2]))
    document["stations"][0]["identity_key"] = run.identity.public_key().public_bytes_raw().hex()
    board = run.kit.board
    board.repository.set_register(
        board.signed(yaml.safe_dump(document).encode(), "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE)
    )
    board.publish()


def admitted_under(run: EvidenceRun, change: Callable[[EvidenceRun], None]) -> Verdict:
    """The verdict on a pack whose station says that it admitted the run under another state of the board's."""
    change(run)
    permitted(run.kit.board.client("other").refresh(NOW))
    kept = Path("runs") / f"{run.digest.removeprefix('sha256:')}.json"
    other = run.kit.board.folder / "other"
    keep_terms(other, run.digest, ("cxr-classification", 1), MANIFEST, NOW)
    (run.kit.paths.trust / kept).write_bytes((other / kept).read_bytes())
    return verify_pack(run.pack(), run.root, run.kit.clock())


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        (other_purposes, PURPOSES_TARGET, "PURPOSE_NOT_PERMITTED"),
        (no_purposes, PURPOSES_TARGET, "PURPOSE_TABLE_MISSING"),
        (a_withdrawn_peer, REVOKED_TARGET, "STATION_REVOKED"),
        (a_peer_that_is_not_registered, REGISTER_TARGET, "STATION_NOT_REGISTERED"),
    ],
)
def test_what_admission_refuses_has_no_evidence(
    run: EvidenceRun, change: Callable[[EvidenceRun], None], path: str, code: str
) -> None:
    verdict = admitted_under(run, change)
    assert not verdict.holds
    last = verdict.findings[-1]
    assert (last.step, last.where) == ("order", TARGETS + path), last
    assert code in last.text


def test_what_admission_permits_holds(run: EvidenceRun) -> None:
    verdict = admitted_under(run, nothing)
    assert verdict.holds, verdict.findings


def test_roots_are_those_that_lead_from_the_readers_own(run: EvidenceRun) -> None:
    board = run.kit.board
    first = run.root
    board.repository.root.propose(replace(board.plan, threshold=2), now=NOW)
    for name in ("alice", "carol"):
        board.repository.root.sign(board.keys[name])
    board.publish()
    verdict = admitted_under(run, nothing)
    assert verdict.holds, verdict.findings
    pack = run.pack()
    second = members(pack)["trust/2.root.json"]
    verdict = verify_pack(pack, second, NOW)
    assert verdict.holds, verdict.findings
    assert verdict.notes == ("Older than your root, and not checked: 1.root.json.",)
    for name, root in (("2.root.json", first), ("4.root.json", second)):
        verdict = verify_pack(resigned(run, pack, files={f"trust/{name}": root}), second, NOW)
        assert (verdict.holds, verdict.findings[-1].where) == (False, f"trust/{name}")
