"""The runtime of a map train: one program, one patient, one row; in a process of its own without a container."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_runtime import RUNTIME, Station, running

PROGRAM = """
import json, os, sys
from pathlib import Path

asked = json.loads(Path("request/head.json").read_text())
config = asked["config"]
if "crash" in config:
    sys.exit(3)
if "lines" in config:
    Path("reply/row.txt").write_text(config["lines"])
elif "text" in config:
    Path("reply/row.json").write_text(config["text"])
else:
    Path("reply/row.json").write_text(json.dumps({"kind": asked["type"], "data": os.environ["PHT_DATA"]}))
"""


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Station]:
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = [sys.executable, str(tmp_path / "program.py")]
    with running(tmp_path, {"interface": "map", "argv": argv}) as station:
        yield station


def test_a_row_is_what_the_program_wrote(train: Station) -> None:
    said = train.ask("analyse").head
    assert (said["metrics"], said["rows"], said["error"]) == (
        {"kind": "analyse", "data": "/somewhere"},
        {},
        None,
    )
    lines = "share=0.25\n\nnodules = 3\nsex=F\nweight=\n"
    row = train.ask("analyse", {"lines": lines}).head["metrics"]
    assert row == {"share": 0.25, "nodules": 3, "sex": "F", "weight": None}


@pytest.mark.parametrize(
    "config",
    [
        {"crash": True},
        {"text": "[1]"},
        {"text": "{"},
        {"text": '{"share": NaN}'},
        {"text": '{"share": ' + "9" * 5000 + "}"},
        {"text": " " * (1 << 20) + "{}"},
        {"lines": "share"},
        {"lines": "share=1\nshare=2"},
        {"lines": "share=" + "1" * (1 << 20)},
    ],
)
def test_what_is_no_row_is_an_error_and_nothing_of_it_is_sent(
    train: Station, config: dict[str, object]
) -> None:
    said = train.ask("analyse", config if len(str(config)) < 1000 else _short(train, config)).head
    assert (said["metrics"], said["error"]) == ({}, "UNCAUGHT")


def _short(train: Station, config: dict[str, object]) -> dict[str, object]:
    """A request's head has a ceiling: the program reads what is long from a file."""
    program = train.folder / "program.py"
    (train.folder / "long").write_text(json.dumps(config))
    program.write_text(
        PROGRAM.replace('asked["config"]', f"json.loads(Path({str(train.folder / 'long')!r}).read_text())")
    )
    return {}


@pytest.mark.parametrize("config", [{"text": '{"error": "NO_LUNG"}'}, {"lines": "error=NO_LUNG"}])
def test_a_program_may_name_an_error_in_place_of_a_row(train: Station, config: dict[str, object]) -> None:
    said = train.ask("analyse", config).head
    assert (said["metrics"], said["error"]) == ({}, "NO_LUNG")


def test_what_is_started_for_every_patient_imports_no_library() -> None:
    code = "import sys, pht_runtime.loop, pht_runtime.mapping; print([m for m in ('numpy', 'flwr', 'safetensors') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=RUNTIME, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
