"""Stock Flower doing nothing in rounds: SuperLink, SuperNodes, a process per ClientApp message.

As a consortium would deploy it: TLS, SuperNode authentication, the database on; no container. Trivial work: the weights
come back as they went out.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_disk
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab

from orchestrator.federation.flower import Control
from orchestrator.federation.ports import LOOPBACK, free_port
from orchestrator.federation.superlink import SuperLinkFiles, flower_environment
from orchestrator.federation.tasks import Address
from policies.wire.http import openssh_public_key

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "nothing"
version = "1.0.0"
description = "Rounds without work"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "nothing_app:server"
clientapp = "nothing_app:client"

[tool.flwr.app.config]
elements = {elements}
rounds = {rounds}
stations = {stations}
result = "{result}"
"""

_APP = """\
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    metrics = MetricRecord({"loss": 1.0, "num-examples": 10})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"auc": 0.5, "num-examples": 10})}), reply_to=message)


class Timed(FedAvg):
    def __init__(self, stations):
        super().__init__(min_train_nodes=stations, min_evaluate_nodes=stations, min_available_nodes=stations)
        self.stations = stations
        self.ends = []

    def aggregate_evaluate(self, server_round, replies):
        replies = list(replies)
        found = super().aggregate_evaluate(server_round, replies)
        assert sum(not reply.has_error() for reply in replies) == self.stations
        self.ends.append(time.monotonic())
        return found


@server.main()
def main(grid, context):
    strategy = Timed(int(context.run_config["stations"]))
    arrays = ArrayRecord({"w": Array(np.zeros(int(context.run_config["elements"]), dtype=np.float32))})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["rounds"]))
    part = Path(str(context.run_config["result"]) + ".part")
    part.write_text(json.dumps(strategy.ends))
    part.replace(str(context.run_config["result"]))
"""


def stock_rounds(
    folder: Path, size_bytes: int, rounds: int, stations: int, timeout_s: float = 600.0
) -> list[float]:
    """Seconds of each round after the first."""
    ends = stock_ends(folder, size_bytes, rounds, stations, timeout_s)
    return [end - begin for begin, end in itertools.pairwise(ends)]


def stock_ends(
    folder: Path,
    size_bytes: int,
    rounds: int,
    stations: int,
    timeout_s: float = 600.0,
    on_superlink: Callable[[int], None] = lambda _pid: None,
) -> list[float]:
    """When each round was over, on the monotonic clock.

    Args:
        folder: for everything.
        size_bytes: of the weights.
        rounds: how many.
        stations: SuperNodes.
        timeout_s: for all rounds.
        on_superlink: told the SuperLink's process once it is started.
    """
    files = SuperLinkFiles(folder / "superlink")
    files.prepare()
    port = free_port()
    environment = flower_environment(folder) | {"FLWR_LOG_LEVEL": "WARNING"}
    with ExitStack() as stack:
        on_superlink(_start(stack, folder, _superlink(files, port), environment))
        control = _control(files, port)
        stack.callback(control.close)
        for number in range(stations):
            key = ec.generate_private_key(ec.SECP256R1())
            path = folder / f"node{number}.key"
            path.write_bytes(_private(key))
            control.register_node(openssh_public_key(key.public_key()))
            _start(stack, folder, _supernode(files, port, path), environment)
        app, result = folder / "app", folder / "rounds.json"
        app.mkdir()
        text = _PYPROJECT.format(elements=size_bytes // 4, rounds=rounds, stations=stations, result=result)
        (app / "pyproject.toml").write_text(text)
        (app / "nothing_app.py").write_text(_APP)
        control._control.StartRun(StartRunRequest(fab=Fab(content=build_fab_from_disk(app))))
        ends = json.loads(_when_there(result, timeout_s))
    return [float(end) for end in ends]


def _superlink(files: SuperLinkFiles, port: int) -> list[str]:
    return [
        _program("flower-superlink"), "--host", LOOPBACK, "--port", str(port), "--database", str(files.database),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation", "--ssl-ca-certfile", str(files.ca),
        "--ssl-certfile", str(files.certificate), "--ssl-keyfile", str(files.key),
    ]  # fmt: skip


def _supernode(files: SuperLinkFiles, port: int, key: Path) -> list[str]:
    return [
        _program("flower-supernode"), "--superlink", f"{LOOPBACK}:{port}", "--root-certificates", str(files.ca),
        "--auth-supernode-private-key", str(key), "--port", str(free_port()),
    ]  # fmt: skip


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _start(stack: ExitStack, folder: Path, command: Sequence[str], environment: dict[str, str]) -> int:
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    stack.callback(_end, process)
    return process.pid


def _end(process: "subprocess.Popen[bytes]") -> None:
    # A SuperNode's executor and a SuperLink's are in its session and end with it.
    os.killpg(process.pid, 15)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def _control(files: SuperLinkFiles, port: int) -> Control:
    deadline = time.monotonic() + 60
    control = Control(Address(LOOPBACK, port, files.ca), files.secret.read_bytes())
    while True:
        try:
            control.nodes()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return control


def _when_there(path: Path, timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"stock Flower did not finish its rounds in {timeout_s} s")
        time.sleep(0.2)
    return path.read_text()
