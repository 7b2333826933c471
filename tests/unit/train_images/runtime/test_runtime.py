"""The runtime as it is in every train image, here in a process of its own without a container."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import train_images.runtime
from policies.wire.frames import FrameLimits, ReceivedMessage, read_message, write_message
from policies.wire.heads import ProtocolError
from station.sandbox import unix

RUNTIME = Path(train_images.runtime.__file__).parent
LIMITS = FrameLimits(max_arrays_bytes=64 << 20)

APP = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
calls = 0


class TrainError(Exception):
    def __init__(self, code):
        super().__init__("a text with a patient in it")
        self.pht_error_code = code


@app.train()
def train(message, context):
    global calls
    calls += 1
    config = message.content["config"]
    if "fail" in config:
        raise TrainError(config["fail"])
    if "crash" in config:
        raise RuntimeError("a text with a patient in it")
    turns = int(context.state["turns"]["turns"]) + 1 if "turns" in context.state else 1
    context.state["turns"] = MetricRecord({"turns": turns})
    arrays = {}
    for name, array in message.content["arrays"].items():
        value = array.numpy()
        arrays[name] = Array(np.asarray(value + np.ones((), value.dtype)))
    metrics = {"calls": calls, "turns": turns, "lr": config["lr"], "round": config["server-round"], "num-examples": 12,
               "same": int(context.run_config["lr"] == config["lr"]), "data": int(context.node_config["data"] == "/somewhere")}
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    values = MetricRecord({"loss": float(message.content["config"]["loss"])})
    nan = float("nan")
    rows = MetricRecord({"score": [0.5, nan, 1.0], "count": [3.0, nan, 4.0], "label": [0, 1, 1]})
    return Message(RecordDict({"metrics": values, "rows": rows}), reply_to=message)


@app.query()
def query(message, context):
    odd = np.arange(6, dtype=">f4").reshape(2, 3)
    arrays = {"big-endian": Array(odd), "fortran": Array(np.asfortranarray(np.eye(3)[:2])), "empty": Array(np.zeros((0, 4)))}
    if message.content["config"].get("complex"):
        arrays["complex"] = Array(np.zeros(2, complex))
    return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)


@app.query("score")
def score(message, context):
    losses = message.content["arrays"]["w"].numpy().tolist()
    if message.content["config"].get("bare"):
        return Message(RecordDict({"metrics": MetricRecord({"loss": losses})}), reply_to=message)
    return Message(RecordDict({"scores": MetricRecord({"loss": losses})}), reply_to=message)


@app.query("predict")
def predict(message, context):
    case = message.content["predict"]["case"]
    marks = np.full((2, 3, 4), len(case), np.uint8)
    values = MetricRecord({"weight": float(message.content["arrays"]["w"].numpy()[0])})
    arrays = ArrayRecord({"lungs": Array(marks)})
    return Message(RecordDict({"arrays": arrays, "values": values}), reply_to=message)
"""


@dataclass
class Station:
    """The other end of a runtime."""

    folder: Path
    connection: Any
    process: subprocess.Popen[bytes]
    number: int = 0

    def receive(self) -> ReceivedMessage:
        return read_message(
            self.connection, LIMITS, self.folder / "reply.safetensors", time.monotonic() + 120
        )

    def ask(
        self, kind: str, config: Mapping[str, Any] | None = None, arrays: Path | None = None, **more: Any
    ) -> ReceivedMessage:
        self.number += 1
        head = {"type": kind, "id": self.number, "round": 3, "config": dict(config or {}), **more}
        write_message(self.connection, head, arrays, deadline=time.monotonic() + 120)
        reply = self.receive()
        assert reply.head["id"] == self.number
        assert reply.head["type"] == "reply"
        return reply


def _hello(station: Station) -> ReceivedMessage:
    try:
        return station.receive()
    except ProtocolError:
        station.process.wait(120)  # so that it has said why
        raise


