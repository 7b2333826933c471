"""What the bench of training in the sandbox says of its numbers, and that its clock changes nothing of the work."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_kit import SMALL, FakeGpus
from segmentation_kit import context, forget, make_case, message, same, write_cohort

from algorithms.ct_segmentation import client_app
from algorithms.ct_segmentation.networks import unet
from tests.bench import training_clock
from tests.bench.bench_sandbox_training import block_ratios, check_same_work
from tests.bench.paired_ratio import Ratio, Verdict, ratio_over
from tests.bench.training_arms import Round, gpu_here

QUIET = [0.99, 1.01, 1.0, 0.995, 1.005, 1.0, 0.99, 1.0]


def a_round(seconds: float = 1.0, loss: float = 0.5, weights: str = "a", **clock: Any) -> Round:
    given = {"seconds": seconds, "threads": 2, "processors": 2, "on_gpu": 0}
    return Round(given | clock, seconds, loss, weights)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        (QUIET, Verdict.WITHIN),
        ([each - 0.05 for each in QUIET], Verdict.BEYOND),
        ([each - 0.03 for each in QUIET], Verdict.UNDECIDED),
        # One block that met the machine at its worst decides nothing.
        ([*QUIET, 0.2], Verdict.WITHIN),
        ([0.8] * 5, Verdict.UNDECIDED),
        ([0.8] * 6, Verdict.BEYOND),
    ],
)
def test_a_ratio_is_beyond_its_limit_where_the_whole_interval_is(
    ratios: list[float], verdict: Verdict
) -> None:
    found: Ratio = ratio_over(ratios)
    assert found.verdict(0.97) is verdict
    assert found.least <= found.median <= found.most


def test_a_machine_that_slows_down_evenly_slows_neither_side() -> None:
    # A B B A, B A A B, each round a tenth slower than the one before.
    taken = [1.1**number for number in range(8)]
    found = {
        "inside": [a_round(), *(a_round(taken[at]) for at in (0, 3, 5, 6))],
        "outside": [a_round(), *(a_round(taken[at]) for at in (1, 2, 4, 7))],
    }
    assert block_ratios(found, lambda each: each.seconds) == pytest.approx([1.0, 1.0])


def test_rounds_that_are_not_the_same_work_end_the_bench() -> None:
    check_same_work([a_round(), a_round(seconds=3.0)])
    for other in (
        a_round(loss=0.5000001),
        a_round(weights="b"),
        a_round(threads=1),
        a_round(processors=1),
        a_round(on_gpu=1),
    ):
        with pytest.raises(SystemExit, match="not "):
            check_same_work([a_round(), other])


def test_a_gpu_may_sum_in_another_order_and_no_more() -> None:
    check_same_work([a_round(on_gpu=1), a_round(on_gpu=1, loss=0.5001, weights="b")])
    with pytest.raises(SystemExit, match="not the same work"):
        check_same_work([a_round(on_gpu=1), a_round(on_gpu=1, loss=0.51)])


def test_both_sides_get_a_gpu_where_the_driver_has_one_and_containers_can(
    gpus: FakeGpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_here() == (False, "no NVIDIA GPU here (none usable): measured on the processor")
    gpus.device(SMALL, 8)
    assert gpu_here() == (
        False,
        "a GPU, but no nvidia-container-runtime-hook for containers: measured on the processor",
    )
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.touch(0o755)
    assert gpu_here() == (True, "on Fake, driver 570.86.15")


@pytest.mark.filterwarnings("ignore:NvImgCodec")
def test_the_clock_changes_nothing_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(tmp_path, {"training": [make_case(tmp_path, f"t{number}") for number in range(3)]})
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    torch.manual_seed(3)
    start = {name: tensor.numpy().copy() for name, tensor in unet(2, 2).state_dict().items()}
    forget()
    replies = [
        app(message("train", start), context()).content for app in (client_app.app, training_clock.app)
    ]
    forget()
    plain, clocked = ({name: each.numpy() for name, each in reply["arrays"].items()} for reply in replies)
    assert same(plain, clocked)
    assert replies[0]["metrics"] == replies[1]["metrics"]
    clock = replies[1]["clock"]
    # Three cases, two patches each, four a step: two steps, and the time between them.
    assert len(clock["clock_steps_s"]) == 1
    assert 0 < sum(clock["clock_steps_s"]) < clock["clock_seconds"]
    assert clock["clock_user_s"] + clock["clock_system_s"] > 0
    assert clock["clock_threads"] == torch.get_num_threads()
