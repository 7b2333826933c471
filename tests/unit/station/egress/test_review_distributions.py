"""What a person is shown of a parked file: counts, norms, extremes, histograms, and how far it is from the round before."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from policies.errors import WireError
from policies.wire.arrays import CHUNK_ELEMENTS
from station.cli.review_pictures import bars, svg
from station.egress.review.distributions import BINS, MOST_GROUPS, OTHERS, distance, look_at


def test_each_tensor_is_described_as_numpy_would(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    tensors = {
        "conv.weight": random.normal(size=(40, 7)).astype(np.float32),
        "conv.bias": np.zeros(5, np.float32),
        "norm.count": np.array([-3, 4], np.int64),
        "norm.scalar": np.array(2.5, np.float16),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(tensors, tmp_path / "a")
    found = {tensor.name: tensor for tensor in look_at(tmp_path / "a").tensors}
    assert set(found) == set(tensors)
    for name, values in tensors.items():
        wide = values.astype(np.float64).reshape(-1)
        assert found[name].elements == wide.size
        assert found[name].shape == values.shape
        assert found[name].norm == pytest.approx(np.linalg.norm(wide))
        assert found[name].zeros == int((wide == 0).sum())
        assert (found[name].minimum, found[name].maximum) == (
            (wide.min(), wide.max()) if wide.size else (0.0, 0.0)
        )


def test_histograms_count_every_number_once(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    tensors = {f"block{n}.weight": random.normal(size=1000).astype(np.float32) for n in range(3)}
    save_file(tensors, tmp_path / "a")
    view = look_at(tmp_path / "a")
    assert [group.name for group in view.groups] == list(tensors)
    for group in view.groups:
        assert (sum(group.counts), len(group.counts), len(group.edges)) == (1000, BINS, BINS + 1)
        expected, _ = np.histogram(tensors[group.name].astype(np.float64), np.array(group.edges))
        assert list(group.counts) == list(expected)
        # Around zero, so that a shift to one side is seen.
        assert group.edges[0] == -group.edges[-1]
    assert view.elements == 3000
    assert view.norm == pytest.approx(math.sqrt(sum(group.norm**2 for group in view.groups)))


@pytest.mark.parametrize("count", [1, MOST_GROUPS, MOST_GROUPS + 1, 300])
def test_many_tensors_are_few_groups(tmp_path: Path, count: int) -> None:
    save_file({f"layer{n}.weight": np.ones(n + 1, np.float32) for n in range(count)}, tmp_path / "a")
    groups = look_at(tmp_path / "a").groups
    assert len(groups) == min(count, MOST_GROUPS)
    assert (OTHERS in {group.name for group in groups}) is (count > MOST_GROUPS)
    assert sum(group.tensors for group in groups) == count
    assert sum(sum(group.counts) for group in groups) == count * (count + 1) // 2


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    large = np.zeros(8 * CHUNK_ELEMENTS, np.float32)
    save_file({"a": large}, tmp_path / "a")
    tracemalloc.start()
    try:
        look_at(tmp_path / "a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two pieces in float64 and what a histogram of one takes; the file is eight times a piece.
    assert peak < 8 * CHUNK_ELEMENTS * 8


def test_the_distance_to_the_round_before(tmp_path: Path) -> None:
    one = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([4.0], np.float32)}
    other = {"a": np.array([0.0, 0.0], np.float32), "b": np.array([4.0], np.float32)}
    for name, tensors in (("one", one), ("other", other), ("zero", {k: v * 0 for k, v in one.items()})):
        save_file(tensors, tmp_path / name)
    found = distance(tmp_path / "one", tmp_path / "other")
    assert found is not None
    assert (found.norm, found.earlier_norm, found.cosine) == (3.0, 4.0, pytest.approx(0.8))
    zero = distance(tmp_path / "one", tmp_path / "zero")
    assert zero is not None
    assert zero.cosine is None


def test_other_tensors_are_not_compared(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "one")
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "other")
    assert distance(tmp_path / "one", tmp_path / "other") is None


def test_what_is_no_file_of_arrays_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no arrays")
    with pytest.raises(WireError):
        look_at(tmp_path / "a")


def test_a_picture_escapes_what_it_names() -> None:
    group = {
        "name": "<script>\x1b[2J&",
        "elements": 3,
        "norm": 1.0,
        "edges": [-1.0, 0.0, 1.0],
        "counts": [1, 2],
    }
    picture = svg("policy <b>", [group]).decode()
    assert "<script>" not in picture
    assert "\x1b" not in picture
    assert "&lt;script&gt;" in picture
    assert picture.count('fill="#33608c"') == 2


@pytest.mark.parametrize(
    ("counts", "drawn"), [([], ""), ([0, 0], "  "), ([1], "█"), ([0, 1, 10**9], " ▁█"), ([5, 5], "██")]
)
def test_bars(counts: list[int], drawn: str) -> None:
    assert bars(counts) == drawn
