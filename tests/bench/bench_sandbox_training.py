"""What the sandbox costs a training: throughput of the CT segmentation train inside it, against the same code outside, as a ratio.

    python -m tests.bench.bench_sandbox_training [--blocks 12] [--minutes 30] [--set NAME=VALUE] [--output FILE]

Inside: the image in a station's own sandbox, with all its restrictions. Outside: the same image by plain `docker run`, without a filter of
system calls and with a writable root; as many processors, as much memory and as many threads (`--unlimited`: without those limits). Where this
machine has an NVIDIA GPU both have it, and the image is the one for CUDA.

Both stay warm and train one round again and again, from the same weights on the same files: A B B A, B A A B. The first round of each is told
apart. Loss and weights of all rounds must be equal, byte for byte on a CPU, so that the same work was done. Timed is training, inside the
process of either (`training_clock.py`): by the clock, and in processor time of all its threads, which other work on the machine disturbs less.
What a request and its answer take beside is told as well.

Exit status 1: throughput by the clock is surely below 97 % (the whole interval, see `paired_ratio.py`); 0 else, with the word "undecided" where
the machine was too restless to say.
"""

import argparse
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trains_kit import remove_images

from tests.bench.paired_ratio import Block, Ratio, Verdict, ratio_over
from tests.bench.training_arms import CASES, TAG, Round, Side, Terms, gpu_here, packed, sides
from train_images.tool.folders import PackedTrain
from train_images.tool.hyperparameters import choose

LIMIT: Final = 0.97
"""Throughput inside within 3 % of that outside."""
GPU_TOLERANCE: Final = 1e-3
"""Of the loss, relative: on a GPU sums come in another order each time."""
ORDERS: Final = (("inside", "outside", "outside", "inside"), ("outside", "inside", "inside", "outside"))
SAME: Final = ("threads", "processors", "on_gpu")
"""What both must say of themselves."""
FIGURES: Final[dict[str, Callable[[Round], float]]] = {
    "training, by the clock": lambda each: each.seconds,
    "training, processor time": lambda each: each.processor_s,
    "one step, by the clock": lambda each: statistics.median(each.clock["steps_s"]),
    "with request and answer": lambda each: each.exchange_s,
}


def settings_of(train: PackedTrain, patches: int, changes: Sequence[str]) -> dict[str, Any]:
    """Return the manifest's own hyperparameters, how many patches a case gives, and what `--set` changes.

    Raises:
        PhtError: there is no such hyperparameter, or it takes no such value.
    """
    return dict(choose(train.manifest, [f"patches_per_case={patches}", *changes]))


def check_same_work(rounds: Sequence[Round]) -> None:
    """Hold all rounds of both sides to the first.

    Raises:
        SystemExit: they are not the same work, or were not given the same.
    """
    first = rounds[0]
    for each in rounds[1:]:
        if any(each.clock[name] != first.clock[name] for name in SAME):
            raise SystemExit(f"not given the same: {first.clock} and {each.clock}")
        if not first.clock["on_gpu"] and (each.loss, each.weights) != (first.loss, first.weights):
            raise SystemExit(f"not the same work: loss {first.loss} and {each.loss}, or other weights")
        if not math.isclose(each.loss, first.loss, rel_tol=GPU_TOLERANCE):
            raise SystemExit(f"not the same work: loss {first.loss} and {each.loss}")


def measure(
    both: dict[str, Side], blocks: int, minutes: float, progress: Callable[[str], None]
) -> dict[str, list[Round]]:
    """Train in turn; returns the rounds of each side, the first of each the one that warms it.

    Args:
        both: started.
        blocks: at most.
        minutes: after which no block begins.
        progress: called with one line per block.
    """
    until = time.monotonic() + 60 * minutes
    found = {where: [side.train()] for where, side in both.items()}
    check_same_work([found["inside"][0], found["outside"][0]])
    for number in range(blocks):
        if time.monotonic() > until:
            break
        for where in ORDERS[number % len(ORDERS)]:
            found[where].append(both[where].train())
            check_same_work([found["inside"][0], found[where][-1]])
        ratio = block_ratios(found, FIGURES["training, by the clock"])[-1]
        progress(f"block {number + 1} of {blocks}: {ratio:.3f}, load {os.getloadavg()[0]:.1f}")
    return found


