"""The demo is a test: the whole main job on generated radiographs, and what it leaves behind holds what it says."""

import base64
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.identities import Phantoms
from tests.e2e.programs import run, run_json, run_to_its_end

ROUNDS = 2
HOSPITALS = {"hospital-a", "hospital-b", "hospital-c"}

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.superlink, pytest.mark.timeout(5500)]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demo-output"
    done = run_to_its_end(
        ["-m", "tests.e2e.demo", "--output", str(out), "--phantoms", "--rounds", str(ROUNDS)],
        5400,
        stderr=subprocess.PIPE,
    )
    sys.stdout.write(done.stdout)
    if done.returncode:
        # What went wrong comes last: of a long log often only the end is seen.
        pytest.fail(f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}", pytrace=False)
    return out


@pytest.fixture(scope="module")
def summary(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "summary.json").read_text()))


def test_every_round_had_all_three_hospitals(summary: dict[str, Any]) -> None:
    rounds = summary["training"]["rounds"]
    assert [entry["round"] for entry in rounds] == list(range(1, ROUNDS + 1))
    assert all(set(entry["took_part"]) == HOSPITALS and not entry["missing"] for entry in rounds)
    assert all(set(entry["train"]) == HOSPITALS for entry in rounds)


def test_the_model_is_whole_and_was_trained(output: Path, summary: dict[str, Any]) -> None:
    weights = load_file(output / "model.safetensors")
    assert len(weights) > 700
    assert all(np.isfinite(tensor).all() for tensor in weights.values() if tensor.dtype.kind == "f")
    provenance = json.loads((output / "provenance.json").read_text())
    text = json.dumps(provenance)
    assert summary["training"]["order"] in text
    assert all(name in text for name in HOSPITALS)
    assert (output / "metrics.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_test_auc_is_there_per_hospital(summary: dict[str, Any]) -> None:
    entry = summary["evaluation"]["rounds"][-1]
    assert set(entry["evaluate"]) == HOSPITALS
    assert any("auc" in metrics for metrics in entry["evaluate"].values())


def test_what_a_few_objections_change_is_not_told_by_counting_twice(summary: dict[str, Any]) -> None:
    counting = summary["counting"]
    assert set(counting["told"]) == HOSPITALS
    assert any(counting["told"].values())
    assert set(counting["again"]) == HOSPITALS
    # Where none of those who object was counted, the same numbers may leave again.
    assert "RELEASE_DIFFERENCE" in counting["again"].values()
    assert set(counting["again"].values()) <= {"RELEASE_DIFFERENCE", "as before"}


def test_what_should_be_refused_was_refused_by_its_code(summary: dict[str, Any]) -> None:
    codes = {each["what"]: set(each["codes"].values()) for each in summary["protection"] if "codes" in each}
    assert codes == {
        "a run order used twice": {"ORDER_SPENT"},
        "a train whose image differs by one byte": {"IMAGE_DIGEST"},
        "a policy signed by one member": {"POLICY_SIGNATURES_TOO_FEW"},
        "a hostile train's extra tensor": {"RELEASE_TENSOR_EXTRA"},
        "a revoked train, while it runs": {"POLICY_REVOKED"},
        "the trained order, a hospital withdrawn": {"STATION_REVOKED"},
        "a new order of a withdrawn requester": {"REQUESTER_REVOKED"},
    }
    attempts = next(each["attempts"] for each in summary["protection"] if "attempts" in each)
    assert set(attempts) == HOSPITALS
    assert all(
        len(lines) >= 10 and not any("REACHED" in line for line in lines) for lines in attempts.values()
    )


def test_the_killed_station_finished_its_round_once(summary: dict[str, Any]) -> None:
    killed = summary["killed_station"]
    assert set(killed["took_part"]) == HOSPITALS
    assert killed["releases"] == 2


def test_the_capacity_is_said(summary: dict[str, Any]) -> None:
    capacity = summary["review"]["capacity"]
    assert capacity["bits_per_round"] > 32 * 6_000_000
    assert capacity["radiographs"] > 1


@pytest.mark.parametrize("hospital", sorted(HOSPITALS))
@pytest.mark.parametrize("chain", ["audit", "egress"])
def test_the_books_verify_without_the_station_and_show_tampering(
    output: Path, hospital: str, chain: str, tmp_path: Path
) -> None:
    folder = output / hospital
    view = run_json("pht-station", chain, "verify", "--file", folder / f"{chain}.jsonl", "--home", folder)
    assert view["intact"]
    assert view["entries"] > 5
    bent = tmp_path / f"{chain}.jsonl"
    data = bytearray((folder / f"{chain}.jsonl").read_bytes())
    data[len(data) // 2] ^= 1
    bent.write_bytes(bytes(data))
    run("pht-station", chain, "verify", "--file", bent, "--home", folder, expect=4)


def test_the_evidence_verifies_from_the_root_alone_and_shows_tampering(output: Path, tmp_path: Path) -> None:
    pack, root = output / "evidence-hospital-a.zip", output / "1.root.json"
    verdict = run_json("pht-board", "evidence", "verify", pack, "--root", root)
    assert verdict["holds"]
    said = verdict["run"]
    assert (said["station"], said["state"]) == ("hospital-a", "finished")
    assert len(said["releases"]) == 2 * ROUNDS
    assert said["privacy_spent"]["mechanism"] == "none"
    bent = tmp_path / "bent.zip"
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    bent.write_bytes(bytes(data))
    run("pht-board", "evidence", "verify", bent, "--root", root, expect=5)


def test_the_public_register_shows_what_was_permitted(output: Path) -> None:
    for language in ("nl", "en"):
        pages = {path.name for path in (output / "register" / language / "studies").iterdir()}
        assert pages == {"cxr-classification.html", "cxr-evaluation.html"}
    assert "privacy@hospital-a.example" in (output / "register" / "nl" / "objection.html").read_text()


def test_the_register_afterwards_shows_what_was_withdrawn(output: Path) -> None:
    after = output / "register-after-withdrawals"
    withdrawn = json.loads((after / "register.json").read_bytes())["withdrawn"]
    assert [entry["policy_id"] for entry in withdrawn["revoked"]] == ["tiny"]
    assert len(withdrawn["requesters"]) == 1
    assert [entry["name"] for entry in withdrawn["stations"]] == ["hospital-c"]
    # Every study was of the requester that was withdrawn.
    assert not list((after / "nl" / "studies").glob("*.html"))
    for language in ("nl", "en"):
        page = (after / language / "decisions.html").read_text()
        for reason in (
            "shown to be revocable",
            "the key was shown around",
            "its agreement was shown to be revocable",
        ):
            assert reason in page


def test_nothing_identified_is_in_what_the_demo_leaves(output: Path) -> None:
    data = {path for path in output.rglob("*") if path.suffix in {".dcm", ".csv", ".nii"}}
    assert {path.name for path in data} == {"metrics.csv"}
    patients = Phantoms.of_the_demo()
    left = [path for path in output.rglob("*") if path.is_file()]
    assert len(left) > 20
    found = {str(path.relative_to(output)): patients.found_in(path.read_bytes()) for path in left}
    assert not {place: who for place, who in found.items() if who}


def test_what_is_identified_would_be_found() -> None:
    patients = Phantoms.of_the_demo()
    person = patients.people[-1]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("entry.txt", f"seen at hospital-c: {person.patient_id}")
    for data in (
        f"00_{person.patient_id}.json".encode(),
        f'{{"who": "{person.family}^{person.given}"}}'.encode(),
        person.citizen_number.encode(),
        person.studies[0].accession.encode(),
        person.birth.isoformat().encode(),
        json.dumps(
            {"payload": base64.b64encode(f"patient {person.patient_id} came".encode()).decode()}
        ).encode(),
        packed.getvalue(),
    ):
        assert patients.found_in(data)
    assert not patients.found_in(f"sha256:{person.patient_id}abc 0.{person.patient_id}".encode())
