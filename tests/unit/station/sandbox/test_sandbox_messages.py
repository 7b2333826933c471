"""The launcher's socket: a closed set of verbs, bounded messages, and answers whatever goes wrong."""

import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import PhtError, RefusedError, UnavailableError, WireError
from policies.refusals import RefusalCode
from station.sandbox.launcher import messages
from station.sandbox.launcher.service import answer_request, local_launcher
from station.sandbox.spec import Launcher, LauncherSettings

SPEC: dict[str, Any] = {
    "run_id": "run-1",
    "image_config_digest": "sha256:" + "a" * 64,
    "cohort_dir": "/srv/compute/cohorts/run-1",
    "control_dir": "/srv/compute/control/run-1",
    "memory_bytes": 1 << 29,
    "cpus": 1.5,
    "wall_clock_s": 60,
}


def encode(**request: Any) -> bytes:
    return json.dumps(request).encode()


@pytest.mark.parametrize(
    "request_",
    [
        messages.EngineInfoRequest(),
        messages.LoadImageRequest(config_digest="sha256:" + "a" * 64),
        messages.StatusRequest(run_id="run-1"),
        messages.WaitRequest(run_id="run-1", timeout_s=1.0),
        messages.LogsRequest(run_id="run-1", max_bytes=100),
        messages.StopRequest(run_id="run-1"),
        messages.ListRequest(),
        messages.RemoveOrphansRequest(),
        messages.parse_request(encode(verb="start", spec=SPEC)),
    ],
)
def test_a_request_survives_the_wire(request_: messages.Request) -> None:
    here, there = socket.socketpair()
    with here, there:
        messages.send(here, request_)
        data = messages.receive(there, max_bytes=messages.MAX_REQUEST_BYTES, deadline=time.monotonic() + 120)
    assert data is not None
    assert messages.parse_request(data) == request_


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        encode(),
        encode(verb="exec"),
        encode(verb="pull-image", name="evil"),
        encode(verb="stop"),
        encode(verb="stop", run_id="../../etc"),
        encode(verb="stop", run_id="run-1", force=True),
        encode(verb="load-image", config_digest="latest"),
        encode(verb="start", spec=SPEC | {"privileged": True}),
        encode(verb="start", spec=SPEC | {"run_id": "A"}),
        encode(verb="start", spec=SPEC | {"cohort_dir": "relative"}),
        encode(verb="start", spec=SPEC | {"cohort_dir": "/a\0b"}),
        encode(verb="start", spec=SPEC | {"memory_bytes": -1}),
        encode(verb="start", spec=SPEC | {"memory_bytes": "1g"}),
        encode(verb="start", spec=SPEC | {"cpus": 0}),
        encode(verb="start", spec=SPEC | {"pids": 0}),
        encode(verb="start", spec=SPEC | {"interface": "shell"}),
        encode(verb="wait", run_id="run-1", timeout_s=1e9),
    ],
)
def test_what_is_not_in_the_closed_set_is_refused(data: bytes, idle: Launcher) -> None:
    with pytest.raises(WireError):
        messages.parse_request(data)
    assert answer_request(idle, data).refusal == RefusalCode.SANDBOX_ARGUMENT


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_wire_error(data: bytes) -> None:
    try:
        messages.parse_request(data)
    except WireError:
        return


@pytest.fixture
def idle(tmp_path: Path) -> Launcher:
    """A launcher whose engine is not there."""
    for name in ("cohorts", "control", "layers"):
        (tmp_path / "compute" / name).mkdir(parents=True)
    return local_launcher(
        tmp_path, LauncherSettings(station="st-a", compute_uid=0, engine_socket=tmp_path / "none.sock")
    )


def test_a_missing_engine_says_what_to_do(idle: Launcher) -> None:
    with pytest.raises(UnavailableError) as caught:
        idle.engine_info()
    assert "none.sock" in caught.value.message
    assert "docker" in caught.value.hint.lower()
    answer = answer_request(idle, encode(verb="engine-info"))
    assert answer.error == "unavailable"
    assert answer.hint == caught.value.hint


class Broken:
    """A launcher with a fault in it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("a secret in the text of a fault")


def test_a_fault_is_answered_without_its_text() -> None:
    answer = answer_request(Broken(), encode(verb="list"))  # type: ignore[arg-type]
    assert answer.error == "fault"
    assert "secret" not in answer.text


@pytest.mark.parametrize(("data", "text"), [(b"\0\0", "short"), (struct.pack(">I", 10) + b"abc", "short")])
def test_a_message_that_is_cut_is_named(data: bytes, text: str) -> None:
    here, there = socket.socketpair()
    with there:
        here.sendall(data)
        here.close()
        with pytest.raises(WireError, match=text):
            messages.receive(there, max_bytes=100, deadline=time.monotonic() + 120)


def test_a_message_that_is_too_large_is_not_read() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(struct.pack(">I", 0xFFFFFFFF))
        with pytest.raises(WireError, match="at most 100"):
            messages.receive(there, max_bytes=100, deadline=time.monotonic() + 120)


def test_a_message_that_does_not_come_ends_at_its_deadline() -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(WireError, match="late"):
        messages.receive(there, max_bytes=100, deadline=time.monotonic() + 0.1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"memory_bytes": 1 << 40}, RefusalCode.HOSPITAL_RESOURCES),
        ({"cpus": 64.0}, RefusalCode.HOSPITAL_RESOURCES),
        ({"pids": 30_000}, RefusalCode.HOSPITAL_RESOURCES),
        ({"scratch_bytes": 1 << 40}, RefusalCode.HOSPITAL_RESOURCES),
        ({"wall_clock_s": 10**9}, RefusalCode.HOSPITAL_RESOURCES),
        ({"cohort_dir": "/etc"}, RefusalCode.SANDBOX_ARGUMENT),
        ({"control_dir": "/run"}, RefusalCode.SANDBOX_ARGUMENT),
    ],
)
def test_arguments_are_checked_before_the_engine_is_asked(
    idle: Launcher, tmp_path: Path, change: dict[str, Any], code: RefusalCode
) -> None:
    cohort = tmp_path / "compute" / "cohorts" / "run-1"
    control = tmp_path / "compute" / "control" / "run-1"
    cohort.mkdir()
    control.mkdir()
    spec = SPEC | {"cohort_dir": str(cohort), "control_dir": str(control)} | change
    request = messages.parse_request(encode(verb="start", spec=spec))
    assert isinstance(request, messages.StartRequest)
    with pytest.raises(PhtError) as caught:
        idle.start(request.spec)
    assert isinstance(caught.value, RefusedError)
    assert caught.value.code == code
