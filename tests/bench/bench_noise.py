"""What noise costs: draws per second, and an update of 100 MB with noise beside the same one without, in one run as ratios.

    python -m tests.bench.bench_noise [--megabytes 100] [--repeats 5] [--output FILE]

Beside our draws stand numpy's own Gaussian numbers (fast, neither cryptographic nor whole) and the published exact sampler, one
number at a time. Beside the noisy update stand one read of its bytes with SHA-256, and the update as it leaves clipped but without noise.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from policies.privacy import Query, QueryKind
from policies.wire.arrays import read_layout
from policies.wire.arrays_writing import WrittenArrays
from station.egress.contract import ReleaseContract
from station.egress.privacy.drawing import ChargedNoise
from station.egress.privacy.noise import DiscreteGaussian
from station.egress.privacy.randomness import RandomBits
from station.egress.privacy.reference import discrete_gaussian
from station.egress.training.noising import MeasuredUpdate, measure_update
from station.egress.training.updates import release_update
from tests.egress_documents import manifest, policy

SIGMA = 200_000
DRAWS = 10_000_000


def cpu_s(work: Callable[[], object], repeats: int) -> float:
    """Return the median of this process's seconds of CPU."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return median(taken)


def ours() -> None:
    """Ten million draws, in pieces as an update takes them."""
    sampler = DiscreteGaussian(Fraction(SIGMA**2), RandomBits())
    for _ in range(DRAWS >> 15):
        sampler.draw(1 << 15)


def numpys() -> None:
    """As many Gaussian numbers that can be foreseen."""
    random = np.random.default_rng()
    for _ in range(DRAWS >> 15):
        random.normal(0.0, SIGMA, 1 << 15)


def published() -> None:
    """A thousand numbers, exactly, one at a time."""
    bits = RandomBits()
    for _ in range(1000):
        discrete_gaussian(Fraction(SIGMA**2), bits)


class Update:
    """An update of a few tensors, and where it is written to."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.reply, self.inbound = folder / "reply", folder / "inbound"
        self.out = folder / "out"
        random = np.random.default_rng(1)
        sizes = [megabytes * 250_000 // 8] * 8
        before = {f"layer{number}.weight": np.zeros(size, np.float32) for number, size in enumerate(sizes)}
        save_file(before, self.inbound)
        save_file(
            {name: random.normal(0, 1e-3, items.size).astype(np.float32) for name, items in before.items()},
            self.reply,
        )

        self.clipped, self.blurred = self._contract(noisy=False), self._contract(noisy=True)

    def _contract(self, *, noisy: bool) -> ReleaseContract:
        """Return what may leave."""
        privacy = {"noise_multiplier": 1.0, "epsilon": 500.0, "delta": 1e-5} if noisy else None
        rules = policy(
            tensors={"clipping_norm": 1.0, "float_buffers": "withhold"},
            timing_quantum_s=60.0,
            differential_privacy=privacy,
        )
        return ReleaseContract.build(manifest(), rules, read_layout(self.inbound))

    def read(self) -> None:
        """Read and hash the reply once."""
        with self.reply.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def plain(self) -> None:
        """Release it clipped, without noise."""
        assert isinstance(release_update(self.clipped, self.reply, self.inbound, self.out), WrittenArrays)

    def noisy(self) -> None:
        """Release it with noise."""
        update = measure_update(self.blurred, self.reply, self.inbound)
        assert isinstance(update, MeasuredUpdate)
        noise = ChargedNoise(Fraction(1), [Query(QueryKind.UPDATE)])
        assert isinstance(update.write(noise, self.out), WrittenArrays)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    draws = {
        "draws_per_s": DRAWS / cpu_s(ours, given.repeats),
        "numpy_gaussians_per_s": DRAWS / cpu_s(numpys, given.repeats),
        "published_sampler_per_s": 1000 / cpu_s(published, 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        update = Update(Path(folder), given.megabytes)
        releases = {
            "read_and_hash_s": cpu_s(update.read, given.repeats),
            "clipped_s": cpu_s(update.plain, given.repeats),
            "noisy_s": cpu_s(update.noisy, given.repeats),
        }
    found = {
        **draws,
        **releases,
        "draws_over_numpy": draws["draws_per_s"] / draws["numpy_gaussians_per_s"],
        "draws_over_published": draws["draws_per_s"] / draws["published_sampler_per_s"],
        "noisy_over_clipped": releases["noisy_s"] / releases["clipped_s"],
        "noisy_over_read": releases["noisy_s"] / releases["read_and_hash_s"],
    }
    table = Table("what", "value", title=f"noise, sigma {SIGMA} steps; an update of {given.megabytes} MB")
    for name, value in found.items():
        table.add_row(name, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")
    Console().print(table)
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
