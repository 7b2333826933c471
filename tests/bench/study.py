"""What three hospitals get from training together: central, federated and local training on the shared radiographs, over seeds.

    python -m tests.bench.study [--out FOLDER] [--seeds 5] [--at-most N] [--data FOLDER]

`make study` runs it. Every (seed, arm) is a file in the folder, written when it is done: a study that was stopped goes on where it was,
and one run with other settings begins anew. It shows its table at the end, and `--at-most 0` shows that of what is there. Minutes per
seed on one core; `tests/bench/study_arms.py` says what the arms are, `study_figures.py` what is measured.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from rich.console import Console

from tests.bench.study_arms import ARMS, OTHERS, Plan, run_arm
from tests.bench.study_cohorts import HOSPITALS, prepare
from tests.bench.study_figures import show

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "cxr"


def study(
    data: Path, out: Path, seeds: int, plan: Plan, console: Console, *, at_most: int, images: int | None
) -> None:
    """Run what is missing of a study, `at_most` pieces of it, then show what there is."""
    out.mkdir(parents=True, exist_ok=True)
    _same_plan(out / "plan.json", plan, images)
    # What a study stopped early has to show for it: first what everybody asks, of every seed.
    wanted = [(seed, arm) for arms in (ARMS, OTHERS) for seed in range(seeds) for arm in arms]
    missing = [piece for piece in wanted if not _file(out, *piece).exists()]
    for number, (seed, arm) in enumerate(missing[:at_most], 1):
        start = time.monotonic()
        folder = prepare(data, out / "cohorts", seed, images)
        found = run_arm(arm, {name: folder / name for name in HOSPITALS}, out / "cohorts", plan, seed)
        _write(_file(out, seed, arm), found)
        console.print(f"{number} of {len(missing)}: seed {seed}, {arm}, {time.monotonic() - start:.0f} s")
    results = [json.loads(_file(out, *piece).read_bytes()) for piece in wanted if _file(out, *piece).exists()]
    show(results, [out / "cohorts" / f"seed-{seed}" for seed in range(seeds)], console)


def _file(out: Path, seed: int, arm: str) -> Path:
    return out / f"seed-{seed}-{arm}.json"


def _same_plan(path: Path, plan: Plan, images: int | None) -> None:
    settings = asdict(plan) | {"images": images}
    if not path.exists():
        _write(path, settings)
    elif json.loads(path.read_bytes()) != settings:
        raise SystemExit(
            f"{path} says that this folder's study has other settings: name another folder with --out"
        )


def _write(path: Path, value: object) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "pht-study")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, help="per hospital; all without it")
    parser.add_argument("--at-most", type=int, default=10_000, help="(seed, arm) pairs in this call")
    for field in fields(Plan):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=field.default)
    chosen = vars(parser.parse_args(arguments))
    plan = Plan(**{field.name: chosen[field.name] for field in fields(Plan)})
    if not chosen["data"].is_dir():
        raise SystemExit(f"{chosen['data']} is not here: name hospitals' radiographs with --data")
    warnings.simplefilter("ignore")  # MONAI's own
    # Sums in one thread are the same on machines with other numbers of processors.
    torch.set_num_threads(1)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    study(
        chosen["data"], chosen["out"], chosen["seeds"], plan, console, at_most=chosen["at_most"], images=chosen["images"]
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
