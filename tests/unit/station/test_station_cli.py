"""`pht-station` as people type it, where there is nothing to speak to: exit codes and words; no traceback, ever."""

import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from policies.console import run
from policies.errors import ExitCode
from station.cli import app

ORDERS = ["sha256:" + "ab" * 32, "sha256:" + "ac" * 32]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as far as the command line looks."""
    (tmp_path / "run").mkdir()
    (tmp_path / "station.toml").write_text("")
    for name in ("api", "intake"):
        (tmp_path / "run" / f"{name}.token").write_text("t")
    return tmp_path


NEEDING_COMPUTE = [
    ["status"], ["catalogue"], ["trains"], ["runs"], ["releases"], ["approve", "ab"], ["hold", "ab"], ["stop", "ab"],
    ["explain", "ab"], ["logs", "ab"], ["audit", "verify"], ["egress", "verify"], ["audit", "export", "x"],
    ["egress", "export", "x"], ["usage", "export", "x"],
]  # fmt: skip


@pytest.mark.parametrize("command", NEEDING_COMPUTE, ids=" ".join)
def test_a_home_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run(app, [*command, "--home", str(tmp_path)]) == ExitCode.NOT_FOUND
    said = capsys.readouterr()
    assert "there is no station in" in said.err
    assert said.out == ""


@pytest.mark.parametrize("command", NEEDING_COMPUTE, ids=" ".join)
def test_a_station_that_does_not_run(
    home: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run(app, [*command, "--home", str(home)]) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "the station's compute service does not answer" in said
    assert "pht-station serve" in said


# httpcore leaves the socket of a connection that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_that_nobody_answers(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "run")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("api.sock")
    assert run(app, ["status", "--home", str(home)]) == ExitCode.UNAVAILABLE
    assert "does not answer" in capsys.readouterr().err


def test_a_token_that_is_gone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run" / "api.token").unlink()
    assert run(app, ["status", "--home", str(home)]) == ExitCode.UNAVAILABLE
    assert "api.token cannot be read" in capsys.readouterr().err


def test_errors_are_json_where_a_script_reads(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["status", "--json", "--home", str(home)]) == ExitCode.UNAVAILABLE
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["exit_code"]) == ("UnavailableError", 6)


def test_imports_need_intake(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text("x\n")
    for command in (["consent", "import", str(csv)], ["consent", "patients", str(csv)], ["consent", "status"],
                    ["consent", "show", "--patient-id", "1"],
                    ["usage", "resolve", str(csv), "--out", str(tmp_path / "out.csv")], ["clinical", "import", str(csv), "--collection", "c"],
                    ["ingest", str(tmp_path), "--collection", "c"]):  # fmt: skip
        assert run(app, [*command, "--home", str(home)]) == ExitCode.UNAVAILABLE
        assert "the station's intake service does not answer" in capsys.readouterr().err


def test_a_register_says_by_its_name_what_it_is(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "register.xml"
    file.write_text("x\n")
    assert run(app, ["consent", "import", str(file), "--home", str(home)]) == ExitCode.USAGE
    assert ".ndjson" in capsys.readouterr().err


def test_a_file_that_names_patients_is_new_and_for_its_owner_alone(tmp_path: Path) -> None:
    from policies.errors import StorageError
    from station.cli.reaching import write_new

    out = tmp_path / "patients.csv"
    mask = os.umask(0)
    try:
        write_new(out, b"who")
    finally:
        os.umask(mask)
    assert out.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError):
        write_new(out, b"other")
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(StorageError):
        write_new(link, b"other")
    assert out.read_bytes() == b"who"
    assert not (tmp_path / "elsewhere.csv").exists()


class Answering:
    """What the commands get from compute."""

    def __init__(self, *orders: str) -> None:
        self.orders = orders

    def get(self, path: str) -> object:
        assert path == "/v1/runs"
        return [
            {"order": order, "policy": "cxr", "seen": place, "correlation_id": f"{place:016x}"}
            for place, order in enumerate(self.orders)
        ]


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ("ff", ExitCode.NOT_FOUND),
        ("a", ExitCode.USAGE),
        ("", ExitCode.USAGE),
        ("sha256:ab", None),
        ("0" * 16, None),
    ],
)
def test_the_beginning_of_an_order(start: str, code: ExitCode | None) -> None:
    from policies.errors import PhtError
    from station.cli.trains import full_order

    if code is None:
        assert full_order(Answering(*ORDERS), start) == ORDERS[0]
        return
    with pytest.raises(PhtError) as caught:
        full_order(Answering(*ORDERS), start)
    assert caught.value.exit_code is code


def test_init_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file.pem"
    file.write_text("x")

    def init(home: Path, *more: str) -> int:
        return run(
            app,
            ["init", str(home), "--name", "amstel", "--orchestrator", "https://o.example", "--ca", str(file), "--root",
             str(file), "--collection", "c", "--separation", "none", *more],
        )  # fmt: skip

    assert init(tmp_path / "home") == ExitCode.TRUST
    assert not (tmp_path / "home").exists()
    assert init(tmp_path / "home", "--name", "No Name") == ExitCode.DOCUMENT
    assert init(tmp_path / "home", "--separation", "some") == ExitCode.USAGE
    assert init(tmp_path / "home", "--ca", str(tmp_path)) == ExitCode.USAGE
    assert init(tmp_path / "home", "--root", str(tmp_path / "none")) == ExitCode.USAGE
    assert init(tmp_path) == ExitCode.FAILURE
    assert "is not empty" in capsys.readouterr().err
    if os.geteuid() != 0:
        assert init(tmp_path / "home", "--separation", "users") == ExitCode.USAGE


def test_an_export_that_is_none(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text("not a chain\n")
    (home / "card.json").write_text("{}")
    assert run(app, ["audit", "verify", "--file", str(file), "--home", str(home)]) == ExitCode.TRUST
    assert "names no identity key" in capsys.readouterr().err


def test_serving_what_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["serve", "--home", str(tmp_path / "none")]) == ExitCode.NOT_FOUND
    assert "there is no station in" in capsys.readouterr().err


def test_help_is_quick_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["--help"]) == ExitCode.OK
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for command in (
        "init",
        "serve",
        "status",
        "ingest",
        "trains",
        "approve",
        "hold",
        "stop",
        "explain",
        "audit",
        "egress",
    ):
        assert re.search(rf"\b{command}\b", said), command


def test_the_command_line_loads_no_service() -> None:
    import subprocess

    code = "import sys, station.cli; print([m for m in ('docker', 'pydicom', 'flwr', 'sqlalchemy', 'numpy', 'cryptography') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