@contextlib.contextmanager
def running(folder: Path, description: Mapping[str, Any]) -> Iterator[Station]:
    (folder / "train.json").write_text(json.dumps(description))
    (folder / "scratch").mkdir()
    environment = os.environ | {
        "PYTHONPATH": f"{RUNTIME}:{folder}",
        "PHT_CONTROL": str(folder / "train.sock"),
        "PHT_TRAIN": str(folder / "train.json"),
        "PHT_DATA": "/somewhere",
        "PHT_SCRATCH": str(folder / "scratch"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    with unix.listen(folder / "train.sock", mode=0o600, backlog=1) as listener:
        listener.settimeout(300)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pht_runtime"], env=environment, stdout=log, stderr=log
            )
        try:
            connection, _ = listener.accept()
            with connection:
                station = Station(folder, connection, process)
                hello = _hello(station)
                assert hello.head == {"type": "hello", "protocol": 1, "interface": description["interface"]}
                yield station
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Station]:
    (tmp_path / "an_app.py").write_text(APP)
    with running(tmp_path, {"interface": "flower", "clientapp": "an_app:app"}) as station:
        yield station


def test_a_client_app_answers_and_stays_warm(flower: Station) -> None:
    weights = flower.folder / "weights.safetensors"
    save_file(
        {
            "w": np.zeros((3, 4), np.float32),
            "b": np.zeros(5, np.float64),
            "n": np.array(7, np.int64),
            "flag": np.array([2], np.uint8),
        },
        weights,
    )
    for turn in (1, 2, 3):
        reply = flower.ask("train", {"lr": 0.25}, weights)
        assert reply.head["error"] is None
        assert reply.head["metrics"] == {
            "calls": turn,
            "turns": turn,
            "lr": 0.25,
            "round": 3,
            "same": 1,
            "data": 1,
        }
    arrays = load_file(flower.folder / "reply.safetensors")
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "w": (np.float32, (3, 4)),
        "b": (np.float64, (5,)),
        "n": (np.int64, ()),
        "flag": (np.uint8, (1,)),
    }
    assert arrays["n"] == 8
    assert (arrays["w"] == 1).all()


def test_rows_and_metrics_are_told_apart_and_what_is_missing_is_null(flower: Station) -> None:
    reply = flower.ask("evaluate", {"loss": 0.5})
    assert reply.head["metrics"] == {"loss": 0.5}
    # Of a list with one missing, whole numbers are whole again.
    assert reply.head["rows"] == {"score": [0.5, None, 1], "count": [3, None, 4], "label": [0, 1, 1]}
    assert reply.arrays is None


def test_score_is_a_query_of_that_name_and_its_answer_one_list(flower: Station) -> None:
    save_file({"w": np.array([0.5, 2.0], np.float32)}, flower.folder / "weights.safetensors")
    reply = flower.ask("score", {}, flower.folder / "weights.safetensors")
    assert (reply.head["scores"], reply.head["metrics"], reply.head["error"]) == ([0.5, 2.0], {}, None)
    assert reply.arrays is None
    assert "scores" not in flower.ask("evaluate", {"loss": 0.5}).head
    bare = flower.ask("score", {"bare": True}, flower.folder / "weights.safetensors")
    assert bare.head["error"] == "UNCAUGHT"
    # What JSON has no form for is no answer.
    save_file({"w": np.array([0.5, np.nan], np.float32)}, flower.folder / "weights.safetensors")
    none = flower.ask("score", {}, flower.folder / "weights.safetensors")
    assert none.head["error"] == "UNCAUGHT"
    assert "scores" not in none.head


def test_predict_is_a_query_of_that_name_about_one_case(flower: Station) -> None:
    save_file({"w": np.array([0.5], np.float32)}, flower.folder / "weights.safetensors")
    # A hyperparameter of the same name is not taken for it.
    reply = flower.ask("predict", {"case": 9}, flower.folder / "weights.safetensors", case="cabc")
    assert (reply.head["metrics"], reply.head["error"]) == ({"weight": 0.5}, None)
    marks = load_file(flower.folder / "reply.safetensors")["lungs"]
    assert (marks.dtype, marks.shape, marks.min(), marks.max()) == (np.uint8, (2, 3, 4), 4, 4)


