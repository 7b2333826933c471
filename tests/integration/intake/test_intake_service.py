"""Intake as a process: its API, its token, SIGTERM, and SIGKILL at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pseudonym_files import file_bytes, identified

from station.handover import InstancesContent, load_public_key, read_handover, read_instance
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.staging import stage_folder
from station.supervisor import answers

ROOT = Path(__file__).resolve().parents[3]
SERVE = (
    "import sys; from pathlib import Path; from station.logs import log_as_json_lines; log_as_json_lines();"
    "from station.intake.service import serve; from station.intake.settings import IntakeSettings;"
    "serve(Path(sys.argv[1]), IntakeSettings(collections=('cxr',)))"
)
DEADLINE_S = 180.0


class Service:
    """A running intake."""

    def __init__(self, paths: IntakePaths, log: Path) -> None:
        self.paths = paths
        paths.socket.unlink(missing_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(paths.home)], cwd=ROOT, stdout=output, stderr=output
            )
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(paths.socket)), base_url="http://intake", timeout=180
        )
        self.client.headers["Authorization"] = f"Bearer {paths.token.read_text()}"
        wait_for(self.listens)

    def listens(self) -> bool:
        assert self.process.poll() is None, "the service ended"
        return answers(self.paths.socket)

    def batch(self, name: str) -> dict[str, Any]:
        view: dict[str, Any] = self.client.get(f"/v1/batches/{name}").raise_for_status().json()
        return view

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.client.close()
        return self.process.wait(DEADLINE_S)


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask until it holds or the deadline is over."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline is over"
        os.sched_yield()
        time.sleep(0.02)


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def start(paths: IntakePaths, tmp_path: Path) -> Iterator[Callable[[], Service]]:
    running: list[Service] = []

    def begin() -> Service:
        running.append(Service(paths, tmp_path / "log"))
        return running[-1]

    yield begin
    for service in running:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def source(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        dataset = identified(
            SOPInstanceUID=f"1.2.3.1.{number}",
            StudyInstanceUID=f"1.2.3.2.{number}",
            PatientID=f"{3748755 + number}",
        )
        (folder / f"{number}.dcm").write_bytes(file_bytes(dataset))
    return folder


def handed_over(paths: IntakePaths) -> list[str]:
    public_key = load_public_key(paths.handover_public_key)
    found = []
    for entry in read_handover(paths.handover, public_key):
        if isinstance(entry.content, InstancesContent):
            for record in entry.content.instances:
                assert read_instance(paths.handover, record)
                found.append(record.sop_instance_uid)
    return found


def test_a_batch_over_the_api(paths: IntakePaths, start: Callable[[], Service], tmp_path: Path) -> None:
    service = start()
    name = stage_folder(paths.home, source(tmp_path / "source", 5))
    accepted = service.client.post("/v1/batches", json={"batch": name, "collection": "cxr"})
    assert accepted.status_code == 200
    assert accepted.json()["files"] == 5
    wait_for(lambda: bool(service.batch(name)["finished"]))
    assert service.batch(name)["handed_over"] == 5
    register = b"patient_id,decision,purpose,date\n3748755,consent,research-participants,2020-11-05\n"
    imported = service.client.post(
        "/v1/consent", content=register, params={"source_date": "2026-01-31T12:00:00Z"}
    )
    assert imported.json() == {"entries": 1, "handed_over": 1, "ambiguous_ids": 0, "sequence": 1}
    export = b"patient_id,accession,pneumonia,sex,birth_date,temperature_c,crp_mg_l,smoker\n3748755,A20086678,1,F,,,,\n"
    imported = service.client.post("/v1/clinical", content=export, params={"collection": "cxr"})
    assert {name: imported.json()[name] for name in ("rows", "linked", "handed_over")} == {
        "rows": 1, "linked": 1, "handed_over": 1,
    }  # fmt: skip
    status = service.client.get("/v1/status").json()
    assert (status["patients"], status["instances"], status["consent_sequence"]) == (5, 5, 1)
    assert status["consent_source_date"] == "2026-01-31T12:00:00Z"
    assert [batch["batch"] for batch in service.client.get("/v1/batches").json()] == [name]
    assert service.end(signal.SIGTERM) == 0
    assert not paths.socket.exists()
    log = (tmp_path / "log").read_text()
    assert "intake-batch-finished" in log
    assert not [word for word in ("Testpatient", "3748755", "1.2.3.1", "A20086678") if word in log]


def test_what_the_api_refuses(paths: IntakePaths, start: Callable[[], Service]) -> None:
    service = start()
    assert paths.socket.stat().st_mode & 0o077 == 0
    client = service.client
    for header in ("", "Bearer", "Bearer wrong", paths.token.read_text()):
        answer = client.get("/v1/status", headers={"Authorization": header})
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/batches/20261122T000000-00000000").status_code == 404
    unknown = client.post("/v1/batches", json={"batch": "../keys", "collection": "cxr"})
    assert (unknown.status_code, unknown.json()["exit_code"]) == (404, 9)
    collection = client.post("/v1/batches", json={"batch": "20261122T000000-00000000", "collection": "other"})
    assert (collection.status_code, collection.json()["exit_code"]) == (409, 2)
    wrong = client.post("/v1/consent", content=b"patient_id,decision\n3748755,yes\n")
    assert (wrong.status_code, wrong.json()["exit_code"]) == (422, 8)
    assert wrong.json()["title"] == "consent.csv, line 1, column purpose: the column is missing"
    assert "3748755" not in wrong.text


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.15, 0.4])
def test_killed_at_any_moment_it_finishes_its_spool(
    paths: IntakePaths, start: Callable[[], Service], tmp_path: Path, wait_s: float
) -> None:
    service = start()
    name = stage_folder(paths.home, source(tmp_path / "source", 40))
    service.client.post("/v1/batches", json={"batch": name, "collection": "cxr"}).raise_for_status()
    time.sleep(wait_s)  # the moment of the kill is the test's parameter, nothing is awaited
    service.end(signal.SIGKILL)
    service = start()
    wait_for(lambda: bool(service.batch(name)["finished"]))
    assert service.batch(name)["handed_over"] == 40
    assert service.end(signal.SIGTERM) == 0
    found = handed_over(paths)
    assert len(found) == len(set(found)) == 40
    assert list(paths.spool.iterdir()) == []


def test_sigterm_in_the_middle_of_a_batch_stops_between_two_files(
    paths: IntakePaths, start: Callable[[], Service], tmp_path: Path
) -> None:
    service = start()
    name = stage_folder(paths.home, source(tmp_path / "source", 200))
    service.client.post("/v1/batches", json={"batch": name, "collection": "cxr"}).raise_for_status()
    wait_for(lambda: service.batch(name)["done"] > 0)
    assert service.end(signal.SIGTERM) == 0
    with Intake(paths) as intake:
        for left in intake.recover():
            intake.process_batch(left)
        report = intake.batch(name)
        assert report is not None
        assert report.accepted == 200
    found = handed_over(paths)
    assert len(found) == len(set(found)) == 200


def test_a_second_service_on_one_intake_ends_with_an_error(
    start: Callable[[], Service], paths: IntakePaths
) -> None:
    start()
    second = subprocess.run(
        [sys.executable, "-c", SERVE, str(paths.home)],
        cwd=ROOT,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert second.returncode != 0
    assert b"another process works on this intake" in second.stderr
