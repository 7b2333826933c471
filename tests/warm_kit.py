"""A station in process whose trains are real containers: the image's train misbehaves on its second request, as its rate says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox_kit import DESCRIPTION, DOCKERFILE, build_image, store_image
from station_kit import StationKit

from policies.blobs import BlobFolder
from station.layout import StationPaths
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import ContainerSpec, LauncherSettings

TAG = "pht-test-warm:1"
HONEST, OUT_OF_MEMORY, SILENT, EXITS = 1.0, 2.0, 3.0, 4.0

APP = """
import os
import threading
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
asked = []

@app.train()
def train(message, context):
    asked.append(1)
    rate = message.content["config"]["rate"]
    if len(asked) > 1:
        if rate == 2.0:
            asked.append([bytearray(b"x" * (1 << 20)) for _ in range(1024)])
        if rate == 3.0:
            threading.Event().wait()
        if rate == 4.0:
            os._exit(7)
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    moved = {name: Array(value + value.dtype.type(1) if value.dtype.kind == "f" else value) for name, value in arrays.items()}
    return Message(content=RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord({"loss": 0.5})}), reply_to=message)
"""


@dataclass
class RealSandbox:
    """Starts the test's image, whatever the order names; a simulator's surface for the kit."""

    inner: TrainSandbox
    image: str
    started: list[TrainSession] = field(default_factory=list)
    running: tuple[Any, ...] = ()

    def start(self, spec: ContainerSpec) -> TrainSession:
        """Start a container."""
        session = self.inner.start(spec.model_copy(update={"image_config_digest": self.image}))
        self.started.append(session)
        return session

    def stop(self, run_id: str) -> None:
        """Kill and remove a container."""
        self.inner.stop(run_id)


class ImagesAreThere(LauncherCore):
    """The real launcher; the image that an order names is not the one that this station holds."""

    def load_image(self, config_digest: str) -> Any:
        """Load nothing: the sandbox names the image that it starts."""


@contextmanager
def warm_station(
    folder: Path, policy: Mapping[str, object] | None = None, *, app: str = APP, tag: str = TAG
) -> Iterator[StationKit]:
    """Yield a station kit with a launcher and trains that are real."""
    build_image(tag, DOCKERFILE, DESCRIPTION, **{"app.py": app})
    kit = StationKit.make(folder, policy=policy)
    paths: StationPaths = kit.paths
    paths.layers.mkdir(exist_ok=True)
    launcher = ImagesAreThere(folder / "home", LauncherSettings(station="warm", compute_uid=0))
    try:
        image = store_image(tag, BlobFolder(paths.layers))
        kit.launcher = launcher  # type: ignore[assignment]
        kit.sandbox = RealSandbox(TrainSandbox(launcher), image)  # type: ignore[assignment]
        kit.database.close()
        kit.open()
        yield kit
    finally:
        kit.close()
        launcher.remove_orphans()