def test_arrays_of_any_layout_are_sent_as_safetensors(flower: Station) -> None:
    assert flower.ask("analyse").head["error"] is None
    arrays = load_file(flower.folder / "reply.safetensors")
    assert (arrays["big-endian"] == np.arange(6).reshape(2, 3)).all()
    assert (arrays["fortran"] == np.eye(3)[:2]).all()
    assert arrays["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    ("kind", "config", "error"),
    [
        ("train", {"lr": 0.1, "fail": "TOO_FEW_IMAGES"}, "TOO_FEW_IMAGES"),
        ("train", {"lr": 0.1, "fail": "a patient's name"}, "UNCAUGHT"),
        ("train", {"lr": 0.1, "crash": True}, "UNCAUGHT"),
        ("train", {}, "UNCAUGHT"),
        ("evaluate", {"loss": "nan"}, "UNCAUGHT"),
        ("evaluate", {"loss": "inf"}, "UNCAUGHT"),
        ("analyse", {"complex": True}, "UNCAUGHT"),
        ("train", {"nested": {"a": 1}}, "UNCAUGHT"),
    ],
)
def test_an_error_is_its_code_and_the_process_lives_on(
    flower: Station, kind: str, config: dict[str, Any], error: str
) -> None:
    reply = flower.ask(kind, config)
    assert reply.head == {"type": "reply", "id": 1, "metrics": {}, "rows": {}, "error": error}
    assert reply.arrays is None
    assert flower.ask("train", {"lr": 0.5}).head["error"] is None


def test_finish_ends_the_runtime(flower: Station) -> None:
    write_message(flower.connection, {"type": "finish"}, None)
    assert flower.process.wait(120) == 0


def test_a_station_that_goes_away_ends_the_runtime(flower: Station) -> None:
    flower.connection.close()
    assert flower.process.wait(120) == 1


def test_an_app_that_is_none_ends_before_the_hello(tmp_path: Path) -> None:
    (tmp_path / "an_app.py").write_text("app = 7")
    with pytest.raises(ProtocolError), running(tmp_path, {"interface": "flower", "clientapp": "an_app:app"}):
        pass
    assert "is no flwr.clientapp.ClientApp" in (tmp_path / "log").read_text()


PROGRAM = """
import json, pathlib, shutil, sys
request = json.loads(pathlib.Path("request/head.json").read_text())
config = request["config"]
if config.get("error"):
    pathlib.Path("reply/head.json").write_text(json.dumps({"error": config["error"]}))
    sys.exit(3)
if config.get("crash"):
    sys.exit(3)
if pathlib.Path("request/arrays.safetensors").exists():
    shutil.copy("request/arrays.safetensors", "reply/arrays.safetensors")
if request["type"] == "score":
    pathlib.Path("reply/arrays.safetensors").unlink(missing_ok=True)
    pathlib.Path("reply/head.json").write_text(json.dumps({"scores": [1.5, 2.5]}))
    sys.exit(0)
if request["type"] == "predict":
    pathlib.Path("reply/head.json").write_text(json.dumps({"metrics": {"length": len(request["case"])}}))
    sys.exit(0)
pathlib.Path("reply/head.json").write_text(json.dumps({"metrics": {"round": request["round"]}, "rows": {"t": [1]}}))
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Station]:
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = [sys.executable, str(tmp_path / "program.py")]
    with running(tmp_path, {"interface": "command", "argv": argv}) as station:
        yield station


def test_a_program_gets_files_and_answers_with_files(command: Station) -> None:
    save_file({"w": np.ones(3, np.float32)}, command.folder / "weights.safetensors")
    reply = command.ask("analyse", {}, command.folder / "weights.safetensors")
    assert reply.head["metrics"] == {"round": 3}
    assert reply.head["rows"] == {"t": [1]}
    assert load_file(command.folder / "reply.safetensors")["w"].tolist() == [1, 1, 1]
    assert command.ask("analyse").arrays is None
    assert command.ask("score", {}, command.folder / "weights.safetensors").head["scores"] == [1.5, 2.5]
    assert command.ask("analyse").arrays is None
    assert command.ask("predict", case="cabc").head["metrics"] == {"length": 4}
    assert [path.name for path in (command.folder / "scratch").iterdir()] == ["5"]


@pytest.mark.parametrize(
    ("config", "error"), [({"error": "NO_DATA"}, "NO_DATA"), ({"crash": True}, "UNCAUGHT")]
)
def test_a_program_that_fails_is_its_code(command: Station, config: dict[str, Any], error: str) -> None:
    assert command.ask("analyse", config).head["error"] == error
    assert command.ask("analyse").head["error"] is None
