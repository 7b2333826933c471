"""`pht-station selftest` on this machine's engine: everything is stopped; where a wall is weak it fails and names the line."""

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from selftest_kit import disobeyed, without_the_kernel
from station_programs import ROOT, Installed

from policies.console import run
from station.cli import app
from station.sandbox.spec import Launcher, LauncherSettings
from station.selftest import running
from station.selftest.attacks import ATTACKS
from station.selftest.report import Report

pytestmark = pytest.mark.docker


def left_over(station: Installed) -> list[str]:
    """What a selftest could leave behind: folders, blobs, containers, its image."""
    compute = station.home / "compute"
    found = [path for each in ("cohorts", "control") for path in (compute / each).iterdir()]
    found += [path for path in (compute / "layers").rglob("*") if path.is_file()]
    found += [path for path in station.home.iterdir() if path.name == "selftest"]
    listed = subprocess.run(
        ["docker", "ps", "-a", "--format", '{{.Label "nl.pht.run"}}', "--filter", "label=nl.pht.station=amstel"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found += [Path(each) for each in listed.stdout.split() if each.startswith("selftest-")]
    return [str(each) for each in found]


def audited(station: Installed) -> list[dict[str, Any]]:
    export = station.folder / f"audit-{len(list(station.folder.iterdir()))}.jsonl"
    station.run("audit", "export", export)
    return [
        each
        for each in map(json.loads, export.read_text().splitlines())
        if each.get("event") == "selftest-ran"
    ]


def test_a_running_station_stops_every_attack_and_keeps_nothing_of_it(station: Installed) -> None:
    station.serve()
    kept = station.folder / "selftest.json"
    report = Report.model_validate_json(json.dumps(station.ask("selftest", "--output", kept)))
    assert [line for line in report.lines if line.verdict == "NOT STOPPED"] == []
    assert [(line.number, line.name) for line in report.lines] == [
        (n, each.name) for n, each in enumerate(ATTACKS, 1)
    ]
    # Each line says what was seen to stop it; a GPU is the only thing that this machine may lack.
    assert {line.name for line in report.lines if line.verdict != "stopped"} <= {
        each.name for each in ATTACKS if each.area == "gpu"
    }
    assert all(line.stopped_by and line.attempts for line in report.lines)
    assert report.complete
    assert report.launcher == ("the running station's" if ROOT else report.launcher)
    assert report.host.seccomp != "off"
    assert Report.model_validate_json(kept.read_bytes()) == report
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    (entry,) = audited(station)
    assert entry.get("outcome", "success") == "success"
    assert entry["numbers"]["stopped"] == report.stopped
    assert left_over(station) == []
    assert station.ask("status")["station"] == "amstel"


def test_where_a_wall_is_weak_it_fails_and_names_the_line(
    station: Installed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def weak(home: Path, settings: LauncherSettings) -> Launcher:
        def disobey(body: dict[str, Any]) -> None:
            body["HostConfig"]["Mounts"][0]["ReadOnly"] = False

        return disobeyed(home, settings, disobey, blind=True)

    monkeypatch.setattr(running, "local_launcher", weak)
    home = ["--home", str(station.home), "--only", "data"]
    with without_the_kernel(monkeypatch):
        assert run(app, ["selftest", *home]) == 1
    told = capsys.readouterr()
    open_lines = [
        (number, each.name)
        for number, each in enumerate(ATTACKS, 1)
        if each.name in {"cohort-written", "write-outside"}
    ]
    assert f"NOT STOPPED: {', '.join(f'{number} {name}' for number, name in open_lines)}" in told.err
    assert "3 stopped, 2 NOT STOPPED" in told.out
    assert left_over(station) == []
    monkeypatch.undo()
    # The same host with its walls: the other lines of the area, and this one.
    station.run("selftest", "--only", "data")
    station.serve()
    failed, held = audited(station)
    assert failed["outcome"] == "failed"
    assert failed["detail"] == f"not stopped: lines {', '.join(str(number) for number, _ in open_lines)}"
    assert held.get("outcome", "success") == "success"


def test_an_area_that_is_none_is_a_mistake(station: Installed) -> None:
    station.run("selftest", "--only", "everything", expect=2)
