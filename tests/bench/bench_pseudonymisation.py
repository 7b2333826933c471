"""Images per second and core: our engine against dicom-anonymizer, on the same files in the same run.

    python -m tests.bench.bench_pseudonymisation [--rounds 5] [--output FILE]

Both read each file, de-identify it and write it; one process, one core, rounds in turn, the median of the rounds. Seconds
are of the processor (user and system), so that what else the machine does counts for neither. Then ours over 1 to all
cores, in seconds of the clock and of the processors.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from station.pseudonymisation import DeidentificationOptions, Option, Pseudonymiser, PseudonymKey
from station.pseudonymisation.reading import quiet_pydicom, read_dicom
from tests.pseudonym_files import CT, file_bytes, identified

TARGET_RATIO = 3.0
"""DESIGN section 9."""
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct" / "lung-pet-ct-dx-A0001"
_ALL = DeidentificationOptions(chosen=tuple(Option))
_GENERATED = 32


def files_to_use(scratch: Path) -> tuple[list[Path], str]:
    """Return the shared CT series, or where there is none, generated slices of the same size."""
    found = sorted(SHARED.glob("*.dcm"))
    if found:
        return found, f"{len(found)} slices of the shared CT series"
    made = []
    for number in range(_GENERATED):
        dataset = identified(
            SOPClassUID=CT, Modality="CT", SOPInstanceUID=f"1.2.826.0.1.3680043.8.498.112.{number + 1}",
            Rows=512, Columns=512, PixelData=bytes(512 * 512 * 2),
        )  # fmt: skip
        path = scratch / f"{number}.dcm"
        path.write_bytes(file_bytes(dataset))
        made.append(path)
    return made, f"{len(made)} generated slices of 512x512"


def ours(files: Sequence[Path], target: Path, engine: Pseudonymiser) -> None:
    """Read, pseudonymise and write."""
    for number, path in enumerate(files):
        made = engine.pseudonymise(read_dicom(path.read_bytes())).encode()
        (target / f"{number}.dcm").write_bytes(made)


def theirs(files: Sequence[Path], target: Path) -> None:
    """Read, anonymise and write, as dicom-anonymizer's command line does for each file."""
    from dicomanonymizer import anonymize_dicom_file

    for number, path in enumerate(files):
        anonymize_dicom_file(str(path), str(target / f"{number}.dcm"))


def cpu_seconds(work: Callable[[], None]) -> float:
    """Seconds of this process's processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


_of_worker: list[Pseudonymiser] = []


def _begin(key: Path) -> None:
    quiet_pydicom()
    _of_worker.append(Pseudonymiser(PseudonymKey.load(key), "bench"))


def _work(files: list[Path], target: Path) -> float:
    return cpu_seconds(lambda: ours(files, target, _of_worker[0]))


def scaling(files: list[Path], scratch: Path, key: Path, cores: int) -> tuple[float, float]:
    """Images per second of the clock over some processes that have begun already, and per second of a processor.

    The second tells what working side by side costs where other work on the machine spoils the first.
    """
    repeated = files * 8
    parts = [repeated[index::cores] for index in range(cores)]
    targets = [scratch / f"core-{index}" for index in range(cores)]
    for target in targets:
        target.mkdir(exist_ok=True)
    context = get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context, initializer=_begin, initargs=(key,)) as pool:
        warm = [pool.submit(_work, files[:4], target) for target in targets]
        [future.result() for future in warm]
        start = time.perf_counter()
        running = [pool.submit(_work, part, target) for part, target in zip(parts, targets, strict=True)]
        busy = sum(future.result() for future in running)
        return len(repeated) / (time.perf_counter() - start), len(repeated) / busy


def measure(rounds: int, console: Console) -> dict[str, object]:
    """Both sides, ours with all options too, and the scaling."""
    scratch = Path(tempfile.mkdtemp(prefix="pht-bench-"))
    try:
        files, what = files_to_use(scratch)
        console.print(f"pseudonymising {what} ...")
        key_path = scratch / "bench.key"
        key = PseudonymKey.generate(key_path, now=datetime.now(UTC))
        quiet_pydicom()
        sides: dict[str, Callable[[], None]] = {}
        for name, options in (("ours", None), ("ours, all options", _ALL)):
            engine = Pseudonymiser(key, "bench", options=options or DeidentificationOptions())
            target = scratch / name
            target.mkdir()
            sides[name] = lambda engine=engine, target=target: ours(files, target, engine)  # type: ignore[misc]
        target = scratch / "theirs"
        target.mkdir()
        sides["dicom-anonymizer"] = lambda: theirs(files, target)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for work in sides.values():
            work()
        for _ in range(rounds):
            for name, work in sides.items():
                seconds[name].append(cpu_seconds(work))
        rates = {name: len(files) / statistics.median(found) for name, found in seconds.items()}
        cores = len(os.sched_getaffinity(0))
        over = {count: scaling(files, scratch, key_path, count) for count in range(1, cores + 1)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "files": what,
        "images_per_cpu_s": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["dicom-anonymizer"], 2),
        "ratio_all_options": round(rates["ours, all options"] / rates["dicom-anonymizer"], 2),
        "target_ratio": TARGET_RATIO,
        "images_per_s_over_processes": {str(count): round(rate, 1) for count, (rate, _) in over.items()},
        "images_per_cpu_s_over_processes": {str(count): round(rate, 1) for count, (_, rate) in over.items()},
    }


def show(found: dict[str, object], console: Console) -> None:
    """Print what was measured."""
    table = Table(title=f"pseudonymisation: {found['files']}")
    table.add_column("what")
    table.add_column("images/s", justify="right")
    rates = found["images_per_cpu_s"]
    over, busy = found["images_per_s_over_processes"], found["images_per_cpu_s_over_processes"]
    if isinstance(rates, dict) and isinstance(over, dict) and isinstance(busy, dict):
        for name, rate in rates.items():
            table.add_row(f"{name}, one core", f"{rate:.0f}")
        first = over["1"]
        for count, rate in over.items():
            table.add_row(f"ours, {count} processes, by the clock", f"{rate:.0f}  ({rate / first:.2f}x)")
            table.add_row(f"ours, {count} processes, per core", f"{busy[count]:.0f}")
    console.print(table)
    console.print(
        f"ratio {found['ratio']}x, with all options {found['ratio_all_options']}x (target {found['target_ratio']}x)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    console = Console(highlight=False)
    found = measure(choices.rounds, console)
    show(found, console)
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
