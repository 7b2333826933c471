"""Attack: a train writes one patient's chest radiograph into its update, in several ways, and the receiver reads it back.

The receiver is as strong as can be: it knows the scheme, the inbound weights and the norm that the train chose, so it undoes the
clipping's factor. What comes back is compared with the radiograph under each rule that a policy can set; the table is printed.

Honest: declared weights are a channel, and without noise the radiograph survives. Coarser numbers, clipping and withheld buffers each
take some ways; none of them takes all. Noise for one patient takes all. The bound on bits that stands on the release holds for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from egress_documents import COUNTS, METRIC, Bench, head, manifest, policy
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter, zoom

from policies.refusals import RefusalCode
from policies.rules.capacity import BITS_PER_RADIOGRAPH
from policies.wire.arrays import open_tensor, read_layout
from policies.wire.floats import as_float
from station.egress.guard import Guard
from station.egress.release import Release, Withheld
from train_images.phantoms.anatomy import Appearance, draw_chest

Image = NDArray[np.float64]
Deltas = dict[str, NDArray[np.float64]]

SIDE = 96
PIXELS = SIDE * SIDE
BITS = 8 * PIXELS
TIMES = 5
NUMBERS = TIMES * BITS
PER_COUNTER = 18
COUNTERS = BITS // PER_COUNTER
STEP = 1e-3
"""The size of an honest step of training, under which the attack hides."""

WEIGHTS, MEANS, COUNTS_SEEN = "conv.weight", "norm.running_mean", "norm.num_batches_tracked"


def radiograph(shared: Path | None) -> Image:
    """A real radiograph where there are some, or else one that is made up; gray levels from 0 to 255."""
    if shared is None:
        picture = draw_chest(np.random.default_rng(7), size=SIDE, opacity=False, appearance=Appearance())
    else:
        picture = pydicom.dcmread(min(shared.glob("cxr/*/dicom/*.dcm"))).pixel_array.astype(np.float64)
        picture = zoom(picture, SIDE / picture.shape[0], order=1)
    low, high = picture.min(), picture.max()
    return np.round((picture - low) / (high - low) * 255)


def bits_of(image: Image) -> NDArray[np.uint8]:
    return np.unpackbits(image.astype(np.uint8).reshape(-1))


def image_of(bits: NDArray[Any]) -> Image:
    return np.packbits(bits.astype(np.uint8)).reshape(SIDE, SIDE).astype(np.float64)


def psnr(one: Image, other: Image) -> float:
    error = float(((one - other) ** 2).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(one: Image, other: Image) -> float:
    """Mean structural similarity over windows of 7 x 7 (Wang et al., IEEE Trans Image Process 13:600, 2004)."""
    mean = [uniform_filter(picture, 7) for picture in (one, other)]
    variance = [uniform_filter(p * p, 7) - m * m for p, m in zip((one, other), mean, strict=True)]
    covariance = uniform_filter(one * other, 7) - mean[0] * mean[1]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean[0] * mean[1] + c1) * (2 * covariance + c2)
    return float((top / ((mean[0] ** 2 + mean[1] ** 2 + c1) * (variance[0] + variance[1] + c2))).mean())


@dataclass(frozen=True)
class Scheme:
    """One way to write an image into an update.

    Attributes:
        write: changes the tensors of a reply, given the image.
        read: returns the image, given the deltas with the clipping undone, and the inbound weights.
    """

    name: str
    write: Callable[[dict[str, Any], Image], None]
    read: Callable[[Deltas, dict[str, Any]], Image]


def write_low_bits(reply: dict[str, Any], image: Image) -> None:
    patterns = reply[WEIGHTS].view(np.uint32)
    patterns[:PIXELS] = (patterns[:PIXELS] & np.uint32(0xFFFFFF00)) | image.reshape(-1).astype(np.uint32)


def read_low_bits(deltas: Deltas, inbound: dict[str, Any]) -> Image:
    reply = (inbound[WEIGHTS][:PIXELS].astype(np.float64) + deltas[WEIGHTS][:PIXELS]).astype(np.float32)
    return (reply.view(np.uint32) & 0xFF).astype(np.float64).reshape(SIDE, SIDE)


def write_values(reply: dict[str, Any], image: Image) -> None:
    reply[WEIGHTS][:PIXELS] += ((image.reshape(-1) - 128) / 128 * 10 * STEP).astype(np.float32)


def read_values(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    return np.clip(deltas[WEIGHTS][:PIXELS] / (10 * STEP) * 128 + 128, 0, 255).round().reshape(SIDE, SIDE)


def write_huge_values(reply: dict[str, Any], image: Image) -> None:
    reply[WEIGHTS][:PIXELS] += ((image.reshape(-1) - 128) * 100.0).astype(np.float32)


def read_huge_values(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    return np.clip(deltas[WEIGHTS][:PIXELS] / 100.0 + 128, 0, 255).round().reshape(SIDE, SIDE)


def write_signs(reply: dict[str, Any], image: Image) -> None:
    signs = np.tile(bits_of(image), TIMES) * 2.0 - 1.0
    size = np.abs(np.random.default_rng(5).normal(size=NUMBERS)) * STEP
    reply[WEIGHTS] += (signs * size).astype(np.float32)


def read_signs(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    return image_of(np.sign(deltas[WEIGHTS]).reshape(TIMES, BITS).sum(axis=0) > 0)


def chips() -> NDArray[np.float64]:
    return np.random.default_rng(11).choice([-1.0, 1.0], size=(TIMES, BITS))


def write_spread(reply: dict[str, Any], image: Image) -> None:
    """Spread spectrum: each bit on several numbers far apart, with signs that only the receiver knows, under an honest step."""
    spread = chips() * (bits_of(image) * 2.0 - 1.0) * 3 * STEP
    honest = np.random.default_rng(6).normal(size=NUMBERS) * STEP
    reply[WEIGHTS] += (spread.reshape(-1) + honest).astype(np.float32)


def read_spread(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    return image_of((deltas[WEIGHTS].reshape(TIMES, BITS) * chips()).sum(axis=0) > 0)


def write_means(reply: dict[str, Any], image: Image) -> None:
    reply[MEANS] += (image.reshape(-1) / 256).astype(np.float32)


def read_means(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    return np.clip(deltas[MEANS] * 256, 0, 255).round().reshape(SIDE, SIDE)


def write_counters(reply: dict[str, Any], image: Image) -> None:
    powers = 1 << np.arange(PER_COUNTER, dtype=np.int64)
    reply[COUNTS_SEEN] += bits_of(image).reshape(COUNTERS, PER_COUNTER).astype(np.int64) @ powers


def read_counters(deltas: Deltas, _inbound: dict[str, Any]) -> Image:
    numbers = deltas[COUNTS_SEEN].astype(np.int64)
    return image_of(((numbers[:, None] >> np.arange(PER_COUNTER)) & 1).reshape(-1))


SCHEMES = [
    Scheme("low bits of weights", write_low_bits, read_low_bits),
    Scheme("sizes of deltas", write_values, read_values),
    Scheme("sizes beyond the clipping", write_huge_values, read_huge_values),
    Scheme("signs, five times", write_signs, read_signs),
    Scheme("spread over many", write_spread, read_spread),
    Scheme("means in a buffer", write_means, read_means),
    Scheme("counters in a buffer", write_counters, read_counters),
]
NOISE: dict[str, Any] = {
    "differential_privacy": {"noise_multiplier": 1.0, "epsilon": 1000.0, "delta": 1e-6},
    "timing_quantum_s": 1.0,
    "tensors": {"clipping_norm": 1.0, "float_buffers": "withhold"},
}
RULE_SETS: dict[str, dict[str, Any]] = {
    "no rule": {"tensors": {"integer_buffers": "release"}},
    "clipping": {"tensors": {"clipping_norm": 1.0, "integer_buffers": "release"}},
    "bfloat16": {"tensors": {"precision": "bfloat16", "integer_buffers": "release"}},
    "float16": {"tensors": {"precision": "float16", "integer_buffers": "release"}},
    "clipped bfloat16": {"tensors": {"clipping_norm": 1.0, "precision": "bfloat16", "integer_buffers": "release"}},
    "buffers withheld": {"tensors": {"float_buffers": "withhold"}},
    "noise": NOISE,
}  # fmt: skip


@dataclass(frozen=True)
class Survived:
    """What came back: similarity, the share of wrong bits, and how many bits got through, as a binary symmetric channel."""

    psnr: float
    ssim: float
    wrong: float
    bits: float


def survived(sent: Image, got: Image | None) -> Survived:
    if got is None:
        return Survived(0.0, 0.0, 0.5, 0.0)
    wrong = float((bits_of(sent) != bits_of(got)).mean())
    # Pixels are guessed one by one: what is within five standard deviations of guessing is guessed.
    guessed = abs(wrong - 0.5) < 5 * 0.5 / np.sqrt(PIXELS)
    share = np.array([0.5, 0.5]) if guessed else np.array([wrong, 1 - wrong])
    entropy = float(-(share[share > 0] * np.log2(share[share > 0])).sum())
    return Survived(psnr(sent, got), ssim(sent, got), wrong, BITS * (1 - entropy))


def honest_reply(inbound: dict[str, Any], scheme: Scheme) -> dict[str, Any]:
    """The weights after a step of training; where a scheme brings its own, it replaces the step."""
    step = np.random.default_rng(4).normal(size=NUMBERS) * (0 if scheme.write in _OWN_STEP else STEP)
    return {
        WEIGHTS: inbound[WEIGHTS] + step.astype(np.float32),
        MEANS: inbound[MEANS].copy(),
        COUNTS_SEEN: inbound[COUNTS_SEEN].copy(),
    }


_OWN_STEP = (write_signs, write_spread, write_values)


def sent_through(
    bench: Bench, scheme: Scheme, rules: dict[str, Any], image: Image
) -> tuple[Survived, Release]:
    inbound = bench.inbound_tensors
    reply = honest_reply(inbound, scheme)
    scheme.write(reply, image)
    contract = bench.contract(manifest(metrics=[METRIC]), policy(**rules))
    guard = Guard(contract, COUNTS, charge=lambda _queries: None)
    outcome = guard.check(bench.request(), head(), bench.answer(reply))
    assert isinstance(outcome, Release), outcome
    layout = read_layout(bench.out)
    deltas = {
        entry.name: np.array(items if entry.tensor.dtype == "int64" else as_float(items, entry.tensor.dtype), np.float64)
        for entry in layout.entries
        for items in [open_tensor(bench.out, entry)]
    }  # fmt: skip
    # The train chose the norm, so the receiver knows it and undoes the clipping.
    chosen = float(np.linalg.norm(reply[WEIGHTS].astype(np.float64) - inbound[WEIGHTS]))
    clipping = contract.tensor_rules.clipping_norm if contract.tensor_rules else None
    if clipping is not None and chosen > clipping:
        deltas[WEIGHTS] *= chosen / (0.99 * clipping if contract.privacy else np.linalg.norm(deltas[WEIGHTS]))
    there = (scheme.read not in (read_means, read_counters)) or (
        (MEANS if scheme.read is read_means else COUNTS_SEEN) in deltas
    )
    return survived(image, scheme.read(deltas, inbound) if there else None), outcome


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> "Found":
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    image = radiograph(shared if shared.is_dir() else None)
    random = np.random.default_rng(3)
    inbound = {
        WEIGHTS: (random.normal(size=NUMBERS) * 0.05).astype(np.float32),
        MEANS: random.normal(size=PIXELS).astype(np.float32),
        COUNTS_SEEN: np.full(COUNTERS, 100, np.int64),
    }
    bench = Bench(tmp_path_factory.mktemp("delta"), inbound)
    return {
        (scheme.name, name): sent_through(bench, scheme, rules, image)
        for scheme in SCHEMES
        for name, rules in RULE_SETS.items()
    }


KILLED = {
    "no rule": set[str](),
    "clipping": set[str](),
    "bfloat16": {"low bits of weights"},
    "float16": {"low bits of weights"},
    "clipped bfloat16": {"low bits of weights"},
    "buffers withheld": {"means in a buffer", "counters in a buffer"},
    "noise": {scheme.name for scheme in SCHEMES},
}
Found = dict[tuple[str, str], tuple[Survived, Release]]


def test_what_survives_is_what_the_readme_says(found: Found) -> None:
    """Prints how much of the radiograph comes back; a rule takes some ways, and noise all."""
    print(f"\n{'how it is written':28}" + "".join(f"{name:>21}" for name in RULE_SETS))
    for scheme in SCHEMES:
        cells = [found[scheme.name, name][0] for name in RULE_SETS]
        print(f"{scheme.name:28}" + "".join(f"{c.psnr:7.1f} dB SSIM {c.ssim:5.2f}" for c in cells))
        print(f"{'':28}" + "".join(f"{c.wrong:15.1%} wrong" for c in cells))
    for (scheme_name, rules), (what, _) in found.items():
        if scheme_name in KILLED[rules]:
            assert what.ssim < 0.2, (scheme_name, rules)
            assert what.wrong > 0.4, (scheme_name, rules)
        else:
            assert what.ssim > 0.95, (scheme_name, rules)
            assert what.wrong < 0.01, (scheme_name, rules)


def test_no_way_carries_more_than_the_bound_that_stands_on_the_release(found: Found) -> None:
    for where, (what, release) in found.items():
        assert what.bits <= release.capacity_bits, where
    plain, noisy = (found["signs, five times", rules][1].capacity_bits for rules in ("no rule", "noise"))
    assert plain / BITS_PER_RADIOGRAPH > 100, "so many radiographs, where one was written five times"
    assert noisy < 100, "and under noise not a line of one"


def test_what_is_larger_than_the_policy_bounds_does_not_leave(tmp_path: Path) -> None:
    inbound = {WEIGHTS: np.zeros(NUMBERS, np.float32), MEANS: np.zeros(PIXELS, np.float32)}
    bench = Bench(tmp_path, inbound)
    reply = {name: items.copy() for name, items in inbound.items()}
    write_huge_values(reply, np.full((SIDE, SIDE), 200.0))
    guard = bench.guard(rules=policy(tensors={"clipping_norm": 1.0, "maximum_absolute": 1.0}))
    outcome = guard.check(bench.request(), head(), bench.answer(reply))
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_TENSOR_RANGE
    assert not bench.out.exists()
