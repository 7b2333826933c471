"""`pht-train` as a program: what it offers, how fast it says so, and its exit codes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from tool_kit import Tool, make_bundle

from policies.errors import ExitCode
from train_images.cli import app

README = Path(__file__).resolve().parents[4] / "train_images" / "README.md"
HEAVY = ("numpy", "httpx", "pydicom", "docker", "flwr", "torch", "tuf", "safetensors")


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


def commands() -> dict[str, list[str]]:
    """Every command with its arguments, and the options that people are told of."""
    found: dict[str, list[str]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        if below := getattr(command, "commands", None):
            for name, child in below.items():
                walk(child, (*path, name))
            return
        arguments = [each.name.upper() for each in command.params if each.param_type_name == "argument"]
        found[" ".join([*path, *arguments])] = [
            each.opts[0] for each in command.params if each.param_type_name == "option" and not each.hidden
        ]

    walk(typer.main.get_command(app), ())
    return found


def test_the_readme_has_every_command_with_its_options() -> None:
    rows = [line.split("|")[1:3] for line in README.read_text("utf-8").splitlines() if line.startswith("| `")]
    connection = {"--to", "--token-file", "--ca", "--profile"}
    described = {
        row[0].strip(" `"): set(re.findall(r"--[a-z-]+", row[1]))
        | (connection if "connection" in row[1] else set())
        for row in rows
        if "/" not in row[0] and "." not in row[0]
    }
    assert described == {name: set(options) - {"--json"} for name, options in commands().items()}


def test_every_command_explains_itself(tool: Tool) -> None:
    for command in commands():
        path = [word for word in command.split() if not word.isupper()]
        assert "Usage" in tool(*path, "--help"), path


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom train_images.cli import app\nfrom policies.console import run\nrun(app, ['--help'])\n"
        f"sys.exit(bool({{name for name in {HEAVY!r} if name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=60)
    assert done.returncode == 0


def test_phantoms_are_made(tool: Tool, tmp_path: Path) -> None:
    made = tool.json("phantoms", tmp_path, "--hospitals", 2, "--patients", 2, "--seed", 5)
    assert [hospital["name"] for hospital in made] == ["hospital-a", "hospital-b"]
    assert (tmp_path / "hospital-b" / "consent.csv").is_file()
    assert "already" in tool.error(ExitCode.USAGE, "phantoms", tmp_path, "--patients", 2)


def test_an_orchestrator_must_be_named(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_bundle(tmp_path / "bundle")
    assert "--to, --token-file, --ca: not given" in tool.error(ExitCode.USAGE, "submit", tmp_path / "bundle")


def test_an_orchestrator_that_does_not_answer_is_unavailable(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("token")
    ca = subprocess.run(
        [sys.executable, "-m", "certifi"], check=True, capture_output=True, text=True
    ).stdout.strip()
    where = ("--to", "https://localhost:9", "--token-file", tmp_path / "t", "--ca", ca)
    assert "does not answer" in tool.error(ExitCode.UNAVAILABLE, "runs", *where)


def test_an_address_without_tls_is_refused(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("token")
    (tmp_path / "ca").write_text("")
    where = ("--to", "http://localhost:9", "--token-file", tmp_path / "t", "--ca", tmp_path / "ca")
    assert "https://" in tool.error(ExitCode.USAGE, "runs", *where)


def test_a_machine_without_docker_is_told_so(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    bundle = make_bundle(tmp_path / "bundle").path
    (tmp_path / "Dockerfile").write_text("FROM pht-train-base:0.2\n")
    (tmp_path / "train.yaml").write_bytes((bundle / "train.yaml").read_bytes())
    for command in (("build", tmp_path), ("pack", tmp_path, tmp_path / "out")):
        assert "Docker" in tool.error(ExitCode.UNAVAILABLE, *command)
    assert "--engine" in tool.error(
        ExitCode.UNAVAILABLE, "check", bundle, "--engine", tmp_path / "nothing.sock"
    )
