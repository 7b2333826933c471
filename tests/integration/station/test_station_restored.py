"""A hospital puts a backup of its station back: the four programs as people run them, until it works again."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from station_programs import open_folder, until

from policies.errors import ExitCode
from tests.e2e.consortium import Consortium, Hospital
from tests.e2e.programs import ProgramError, run, run_json, stopping

PATIENCE_S = 240.0


@pytest.fixture
def consortium() -> Iterator[Consortium]:
    """A board with its witness, an orchestrator, one hospital that states its records every second."""
    with open_folder() as folder:
        found = Consortium(folder)
        with stopping(found.servers):
            found.found_board()
            found.start_orchestrator()
            hospital = found.add_hospital("amstel", folder / "source")
            found.register_hospitals()
            settings = hospital.home / "station.toml"
            text = settings.read_text("utf-8")
            assert "every_s = 300.0" in text
            settings.write_text(text.replace("every_s = 300.0", "every_s = 1.0"))
            yield found


def heads(hospital: Hospital, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """What `audit heads` shows, once it shows this."""
    found: dict[str, Any] = {}

    def shown() -> bool:
        found.clear()
        found.update(hospital.ask("audit", "heads"))
        return holds(found)

    until(shown, what, PATIENCE_S)
    return found


def refusal(hospital: Hospital) -> str:
    """The code that `audit heads` ends with."""
    try:
        hospital.ask("audit", "heads")
    except ProgramError as error:
        if error.code != 4:
            raise
        return next(word for word in str(error).split('"') if word.startswith("STATION_"))
    return "good"


def copy(source: Path, to: Path) -> None:
    """As a backup does: owners, modes and all, but sockets."""
    subprocess.run(["cp", "-a", source, to], check=True)


def test_a_restored_station_waits_until_it_is_reconciled(consortium: Consortium) -> None:
    (hospital,) = consortium.hospitals
    consortium.start_station(hospital)
    first = heads(hospital, lambda view: view["countersigned"] is not None, "no receipt")
    assert first["standing"] == "good"
    consortium.vouch()
    heads(hospital, lambda view: view["witnessed"] is not None, "the witness is not heard")

    assert hospital.server is not None
    hospital.server.stop()
    backup = consortium.root / "backup"
    copy(hospital.home, backup)
    consortium.start_station(hospital)
    lost = heads(
        hospital, lambda view: view["countersigned"] > first["countersigned"] + 2, "no further receipt"
    )
    consortium.vouch()
    heads(hospital, lambda view: view["witnessed"] >= lost["countersigned"], "the witness is not heard")

    hospital.server.stop()
    shutil.rmtree(hospital.home)
    copy(backup, hospital.home)
    consortium.start_station(hospital)
    until(lambda: refusal(hospital) == "STATION_RESTORED", "a backup was taken for the station", PATIENCE_S)
    # The witness has to be heard after the restore was seen.
    consortium.vouch()
    plan = hospital.ask("reconcile", "--yes")
    assert plan["stated_sequence"] >= lost["countersigned"]
    assert plan["lost_audit"]["last"] >= plan["lost_audit"]["first"]
    assert refusal(hospital) == "STATION_RESTORED", "consent was not imported since"

    consent = consortium.root / "consent.csv"
    consent.write_text("patient_id,decision,purpose,date\nP1,consent,research-participants,2026-01-01\n")
    hospital.call("consent", "import", consent)
    until(lambda: refusal(hospital) == "good", "it does not go on", PATIENCE_S)
    # A receipt of the epoch before may lie in the backup: only a later number is of the new one.
    again = heads(
        hospital,
        lambda view: view["epoch"] == 2 and view["countersigned"] > plan["stated_sequence"],
        "no new epoch",
    )
    consortium.vouch()
    heads(hospital, lambda view: view["witnessed"] >= again["countersigned"], "the witness is not heard")
    (view,) = run_json("pht-orchestrator", "station", "statements", consortium.orchestrator)
    assert (view["epoch"], view["restorations"], view["forks"]) == (2, 1, 0)
    verified = hospital.call("audit", "verify")
    assert "unbroken" in verified
    out = consortium.root / "audit.xml"
    run("pht-station", "audit", "export", out, "--format", "dicom-xml", "--home", hospital.home)
    assert "records-reconciled" in out.read_text("utf-8")
    run("pht-station", "audit", "show", "P1", "--home", hospital.home, expect=ExitCode.NOT_FOUND)
