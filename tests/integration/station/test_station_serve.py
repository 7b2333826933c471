"""`pht-station serve` as the processes it is: it starts, answers, is killed in every way, and comes back."""

import json
import os
import signal
import stat
import subprocess

from station_programs import ROOT, SERVICES, Installed, as_user, python_as, until

from tests.e2e.programs import BIN, environment


def log(station: Installed) -> str:
    return (station.folder / "serve.log").read_text()


def test_it_starts_answers_and_stops(station: Installed) -> None:
    server = station.serve()
    status = station.ask("status")
    assert status["station"] == "amstel"
    assert status["policies"] == "TRUST_UNREACHABLE"
    assert status["orchestrator_contact"] is None
    assert status["separation"] == ("users" if ROOT else "none")
    assert ("separation: none" in log(station)) is not ROOT, "it says which separation is missing"
    assert (
        station.ask("runs")
        == station.ask("trains")
        == station.ask("releases")
        == station.ask("catalogue")
        == []
    )
    assert station.ask("audit", "verify")["intact"] is True
    export = station.folder / "audit.jsonl"
    station.run("audit", "export", export)
    assert server.stop() == 0
    assert station.services() == {}
    assert not [path.name for path in (station.home / "run").iterdir() if path.suffix == ".sock"]
    # An export is verified without the station.
    assert station.ask("audit", "verify", "--file", export)["intact"] is True
    events = [json.loads(line) for line in export.read_text().splitlines()]
    assert events[0]["event"] == "station-started"


def test_a_killed_supervisor_leaves_no_service_and_the_next_one_starts_at_once(station: Installed) -> None:
    station.serve().kill()
    # No pause: it waits for what the first one left to end.
    before = station.services()
    station.serve()
    after = station.services()
    assert set(after) == set(SERVICES)
    assert not set(after.values()) & set(before.values())
    assert station.ask("audit", "verify")["intact"] is True
    station.server.kill()  # type: ignore[union-attr]
    until(lambda: station.services() == {}, "services outlive their supervisor")


def test_each_killed_service_comes_back(station: Installed) -> None:
    station.serve()
    for name in SERVICES:
        before = station.services()
        os.kill(before[name], signal.SIGKILL)
        until(
            lambda name=name, before=before: station.services().get(name, before[name]) != before[name], name
        )  # type: ignore[misc]
    assert set(station.services()) == set(SERVICES)
    until(lambda: _answers(station), "compute does not answer")
    assert station.ask("audit", "verify")["intact"] is True
    assert station.server is not None
    assert station.server.stop() == 0


def _answers(station: Installed) -> bool:
    command = [str(BIN / "pht-station"), "status", "--home", str(station.home)]
    return (
        subprocess.run(command, capture_output=True, env=environment(), check=False, timeout=300).returncode
        == 0
    )


def test_a_stopping_supervisor_is_not_held_up_by_a_service_that_keeps_dying(station: Installed) -> None:
    server = station.serve()
    for _ in range(3):
        pid = station.services()["intake"]
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: station.services().get("intake", pid) != pid, "intake does not come back")  # type: ignore[misc]
    os.kill(station.services()["intake"], signal.SIGKILL)
    assert server.stop(120) == 0


def test_a_station_is_served_once(station: Installed) -> None:
    station.serve()
    pids = station.services()
    assert "already being served" in station.run("serve", expect=1)
    assert station.services() == pids
    assert _answers(station)


def test_tokens_and_keys_are_their_owners_alone(station: Installed) -> None:
    def mode(path: str) -> int:
        return stat.S_IMODE((station.home / path).stat().st_mode)

    for path in (
        "run/api.token",
        "run/intake.token",
        "intake/keys/pseudonym.key",
        "intake/keys/handover.key",
    ):
        assert mode(path) == 0o600, path
    for path in ("node.pem", "identity.pem", "cohort.key"):
        assert mode(f"compute/keys/{path}") == 0o600, path
    for path in ("intake", "compute/keys", "compute/trust", "compute/releases", "compute/agent", "logs"):
        assert mode(path) == 0o700, path
    assert mode(".") == 0o711
    station.serve()
    for path in ("run/api.sock", "run/intake.sock"):
        assert mode(path) == 0o600, path


