"""Reception by C-STORE with mutual TLS, durable before it is acknowledged, against dcmtk's storescp, in one run, as ratios.

    python -m tests.bench.bench_reception [--instances 600] [--output FILE]

The sender is dcmtk's storescu for all of them, the instances are 512 x 512 CT slices. storescp writes each file and leaves it to
the kernel's cache; ours syncs file and folder before it answers. Sender and receiver share this machine's cores.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trustme
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pacs_kit import (
    DCMTK,
    DCMTK_ENVIRONMENT,
    Certificates,
    acknowledged,
    free_port,
    listens,
    storescu_arguments,
    tls_arguments,
    wait_until,
)
from pseudonym_files import CT, file_bytes, identified

TARGET_PER_S = 200.0
"""DESIGN section 9: C-STORE reception, mutual TLS on."""

ROUNDS = 3
CALLING, CALLED = "BENCH", "PHT-BENCH"
_SERVE = """
import logging
import sys
from pathlib import Path
from station.intake.sources.network import TlsFiles
from station.intake.sources.receiver import Receiver
from station.intake.sources.reception import Route
from station.intake.spool import SourceKind
from station.settings.dicom import ReceiverSettings

class All:
    def route(self, calling, called): return Route("bench", SourceKind.C_STORE)
    def knows(self, calling): return True
    def received(self, batch): pass
    def rejected(self, rejection): pass

logging.disable()
port, spool, *tls = sys.argv[1:]
files = TlsFiles(*map(Path, tls)) if tls else None
settings = ReceiverSettings(enabled=True, port=int(port), tls="none")
receiver = Receiver(settings, files, Path(spool), ("1.2.840.10008.5.1.4.1.1.2",), All(), All())
receiver.start()
sys.stdin.read()
receiver.stop()
"""


@dataclass(frozen=True)
class Setup:
    """One receiver under test."""

    name: str
    tls: bool
    associations: int
    serve: Callable[[Path, Certificates | None], AbstractContextManager[int]]


@contextmanager
def ours(folder: Path, tls: Certificates | None) -> Any:
    """Our receiver as a process of its own; yields its port."""
    port = free_port()
    (folder / "spool").mkdir()
    more = [tls.authority, tls.certificate, tls.key] if tls else []
    command = [sys.executable, "-c", _SERVE, str(port), str(folder / "spool"), *map(str, more)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        wait_until(lambda: listens(port), "our receiver")
        yield port
    finally:
        process.communicate()


@contextmanager
def storescp(folder: Path, tls: Certificates | None) -> Any:
    """dcmtk's receiver, a process per association; yields its port."""
    port = free_port()
    command = [DCMTK / "storescp", "--fork", "+xa", "-od", folder, *tls_arguments(tls), port]
    process = subprocess.Popen(
        [str(part) for part in command], env=DCMTK_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        wait_until(lambda: listens(port), "storescp")
        yield port
    finally:
        process.kill()
        process.wait()


SETUPS = (
    Setup("ours, mutual TLS, 1 association", tls=True, associations=1, serve=ours),
    Setup("ours, mutual TLS, 2 associations", tls=True, associations=2, serve=ours),
    Setup("ours, plain, 1 association", tls=False, associations=1, serve=ours),
    Setup("storescp, TLS, 1 association", tls=True, associations=1, serve=storescp),
    Setup("storescp, TLS, 2 associations", tls=True, associations=2, serve=storescp),
    Setup("storescp, plain, 1 association", tls=False, associations=1, serve=storescp),
)


def measure(instances: int, console: Console) -> list[dict[str, object]]:
    """Every receiver on the same files: instances a second, the median of some rounds."""
    scratch = Path(tempfile.mkdtemp(prefix="pht-bench-"))
    try:
        files = slices(scratch / "files", instances)
        authority = trustme.CA()
        server = Certificates.issue(scratch / "server", authority, "server")
        client = Certificates.issue(scratch / "client", authority, "client")
        found: list[dict[str, object]] = []
        for setup in SETUPS:
            console.print(f"{setup.name} ...")
            rates = []
            for number in range(ROUNDS):
                folder = scratch / f"{len(found)}-{number}"
                folder.mkdir()
                with setup.serve(folder, server if setup.tls else None) as port:
                    rates.append(rate(port, files, setup.associations, client if setup.tls else None))
                shutil.rmtree(folder)
            found.append({"receiver": setup.name, "per_s": round(statistics.median(rates), 1)})
        peers = {str(row["receiver"]): float(str(row["per_s"])) for row in found}
        for row in found:
            peer = peers[
                str(row["receiver"]).replace("ours, mutual", "storescp,").replace("ours", "storescp")
            ]
            row["ratio"] = round(float(str(row["per_s"])) / peer, 2)
        return found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def rate(port: int, files: list[Path], associations: int, tls: Certificates | None) -> float:
    """Send the files over so many associations; instances a second, all of them acknowledged."""
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [
                str(DCMTK / "storescu"),
                *map(str, storescu_arguments(port, files[number::associations], calling=CALLING, called=CALLED, tls=tls)),
            ],
            env=DCMTK_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(associations)
    ]  # fmt: skip
    told = sum(len(acknowledged(sender.communicate()[0])) for sender in senders)
    seconds = time.perf_counter() - began
    if told != len(files):
        raise SystemExit(f"{len(files) - told} instances were not acknowledged")
    return len(files) / seconds


def slices(folder: Path, count: int) -> list[Path]:
    """Made-up CT slices of 512 x 512."""
    folder.mkdir()
    pixels = np.random.default_rng(20261122).integers(0, 4000, (512, 512)).astype("<u2").tobytes()
    paths = []
    for number in range(count):
        dataset = identified(
            SOPClassUID=CT, SOPInstanceUID=f"1.2.3.{number}", Rows=512, Columns=512, PixelData=pixels
        )
        paths.append(folder / f"{number:05d}.dcm")
        paths[-1].write_bytes(file_bytes(dataset))
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write; 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instances", type=int, default=600)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    console = Console(highlight=False)
    found = measure(choices.instances, console)
    table = Table(title=f"C-STORE reception, {choices.instances} CT slices of 512 x 512")
    for column in ("receiver", "instances/s", "ratio to storescp", "limit"):
        table.add_column(column, justify="left" if column == "receiver" else "right")
    for row in found:
        limit = f"{TARGET_PER_S:g}" if "mutual" in str(row["receiver"]) else ""
        table.add_row(str(row["receiver"]), str(row["per_s"]), f"{row['ratio']}x", limit)
    console.print(table)
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    missed = [
        row for row in found if "mutual" in str(row["receiver"]) and float(str(row["per_s"])) < TARGET_PER_S
    ]
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
