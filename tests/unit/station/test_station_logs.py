"""What a log line holds: the listed fields and nothing else, whoever writes it and whatever went wrong."""

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.logs import FIELDS, JsonLines

SECRET = "Jansen^Piet 19610403"


def line(name: str = "station.runs", **extra: object) -> dict[str, Any]:
    return written(logging.getLogger(name), logging.INFO, "run.changed", extra=extra)


def written(logger: logging.Logger, level: int, message: str, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.propagate = False
    before = logger.level
    # Not by assignment: what a logger found about a level before is kept until it is told.
    logger.setLevel(logging.DEBUG)
    try:
        logger.log(level, message, **options)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(before)
    (text,) = out.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_has_time_level_logger_event_and_listed_fields() -> None:
    found = line(order="sha256:1", round=3, code="ORDER_SPENT", pid=7)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "info", "logger": "station.runs", "event": "run.changed", "order": "sha256:1", "round": 3,
        "code": "ORDER_SPENT", "pid": 7,
    }  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}x", fullmatch=True), st.text(), max_size=5))
def test_a_field_that_is_not_listed_is_not_written(fields: dict[str, str]) -> None:
    unknown = {name: value for name, value in fields.items() if name not in FIELDS}
    assert set(line(**unknown)) == {"time", "level", "logger", "event"}


def test_an_object_in_a_listed_field_is_one_bounded_text() -> None:
    found = line(reason="x" * 5000, kind=b"bytes", status=None)
    assert len(found["reason"]) == 300
    assert (found["kind"], found["status"]) == ("b'bytes'", "None")


def test_a_fault_is_its_type_and_place_never_its_text() -> None:
    try:
        int(SECRET)
    except ValueError:
        found = written(logging.getLogger("station.x"), logging.ERROR, "a.bug", exc_info=True)
    assert found["fault"] == "ValueError"
    assert found["at"].startswith(f"{__name__}:")
    assert SECRET not in json.dumps(found)


def test_what_libraries_say_is_reduced_to_where_they_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Intake, tried earlier in this process, silences pydicom altogether.
    monkeypatch.setattr(logging.getLogger("pydicom"), "disabled", False)
    for name in ("pydicom", "httpx", "py.warnings", "alembic.runtime", "stationery"):
        found = written(logging.getLogger(name), logging.WARNING, f"Invalid value {SECRET}")
        assert (found["event"], found["logger"]) == ("library.message", name)
        assert SECRET not in json.dumps(found)


def test_line_breaks_cannot_forge_a_line() -> None:
    found = line(reason='x"}\n{"event": "forged"}')
    assert found["event"] == "run.changed"


def process(code: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", "from station.logs import log_as_json_lines; log_as_json_lines()\n" + code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert SECRET not in done.stderr
    return [json.loads(text) for text in done.stderr.splitlines()]


def test_a_fault_that_nobody_catches_does_not_print_its_text() -> None:
    (found,) = process(f"raise RuntimeError({SECRET!r})")
    assert (found["event"], found["fault"], found["level"]) == ("process.bug", "RuntimeError", "critical")


def test_nor_does_one_in_a_thread() -> None:
    code = f"import threading\ndef f(): raise KeyError({SECRET!r})\nt = threading.Thread(target=f); t.start(); t.join()"
    (found,) = process(code)
    assert (found["event"], found["fault"]) == ("process.bug", "KeyError")


def test_nor_does_a_warning() -> None:
    (found,) = process(f"import warnings; warnings.warn('Invalid value: ' + {SECRET!r})")
    assert (found["event"], found["logger"]) == ("library.message", "py.warnings")


def test_our_own_faults_are_said_in_their_own_words() -> None:
    (found,) = process("from policies.errors import StorageError; raise StorageError('the disk is full')")
    assert (found["event"], found["reason"]) == ("process.fault", "the disk is full")
