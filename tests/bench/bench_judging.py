"""What judging stations' updates costs beside one read of their bytes, one after the other and as a stage does it; and its memory.

    python -m tests.bench.bench_judging [--megabytes 100] [--updates 6] [--runs 3] [--folder DIR] [--output FILE]

In turn: each file read with its SHA-256 by one thread, which is the least that anything does that takes a file and knows what it took;
every update judged by one thread; every update judged as `orchestrator.federation.looks` does, as they come. Files lie in memory
(/dev/shm) where there is room. Times are told as ratios and not judged, since how much the second core gives depends on what else runs;
memory is (`MOST_BYTES`, exit status 1 beyond it).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orchestrator.federation.looks import Looks
from orchestrator.federation.replies import Accepted, Verdict
from orchestrator.federation.updates_check import check_release
from policies.documents import digest_of_file
from policies.policy import ReleaseRules
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob
from policies.wire.releases import ReleaseTensor, TensorRole
from tests.bench.bench_guard import MEGABYTE, place_with_room, read_and_hash, write_model
from tests.bench.bench_strategies import Watch, held_bytes

MOST_BYTES: Final = 60_000_000


def timed(work: Callable[[], None]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(folder: Path, megabytes: int, updates: int, runs: int) -> dict[str, float]:
    """Judge the same updates both ways, in turn with reading them."""
    inbound = folder / "inbound"
    write_model(inbound, megabytes, 2, 0.0)
    places = [folder / f"delta{number}" for number in range(updates)]
    for number, path in enumerate(places):
        write_model(path, megabytes, 3 + number, 1e-3)
    blobs = {path: Blob(digest=digest_of_file(path), size=path.stat().st_size) for path in places}
    expected = tuple(
        ReleaseTensor(tensor, TensorRole.PARAMETER, tensor.dtype) for tensor in read_layout(inbound).tensors
    )
    rules = ReleaseRules(maximum_bytes=2**40)

    def judge(path: Path) -> Verdict:
        verdict = check_release(blobs[path], path, inbound, expected, rules)
        if verdict != Accepted():
            raise SystemExit(f"an honest update was not accepted: {verdict}")
        return verdict

    def read() -> None:
        for path in places:
            read_and_hash(path)

    def serially() -> None:
        for path in places:
            judge(path)

    def as_a_stage_does() -> None:
        with Looks() as looks:
            for path in places:
                looks.begin(path.name, lambda path=path: judge(path))  # type: ignore[misc]
            while looks.names:
                looks.wait(1.0)
                looks.done()

    before = held_bytes()
    with Watch() as watch:
        times = [(timed(read), timed(serially), timed(as_a_stage_does)) for _ in range(runs)]
    reads, serial, stage = (statistics.median(each) for each in zip(*times, strict=True))
    return {
        "read_s": reads,
        "serial_s": serial,
        "stage_s": stage,
        "serial_reads": statistics.median(each[1] / each[0] for each in times),
        "stage_reads": statistics.median(each[2] / each[0] for each in times),
        "peak_bytes": watch.most - before,
    }


def main() -> int:
    """Measure, print, judge the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the files lie")
    parser.add_argument("--output", type=Path, default=None, help="the results as JSON")
    asked = parser.parse_args()
    base = asked.folder or place_with_room((asked.updates + 2) * asked.megabytes * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="pht-bench-judging-", dir=base) as folder:
        found = measure(Path(folder), asked.megabytes, asked.updates, asked.runs)
    sys.stdout.write(
        f"{asked.updates} updates of {asked.megabytes} MB: read {found['read_s']:.2f} s; "
        f"judged by one thread {found['serial_s']:.2f} s ({found['serial_reads']:.2f} reads), "
        f"as a stage does {found['stage_s']:.2f} s ({found['stage_reads']:.2f} reads); "
        f"{found['peak_bytes'] / MEGABYTE:.0f} MB at most\n"
    )
    if asked.output is not None:
        asked.output.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["peak_bytes"] <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