def test_services_run_as_users_of_their_own_and_cannot_read_each_others(station: Installed) -> None:
    station.serve()
    if not ROOT:
        # Only root can start services as others; everyone else is told that they share a user.
        assert station.ask("status")["separation"] == "none"
        return
    owners = {name: os.stat(f"/proc/{pid}").st_uid for name, pid in station.services().items()}  # noqa: PTH116
    assert len(set(owners.values()) | {0}) == 4
    home = station.home
    closed = {
        "pht-intake": ("compute/keys/node.pem", "compute/keys/cohort.key", "compute/station.db", "run/api.token",
                       "compute/releases"),
        "pht-compute": ("intake/keys/pseudonym.key", "intake/intake.db", "intake/spool", "run/intake.token"),
        "pht-launcher": ("intake/keys/pseudonym.key", "compute/keys/node.pem", "compute/station.db", "run/api.token",
                         "run/intake.token"),
    }  # fmt: skip
    for user, paths in closed.items():
        for path in paths:
            assert (home / path).exists(), path
            reading = as_user(user, "ls" if (home / path).is_dir() else "cat", home / path)
            assert reading.returncode != 0, (user, path)
            assert "Permission denied" in reading.stderr
    # One way: compute reads the handover and cannot write to it.
    assert as_user("pht-compute", "ls", home / "handover").returncode == 0
    assert as_user("pht-compute", "touch", home / "handover" / "x").returncode != 0
    # No service's user can put its own socket in another's place.
    code = f"import os; os.unlink({str(home / 'run' / 'intake.sock')!r})"
    assert "PermissionError" in python_as("pht-compute", code).stderr


def test_another_users_socket_is_not_spoken_to(station: Installed) -> None:
    place = station.home / "run" / "intake.sock"
    if ROOT:
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(place)!r}); s.listen()"
        assert python_as("pht-compute", code).returncode == 0
    else:
        place.write_text("no socket at all")
    csv = station.folder / "consent.csv"
    csv.write_text("patient_id,decision,purpose,date\n")
    said = station.run("consent", "import", csv, expect=5)
    assert "not the socket of the station's intake service" in said


def test_without_an_engine_the_status_says_so(station: Installed) -> None:
    settings = station.home / "station.toml"
    text = settings.read_text()
    assert "/var/run/docker.sock" in text
    settings.write_text(text.replace("/var/run/docker.sock", "/nowhere/docker.sock"))
    station.serve()
    assert station.ask("status")["engine"] == "no container engine answers on /nowhere/docker.sock"


def test_a_damaged_database_is_said_in_words_and_nothing_is_served(station: Installed) -> None:
    database = station.home / "compute" / "station.db"
    database.write_bytes(b"no database" * 1000)
    owner = database.parent.stat()
    os.chown(database, owner.st_uid, owner.st_gid)
    said = station.run("serve", expect=6)
    assert "the service compute did not start" in said
    assert "is damaged" in (station.home / "logs" / "compute.log").read_text()
    assert station.services() == {}


def test_a_log_that_cannot_be_opened_is_said_in_words(station: Installed) -> None:
    (station.home / "logs" / "launcher.log").mkdir()
    assert "its log or socket cannot be made" in station.run("serve", expect=7)
    assert station.services() == {}


def test_settings_that_make_no_sense_name_the_line(station: Installed) -> None:
    settings = station.home / "station.toml"
    settings.write_text(settings.read_text() + "\n[nonsense]\nkey = 1\n")
    assert "nonsense is not a known key" in station.run("serve", expect=3)
