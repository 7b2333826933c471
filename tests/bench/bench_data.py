"""The data side against its peers, as ratios in one run: pseudonymisation, reception, cohorts.

python -m tests.bench.bench_data [part ...]
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

PARTS = ("bench_pseudonymisation", "bench_reception", "bench_cohorts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are there, or those named; a part that fails does not stop the others."""
    named = list(sys.argv[1:] if arguments is None else arguments)
    wanted = [part for part in PARTS if not named or part.removeprefix("bench_") in named or part in named]
    failed = 0
    for part in wanted:
        name = f"tests.bench.{part}"
        if find_spec(name) is None:
            sys.stdout.write(f"{part}: not there\n")
            continue
        sys.stdout.write(f"\n{part}\n")
        sys.stdout.flush()
        failed |= int(bool(import_module(name).main([])))
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
