"""Three stations in a network whose only way out is a proxy: the parts of a station that speak, with a train of one line.

Started by a test inside that network: reads where everything is from its arguments, says a JSON line per event, ends with its stdin.
"""

import json
import logging
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from policies.refusals import Permitted
from policies.trust.client import PolicyClient
from policies.wire.http import load_private_key
from policies.wire.instructions import Instruction, Kind, StationReply, Status
from policies.wire.proxies import Proxy
from station.agent import Agent, FleetConnection, Pace
from station.agent.blobs import BlobClient, blob_of
from station.images.orchestrator import OrchestratorBundles

PACE = Pace(fast_s=0.02, slow_s=0.1, idle_s=0.1, heartbeat_s=2.0, check_s=1.0, grace_s=30.0)


def say(event: str, **more: object) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


class Said(logging.Handler):
    """Every event of the station's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), reason=str(getattr(record, "reason", "")))


class Station:
    """Adds its number to every weight; weights and release travel by digest."""

    def __init__(self, number: int, blobs: BlobClient, folder: Path) -> None:
        self.number, self.blobs, self.folder = number, blobs, folder

    def handle(self, instruction: Instruction, _arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        common = {
            "order_digest": instruction.order_digest, "kind": instruction.kind, "round": instruction.round,
            "attempt": instruction.attempt, "num_examples": 50,
        }  # fmt: skip
        if instruction.kind in {Kind.PREPARE, Kind.FINISH}:
            status = Status.ACCEPTED if instruction.kind is Kind.PREPARE else Status.FINISHED
            return StationReply(**common, status=status), None
        if instruction.weights is None:
            raise ValueError("the weights should have come by digest")
        inbound = self.folder / "inbound"
        self.blobs.fetch(instruction.weights, inbound)
        if instruction.kind is Kind.EVALUATE:
            return StationReply(**common, status=Status.RELEASED, metrics={"auc": 0.7}), None
        release = self.folder / "release"
        save_file(
            {name: np.full_like(value, self.number) for name, value in load_file(inbound).items()}, release
        )
        self.blobs.push(blob_of(release), release, instruction.order_digest)
        reply = StationReply(
            **common, status=Status.RELEASED, metrics={"loss": 1.0}, release=blob_of(release)
        )
        return reply, None

    def fault(self, instruction: Instruction) -> StationReply:
        return StationReply(
            order_digest=instruction.order_digest, kind=instruction.kind, round=instruction.round,
            attempt=instruction.attempt, status=Status.FAILED, code="STATION_FAULT",
        )  # fmt: skip

    def run_over(self, order_digest: str) -> None:
        say("over")


def main() -> None:
    """Refresh the policies, bring the image, then serve until stdin ends."""
    asked = json.loads(sys.argv[1])
    folder, ca, url = Path(asked["folder"]), Path(asked["ca"]), asked["url"]
    logging.getLogger("station").addHandler(Said())
    logging.getLogger("station").setLevel(logging.INFO)
    proxy = Proxy.read(asked["proxy"], Path(asked["credentials"]), None, "proxy_credentials_file")
    try:
        socket.create_connection((asked["outside"], asked["port"]), timeout=10).close()
        say("direct", reached=True)
    except OSError as error:
        say("direct", reached=False, kind=type(error).__name__)
    PolicyClient.pin(folder / "trust", Path(asked["root"]).read_bytes())
    policies = PolicyClient(folder / "trust", f"{url}/api/v1/mirror", ca=ca, proxy=proxy)
    say("policies", permitted=isinstance(policies.refresh(datetime.now(UTC)), Permitted))
    agents = []
    for number, (name, key_file) in enumerate(sorted(asked["keys"].items()), 1):
        key, own = load_private_key(Path(key_file)), folder / name
        own.mkdir()
        blobs = BlobClient(url, ca, key, proxy)
        if number == 1:
            bundles = OrchestratorBundles(url, ca, key, blobs, folder / "work", proxy)
            found = bundles.find(asked["image"])
            moved = sum(bundles.download(layer, folder / "layer") for layer in found.layers)
            say("image", bytes=moved)
            bundles.close()
        connection = FleetConnection(url, ca, Path(key_file), proxy)
        agents.append(Agent(connection, Station(number, blobs, own), own / "agent", PACE))
        agents[-1].start()
    sys.stdin.read()
    for agent in agents:
        agent.stop(5.0)


if __name__ == "__main__":
    main()
