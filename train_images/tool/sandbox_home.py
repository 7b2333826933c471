"""A folder laid out as the launcher expects it, around a bundle: what a dry run needs of a station.

    HOME/compute/layers    the bundle's own blobs
    HOME/compute/cohorts   the cohort of phantoms
    HOME/compute/control   the train's socket
    HOME/work              weights and replies on their way

The launcher in it is a station's own, in this process, with the ceilings that the train asks for.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import StorageError, UnavailableError
from policies.manifest import Interface, TrainManifest
from station.sandbox.gpu.model import GpuTerms
from station.sandbox.launcher.service import local_launcher
from station.sandbox.spec import MIB, Launcher, LauncherSettings
from train_images.tool.folders import PackedTrain
from train_images.tool.measuring import MeasuringLauncher

_MOST_AT_ONCE: Final = 4
DEFAULT_ENGINE: Final = Path("/var/run/docker.sock")


@dataclass(frozen=True, slots=True)
class SandboxHome:
    """The folder and the launcher over it.

    Attributes:
        path: the folder.
        engine: the container engine's socket.
        launcher: a station's own, in this process; it is looked at what its containers use.
    """

    path: Path
    engine: Path
    launcher: MeasuringLauncher

    @property
    def cohorts(self) -> Path:
        """Where cohorts are frozen."""
        return self.path / "compute" / "cohorts"

    @property
    def control(self) -> Path:
        """Where trains connect."""
        return self.path / "compute" / "control"

    @property
    def work(self) -> Path:
        """Where weights and replies lie."""
        return self.path / "work"


def containers_at_once(manifest: TrainManifest) -> int:
    """Return how many containers of a map train work side by side in a dry run: what this machine's processors are for."""
    if manifest.interface is not Interface.MAP:
        return 1
    return max(1, min(_MOST_AT_ONCE, int((os.cpu_count() or 1) / manifest.resources.cpus)))


@contextmanager
def sandbox_home(
    train: PackedTrain, engine: Path = DEFAULT_ENGINE, gpu: GpuTerms | None = None
) -> Iterator[SandboxHome]:
    """Yield a home for one dry run; its containers and files are gone afterwards.

    Args:
        train: the bundle.
        engine: the container engine's socket.
        gpu: the devices that may be leased; none without.

    Raises:
        StorageError: it cannot be made.
        UnavailableError: no container engine answers.
    """
    resources, together = train.manifest.resources, containers_at_once(train.manifest)
    if train.manifest.outputs.membership_scores:
        # One that trains, and one beside it that scores.
        together = 2
    settings = LauncherSettings(
        station="dry-run",
        engine_socket=engine,
        compute_uid=os.getuid(),
        max_memory_bytes=resources.memory_mib * MIB * together,
        max_cpus=resources.cpus * together,
        max_pids=resources.pids * together,
        max_scratch_bytes=resources.scratch_mib * MIB * together,
        max_containers=1,
        gpu=gpu or GpuTerms(),
    )
    with tempfile.TemporaryDirectory(prefix="pht-check-") as made:
        home = Path(made)
        try:
            for name in ("compute/cohorts", "compute/control", "work"):
                (home / name).mkdir(parents=True)
            (home / "compute" / "layers").symlink_to(train.store.root.resolve())
        except OSError as error:
            raise StorageError(f"the dry run's folder cannot be made ({error.strerror})") from error
        launcher = MeasuringLauncher(local_launcher(home, settings))
        if train.manifest.program is not None:
            _require_engine(launcher)
        yield SandboxHome(home, engine, launcher)


def _require_engine(launcher: Launcher) -> None:
    try:
        launcher.engine_info()
    except UnavailableError as error:
        raise UnavailableError(
            error.message,
            hint="Install and start Docker and let this user reach its socket, or name it with --engine.",
        ) from error
