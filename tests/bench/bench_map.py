"""What a container per patient costs: seconds per patient of the shipped map train, against less isolation, in one run as ratios.

    python -m tests.bench.bench_map [--patients 24] [--size 256] [--slices 64] [--output FILE]

The work is `train_images/example-map` on made-up CT volumes. In turn: its functions called in this process; one container that is
given the whole cohort (no patient is kept from another); a container per patient one by one, every layer of the image read before
each; the same with what was read of the layers shared by the containers of a run; and as stations do it, several side by side.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, cast

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.blobs import BlobFolder
from policies.documents import canonical_json, load_yaml_file
from policies.image_archive import split_image
from policies.manifest import TrainManifest
from policies.splits import Split
from station.cohorts import FrozenCohort, PatientFolders, nifti
from station.cohorts.frozen import digest_folder
from station.cohorts.layout import seal, write_file
from station.cohorts.roster import Roster
from station.sandbox.launcher.service import local_launcher
from station.sandbox.mapping import MapReply, MapSession, MapTerms
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    Launcher,
    LauncherSettings,
    ReplyLimits,
    TrainReply,
    TrainRequest,
)
from train_images.base.build import build_base_images

TRAIN = Path(__file__).parents[2] / "train_images" / "example-map"
TAG = "pht-bench-map:1"
ASKED = TrainRequest("analyse", 1, {"emphysema_hu": -950})


@dataclass(frozen=True)
class Bench:
    """A launcher, the train in its layer store, and a cohort."""

    home: Path
    launcher: Launcher
    manifest: TrainManifest
    spec: ContainerSpec
    cohort: FrozenCohort

    def in_process(self) -> None:
        """Call the train's functions, as a researcher would without any of this."""
        bands = _program()
        for path in sorted((self.cohort.path / "images").iterdir()):
            bands.bands(bands.volume(path), -950)

    def one_container(self) -> None:
        """Give one container the whole cohort."""
        session = TrainSandbox(self.launcher).start(self.spec)
        try:
            answer = session.exchange(ASKED, ReplyLimits(self.home / "reply", 0), 3600)
        finally:
            session.stop()
        assert isinstance(answer, TrainReply), answer

    def roster(self) -> Roster:
        """A cohort made by hand: the train and the project call patients the same."""
        return Roster.read(self.cohort, {patient: patient for patient in self.cohort.patients})

    def each(self, at_once: int, *, share: bool) -> None:
        """Give each patient a container."""
        terms = MapTerms(self.spec, self.manifest, self.roster(), at_once, 0.0)
        session = MapSession(_Starter(self.launcher, share), PatientFolders(self.cohort), terms)
        answer = session.exchange(ASKED, ReplyLimits(self.home / "reply", 0), 3600)
        session.stop()
        assert isinstance(answer, MapReply), answer
        assert answer.tally.failures == 0, answer.tally.ends


@dataclass(frozen=True)
class _Starter:
    launcher: Launcher
    share: bool

    def start(self, spec: ContainerSpec) -> TrainSession:
        changed = spec if self.share else spec.model_copy(update={"series": None})
        return TrainSandbox(self.launcher).start(changed)

    def stop(self, run_id: str) -> None:
        self.launcher.stop(run_id)


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bands", TRAIN / "bands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_cohort(cohorts: Path, patients: int, size: int, slices: int) -> FrozenCohort:
    """Write volumes with a body in them, in a cohort's form."""
    data = cohorts / "bench" / "data"
    (data / "images").mkdir(parents=True)
    random = np.random.default_rng(20261122)
    across = (np.arange(size) - size / 2) / (size / 2)
    inside = across[:, None] ** 2 + across[None, :] ** 2 < 0.8
    entries, lines = [], ["case,patient,sex"]
    for number in range(patients):
        volume = np.full((slices, size, size), -1000, np.int16)
        volume[:, inside] = random.integers(-950, 300, (slices, int(inside.sum())), np.int16)
        image = f"images/c{number:04}.nii"
        affine = np.diag([0.8, 0.8, 1.5, 1.0])
        write_file(data / image, nifti.header((size, size, slices), affine, volume.dtype), volume.tobytes())
        entries.append({"image": image, "case": f"c{number:04}", "patient": f"p{number:04}"})
        lines.append(f"c{number:04},p{number:04},{'FM'[number % 2]}")
    listed = {"name": "thorax-1@1", "labels": {}, "training": entries, "validation": [], "testing": []}
    write_file(data / "datalist.json", canonical_json(listed))
    write_file(data / "clinical.csv", ("\n".join(lines) + "\n").encode())
    write_file(data / "cohort.json", canonical_json({"counts_rounded": {}, "masks": None}))
    seal(data)
    none = dict.fromkeys(Split, 0)
    names = frozenset(entry["patient"] for entry in entries)
    return FrozenCohort(data, digest_folder(data), {Split.TRAINING: names}, none, none, {})


