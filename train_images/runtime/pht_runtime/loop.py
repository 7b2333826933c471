"""The loop: load the train, say hello, answer request after request, end when the station says finish.

The train is loaded before the hello, so a train that says hello is ready, and what it loaded stays warm. A request in which
the train's code fails is answered with an error code and the process lives on; the traceback goes to the container's log,
which never leaves the hospital. Outside a container the places come from ``PHT_CONTROL``, ``PHT_DATA``, ``PHT_SCRATCH`` and
``PHT_TRAIN`` (the description of the train).
"""

import json
import os
import re
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .frames import PROTOCOL_VERSION, ConnectionEndedError, Request, receive, send, send_file
from .reply import UNCAUGHT, Reply

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class Train(Protocol):
    """Whatever answers requests."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; an exception with ``pht_error_code`` names a declared error."""
        ...


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie."""

    control: Path
    data: Path
    scratch: Path
    description: Path

    @classmethod
    def from_environment(cls) -> "Places":
        """Read the places; what is not set is where the station puts it."""
        return cls(
            control=Path(os.environ.get("PHT_CONTROL", "/train/control/train.sock")),
            data=Path(os.environ.get("PHT_DATA", "/train/data")),
            scratch=Path(os.environ.get("PHT_SCRATCH", "/train/scratch")),
            description=Path(os.environ.get("PHT_TRAIN", "/opt/pht/train.json")),
        )


def main() -> int:
    """Serve until the station says finish; returns the exit code."""
    places = Places.from_environment()
    description = json.loads(places.description.read_text(encoding="utf-8"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(places.control))
        train = load(description, places)
        send(sock, {"type": "hello", "protocol": PROTOCOL_VERSION, "interface": description["interface"]})
        try:
            while _serve_one(sock, train):
                pass
        except (ConnectionEndedError, BrokenPipeError, ConnectionResetError):
            return 1
    return 0


def load(description: dict[str, object], places: Places) -> Train:
    """Load the train that the image's description names.

    Raises:
        ValueError: the interface is none of ours.
    """
    interface = description.get("interface")
    if interface == "flower":
        # Here and not above: a command train's image need not hold Flower.
        from .flower import FlowerTrain  # noqa: PLC0415

        node_config = {"data": str(places.data), "scratch": str(places.scratch)}
        return FlowerTrain(str(description["clientapp"]), node_config)
    if interface == "command":
        from .command import CommandTrain  # noqa: PLC0415

        return CommandTrain(_argv(description), places.scratch, places.data)
    if interface == "map":
        from .mapping import MapTrain  # noqa: PLC0415

        return MapTrain(_argv(description), places.scratch)
    raise ValueError(f"train.json: the interface {interface!r} is neither flower nor command nor map")


def _argv(description: dict[str, object]) -> list[str]:
    argv = description.get("argv")
    if not isinstance(argv, list) or not argv:
        raise ValueError("train.json: argv must be a list of at least one word")
    return [str(word) for word in argv]


def _serve_one(sock: socket.socket, train: Train) -> bool:
    with receive(sock) as request:
        if request.head["type"] == "finish":
            return False
        reply = _answer(train, request)
        head = {"type": "reply", "id": request.head["id"], "metrics": {}, "rows": {}, "error": reply.error}
        if reply.error is None:
            head |= {"metrics": dict(reply.metrics), "rows": dict(reply.rows)}
            if reply.scores:
                head["scores"] = list(reply.scores)
        try:
            if reply.arrays_path is None:
                send(sock, head, reply.arrays)
            else:
                send_file(sock, head, reply.arrays_path)
        except ValueError:  # found before the first byte went out
            traceback.print_exc()
            head.pop("scores", None)
            send(sock, head | {"metrics": {}, "rows": {}, "error": UNCAUGHT})
        return True


def _answer(train: Train, request: Request) -> Reply:
    try:
        reply = train.answer(request)
        if reply.error is None or _CODE.fullmatch(reply.error):
            return reply
        return Reply(error=UNCAUGHT)
    except Exception as error:  # noqa: BLE001 - the outermost boundary around the train's own code
        traceback.print_exc()
        code = getattr(error, "pht_error_code", None)
        return Reply(error=code if isinstance(code, str) and _CODE.fullmatch(code) else UNCAUGHT)