def block_ratios(found: dict[str, list[Round]], figure: Callable[[Round], float]) -> list[float]:
    """Return what each block says of a figure; the rounds that warm are left out."""
    inside, outside = ([figure(each) for each in found[where][1:]] for where in ("inside", "outside"))
    return [
        Block((inside[at], inside[at + 1]), (outside[at], outside[at + 1])).ratio
        for at in range(0, len(inside), 2)
    ]


def report(found: dict[str, list[Round]], patches: int, console: Console) -> tuple[dict[str, Ratio], Verdict]:
    """Show what was found."""
    ratios = {name: ratio_over(block_ratios(found, figure)) for name, figure in FIGURES.items()}
    table = Table("", "inside", "outside", title=f"a round of training: {patches} patches, medians")
    rows: dict[str, Callable[[Round], float]] = {
        "patches per second": lambda each: patches / each.seconds,
        "seconds": lambda each: each.seconds,
        "processor seconds, user": lambda each: each.clock["user_s"],
        "processor seconds, system": lambda each: each.clock["system_s"],
        "page faults": lambda each: each.clock["faults"],
        "switches": lambda each: each.clock["switches"],
        "seconds with request and answer": lambda each: each.exchange_s,
    }
    for name, row in rows.items():
        table.add_row(
            name,
            *(f"{statistics.median(map(row, found[where][1:])):.4g}" for where in ("inside", "outside")),
        )
    table.add_row(
        "seconds of the first, cold", *(f"{found[where][0].seconds:.4g}" for where in ("inside", "outside"))
    )
    console.print(table)
    table = Table(
        "throughput inside of that outside", "median", "interval", "least to most", "at least 0.97?"
    )
    for name, ratio in ratios.items():
        interval = (
            f"{ratio.low:.3f} to {ratio.high:.3f} ({ratio.confidence:.0%})" if ratio.confidence else "none"
        )
        table.add_row(
            name,
            f"{ratio.median:.3f}",
            interval,
            f"{ratio.least:.3f} to {ratio.most:.3f}",
            ratio.verdict(LIMIT).value,
        )
    console.print(table)
    return ratios, ratios["training, by the clock"].verdict(LIMIT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=12, help="of four rounds; under six nothing is decided")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no block begins")
    parser.add_argument("--width", type=int, default=16, help="channels of the UNet's first level")
    parser.add_argument("--patches", type=int, help="per case and round; without it 1, on a GPU 64")
    parser.add_argument("--cpus", type=float, help="and as many threads; without it what train.yaml asks for")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter, else as shipped"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--unlimited", action="store_true", help="outside without limits on processors and memory"
    )
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    # Containers and images go also where somebody ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False)
    gpu, why = gpu_here()
    if choices.device == "cuda" and not gpu:
        raise SystemExit(why)
    gpu = gpu and choices.device != "cpu"
    console.print(why if gpu or choices.device == "auto" else "measured on the processor")
    per_case = choices.patches or (64 if gpu else 1)
    try:
        with tempfile.TemporaryDirectory(prefix="pht-bench-training-") as scratch:
            train = packed(Path(scratch), "cuda" if gpu else "cpu")
            settings = settings_of(train, per_case, choices.set)
            terms = Terms(settings, choices.width, gpu, choices.cpus, limits=not choices.unlimited)
            with sides(train, terms) as both:
                found = measure(both, choices.blocks, choices.minutes, console.print)
    finally:
        remove_images([TAG])
    if bool(found["inside"][0].clock["on_gpu"]) != gpu:
        raise SystemExit("it trained on another device than it was given")
    ratios, verdict = report(found, CASES * per_case, console)
    clock = found["inside"][0].clock
    console.print(
        f"{verdict.value}: {clock['threads']} threads on {clock['processors']} processors, load {os.getloadavg()[0]:.1f}; "
        f"all rounds alike in loss{'' if gpu else ' and weights, byte for byte'}"
    )
    if choices.output is not None:
        choices.output.write_text(json.dumps(_as_json(found, ratios, verdict), indent=1) + "\n")
    return int(verdict is Verdict.BEYOND)


def _as_json(found: dict[str, list[Round]], ratios: dict[str, Ratio], verdict: Verdict) -> dict[str, Any]:
    rounds = {
        where: [each.clock | {"exchange_s": each.exchange_s, "loss": each.loss} for each in rounds]
        for where, rounds in found.items()
    }
    told = {
        name: {"median": each.median, "low": each.low, "high": each.high, "confidence": each.confidence}
        for name, each in ratios.items()
    }
    return {"verdict": verdict.value, "limit": LIMIT, "ratios": told, "rounds": rounds}


if __name__ == "__main__":
    raise SystemExit(main())
