"""The operator's commands for the quarantine and for merges, against the running service."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from intake_kit import CANARIES, folder_of, image, live_instances, zip_of

from station.intake.installation import init_intake
from station.intake.paths import IntakePaths
from station.intake.staging import stage
from station.supervisor import answers

ROOT = Path(__file__).resolve().parents[3]
SERVE = (
    "import sys; from pathlib import Path; from station.logs import log_as_json_lines; log_as_json_lines();"
    "from station.intake.service import serve; from station.intake.settings import IntakeSettings;"
    "from station.pseudonymisation.pixels.settings import PixelSettings;"
    "serve(Path(sys.argv[1]), IntakeSettings(collections=('cxr',), look_every_s=0.2, pixels=PixelSettings(inspect='off')))"
)
WHO = {"operator": "steward", "reason": "looked at it"}
DEADLINE_S = 180.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline is over"
        threading.Event().wait(0.02)


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def service(paths: IntakePaths, tmp_path: Path) -> Iterator[httpx.Client]:
    with (tmp_path / "log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(paths.home)], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        wait_for(lambda: process.poll() is not None or answers(paths.socket))
        assert process.poll() is None, (tmp_path / "log").read_text()
        transport = httpx.HTTPTransport(uds=str(paths.socket))
        with httpx.Client(transport=transport, base_url="http://intake", timeout=60) as client:
            client.headers["Authorization"] = f"Bearer {paths.token.read_text()}"
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    log = (tmp_path / "log").read_text()
    assert not [word for word in (*CANARIES, "1.2.826", "9252896") if word in log]


def finished(service: httpx.Client, name: str) -> bool:
    answer = service.get(f"/v1/batches/{name}")
    return answer.status_code == 200 and bool(answer.json()["finished"])


def test_an_addressed_batch_is_taken_up_by_itself(
    paths: IntakePaths, service: httpx.Client, tmp_path: Path
) -> None:
    name = stage(paths.home, zip_of(tmp_path / "a.zip", {"x/1.dcm": image(1), "x/a.txt": b"x"}), "cxr")
    wait_for(lambda: finished(service, name))
    assert service.get(f"/v1/batches/{name}").json() | {"batch": ""} == {
        "batch": "", "collection": "cxr", "files": 1, "skipped": 1, "done": 1, "handed_over": 1, "duplicates": 0,
        "quarantined": {}, "finished": True,
    }  # fmt: skip
    elsewhere = stage(paths.home, folder_of(tmp_path, image(2)), "not-offered")
    assert service.get(f"/v1/batches/{elsewhere}").status_code == 404


def test_a_person_empties_the_queue(paths: IntakePaths, service: httpx.Client, tmp_path: Path) -> None:
    name = stage(paths.home, folder_of(tmp_path, image(1), image(1, PixelData=bytes(12)), b"no DICOM"), "cxr")
    wait_for(lambda: finished(service, name))
    queue = service.get("/v1/quarantine").json()
    assert queue["counts"] == {"instance-conflict": 1, "not-dicom": 1}
    conflict, garbage = (file["id"] for file in queue["files"])
    assert [file["id"] for file in service.get("/v1/quarantine?reason=not-dicom").json()["files"]] == [
        garbage
    ]
    shown = service.get(f"/v1/quarantine/{conflict}").json()
    assert (shown["facts"]["modality"], shown["facts"]["rows"]) == ("DX", 2)
    picture = service.post(f"/v1/quarantine/{conflict}/thumbnail", json=WHO).json()["png"]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    boxes = [{"left": 0, "top": 0, "width": 1, "height": 1}]
    released = service.post(f"/v1/quarantine/{conflict}/release", json=WHO | {"boxes": boxes})
    assert released.json() == {"id": conflict, "outcome": "released"}
    (record,) = live_instances(paths).values()
    assert record.acquisition.pixels == "masked"
    stays = service.post(f"/v1/quarantine/{garbage}/release", json=WHO)
    assert (stays.status_code, stays.json()["code"]) == (403, "QUARANTINE_NOT_RELEASED")
    assert service.post(f"/v1/quarantine/{garbage}/discard", json=WHO).json()["outcome"] == "discarded"
    assert service.get("/v1/quarantine").json() == {"counts": {}, "files": []}
    for wrong in ({}, {"operator": "", "reason": "x"}, WHO | {"boxes": [{"left": -1}]}):
        assert service.post(f"/v1/quarantine/{garbage}/release", json=wrong).status_code == 422
    assert service.get("/v1/quarantine/..%2Fkeys").status_code == 404


def test_merges_over_the_api(paths: IntakePaths, service: httpx.Client, tmp_path: Path) -> None:
    name = stage(paths.home, folder_of(tmp_path, image(1), image(2, "9252896", 2000)), "cxr")
    wait_for(lambda: finished(service, name))
    csv = b"old_issuer,old_id,new_issuer,new_id\nAmstelrijk,3748755,Amstelrijk,9252896\n"
    assert service.post("/v1/merges", content=csv).json() == {"told": 1, "new": 1, "patients": 1}
    back = csv.replace(b"3748755,Amstelrijk,9252896", b"9252896,Amstelrijk,3748755")
    refused = service.post("/v1/merges", content=back)
    assert refused.status_code == 422
    assert "3748755" not in refused.text
    assert len({record.patient for record in live_instances(paths).values()}) == 1


def test_the_service_is_killed_with_its_workers(paths: IntakePaths, tmp_path: Path) -> None:
    """No worker outlives a service that was killed."""
    name = stage(paths.home, folder_of(tmp_path, image(1)), "cxr")
    trap = paths.spool / name / "0000000"
    trap.unlink()
    os.mkfifo(trap)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(paths.home)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: len(descendants(process.pid)) >= 2)
        children = descendants(process.pid)
    finally:
        process.kill()
        process.wait(DEADLINE_S)
    wait_for(lambda: not [pid for pid in children if alive(pid)])


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry.name), *descendants(int(entry.name))]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