def prepare(home: Path, patients: int, size: int, slices: int, most: int) -> Bench:
    """Build the train, store its layers, write the cohort, and load the image once: that is paid when a run is prepared."""
    build_base_images(lambda _line: None, torch=False)
    subprocess.run(
        ["docker", "build", "-q", "--network=none", "-t", TAG, str(TRAIN)], check=True, capture_output=True
    )
    for name in ("cohorts", "control", "layers"):
        (home / "compute" / name).mkdir(parents=True)
    with subprocess.Popen(["docker", "save", TAG], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        image = split_image(cast("BinaryIO", saving.stdout), BlobFolder(home / "compute" / "layers"))
        saving.stdout.read()
    manifest = load_yaml_file(TrainManifest, TRAIN / "train.yaml")
    memory = manifest.resources.memory_mib * MIB
    settings = LauncherSettings(
        station="bench", compute_uid=os.getuid(), max_containers=most, max_memory_bytes=memory * most, max_cpus=float(most),
    )  # fmt: skip
    launcher = local_launcher(home, settings)
    spec = ContainerSpec(
        run_id="bench-map", image_config_digest=image.config.digest, cohort_dir=str(home / "compute/cohorts/bench/data"),
        control_dir=str(home / "compute/control/bench-map"), interface="map", memory_bytes=memory, cpus=1.0,
        pids=32, scratch_bytes=16 * MIB, wall_clock_s=7200,
    )  # fmt: skip
    launcher.load_image(spec.image_config_digest)
    cohort = make_cohort(home / "compute" / "cohorts", patients, size, slices)
    return Bench(home, launcher, manifest, spec, cohort)


def measure(bench: Bench, patients: int, most: int) -> list[dict[str, float | str]]:
    """Time each way once, after one call that fills caches."""
    ways: list[tuple[str, Callable[[], None]]] = [
        ("in process, no container", bench.in_process),
        ("one container, whole cohort", bench.one_container),
        ("one by one, every layer read each time", lambda: bench.each(1, share=False)),
        ("one by one", lambda: bench.each(1, share=True)),
        (f"{most} side by side, every layer read each time", lambda: bench.each(most, share=False)),
        (f"{most} side by side, as stations do", lambda: bench.each(most, share=True)),
    ]
    bench.in_process()
    found: list[dict[str, float | str]] = []
    for name, way in ways:
        began = time.monotonic()
        way()
        found.append({"way": name, "seconds_per_patient": round((time.monotonic() - began) / patients, 4)})
    return found


def main() -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="pixels along an edge of a slice")
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args()
    console = Console(highlight=False)
    most = max(2, min(8, os.cpu_count() or 2))
    home = Path(tempfile.mkdtemp(prefix="pht-bench-map-"))
    try:
        bench = prepare(home, choices.patients, choices.size, choices.slices, most)
        found = measure(bench, choices.patients, most)
        bench.launcher.remove_orphans()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    first, alone = (float(row["seconds_per_patient"]) for row in found[:2])
    volume = f"{choices.size}x{choices.size}x{choices.slices}"
    table = Table(
        title=f"a container per patient: {choices.patients} patients, {volume} int16, {most} processors"
    )
    for column in ("way", "s per patient", "against no container", "against one container"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in found:
        took = float(row["seconds_per_patient"])
        row |= {"against_none": round(took / first, 2), "against_one": round(took / alone, 2)}
        table.add_row(str(row["way"]), f"{took:.3f}", f"{took / first:.1f}x", f"{took / alone:.1f}x")
    console.print(table)
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
