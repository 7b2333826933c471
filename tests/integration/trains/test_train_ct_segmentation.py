"""The CT segmentation train in the real sandbox: dry run through the real guard, and what it answers held to the same code outside."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from segmentation_kit import CONFIG, ask, forget, make_case, trained, write_cohort
from tool_kit import Tool
from trains_kit import Yard, spec_of, tag_of

from algorithms.ct_segmentation.networks import unet
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import ReplyLimits, TrainFailure, TrainReply, TrainRequest
from train_images.tool.folders import PackedTrain
from train_images.tool.sandbox_home import sandbox_home

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore:NvImgCodec"),
    # MONAI 1.6.1 calls its own function with an argument that it has deprecated itself.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges"),
]

STEP: dict[str, Any] = {"plain_sgd": True, "learning_rate": 0.1}
"""A step as long as its gradient: AdamW takes a full one along a gradient that is rounding alone (a bias before a normalisation), and
with another number of threads in another direction."""
HYPERPARAMETERS: dict[str, Any] = {
    name: value for name, value in (CONFIG | STEP).items() if name != "server-round"
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Weights of a small UNet: which network trains follows from them."""
    torch.manual_seed(3)
    path = tmp_path / "tiny.safetensors"
    save_file({name: tensor.numpy().copy() for name, tensor in unet(2, 2).state_dict().items()}, path)
    return path


@contextmanager
def container(train: PackedTrain, cohort_of: Any) -> Iterator[tuple[TrainSession, Path]]:
    """A warm container with a cohort, and where its replies go."""
    with sandbox_home(train) as home:
        cohort = home.cohorts / "cohort"
        cohort.mkdir(parents=True)
        cohort_of(cohort)
        session = TrainSandbox(home.launcher).start(spec_of(train, home, "ct-segmentation-test", cpus=1.0))
        try:
            yield session, home.work
        finally:
            session.finish()


def some_cases(folder: Path) -> None:
    names = {
        "training": [f"t{number}" for number in range(3)],
        "validation": [f"v{number}" for number in range(5)],
    }
    write_cohort(folder, {split: [make_case(folder, name) for name in each] for split, each in names.items()})


def test_a_dry_run_releases_an_update_and_how_well_the_nodule_is_found(
    yard: Yard, tool: Tool, tiny: Path
) -> None:
    bundle = yard.packed(tool, "ct-segmentation")
    small = {"spacing_xy_mm": 7, "spacing_z_mm": 6, "patch_xy": 32, "patch_z": 32, "patches_per_case": 1}
    choices = [each for name, value in small.items() for each in ("--set", f"{name}={value}")]
    report = tool.json("check", bundle.path, "--weights", tiny, "--patients", 60, *choices)
    assert report["outcome"] == "released"
    train, evaluate = report["messages"]
    assert set(train["metrics"]) == {"loss"}
    numbers = sum(array.size for array in load_file(tiny).values())
    assert 4 * numbers < train["arrays_bytes"] < 4 * numbers + 16384
    assert set(evaluate["metrics"]) == {"loss", "dice_nodule", "hd95_mm_nodule", "false_alarms_nodule"}
    assert train["membership"] is not None
    measured = {each["what"]: each for each in report["measures"]}
    if "memory, at most" in measured:
        # Of a small network on small volumes; most of it is torch.
        assert 200 < measured["memory, at most"]["measured"] < 1500 < measured["memory, at most"]["asked"]


def test_a_container_answers_what_the_same_code_outside_answers(
    yard: Yard, tool: Tool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "cohort"
    outside.mkdir()
    some_cases(outside)
    monkeypatch.setenv("PHT_DATA", str(outside))
    forget()
    start = load_file(tiny)
    after = trained(start, **STEP)
    metrics = ask("evaluate", start)["metrics"]
    marked = ask("query.predict", start, case="v1")["arrays"]["structures"].numpy()
    forget()
    with container(yard.packed(tool, "ct-segmentation"), some_cases) as (session, work):

        def answered(kind: Any, case: str | None = None) -> TrainReply:
            limits = ReplyLimits(work / f"{kind}.safetensors", 64 << 20)
            reply = session.exchange(
                TrainRequest(kind, 1, HYPERPARAMETERS, tiny, case), limits, timeout_s=200.0
            )
            assert isinstance(reply, TrainReply), (reply, session.logs(4000))
            return reply

        update = answered("train")
        assert update.arrays is not None
        inside = load_file(update.arrays)
        assert inside.keys() == after.keys()
        # The same arithmetic; another number of threads may sum in another order.
        assert max(float(np.abs(inside[name] - after[name]).max()) for name in after) < 1e-4
        assert max(float(np.abs(inside[name] - start[name]).max()) for name in after) > 5e-3
        assert dict(answered("evaluate").metrics) == pytest.approx(dict(metrics), abs=1e-3)
        predicted = answered("predict", "v1")
        assert predicted.arrays is not None
        found = load_file(predicted.arrays)["structures"]
        assert found.shape == marked.shape
        assert (found == marked).mean() > 0.999


def test_a_cohort_that_cannot_be_used_is_told_by_its_code(yard: Yard, tool: Tool, tiny: Path) -> None:
    def cut_off(folder: Path) -> None:
        some_cases(folder)
        image = folder / "images" / "t1.nii"
        image.write_bytes(image.read_bytes()[:-100])

    train = yard.packed(tool, "ct-segmentation")
    with container(train, cut_off) as (session, work):
        request = TrainRequest("train", 1, HYPERPARAMETERS, tiny)
        reply = session.exchange(request, ReplyLimits(work / "r.safetensors", 64 << 20), timeout_s=200.0)
    assert isinstance(reply, TrainFailure)
    assert reply.error_code == "VOLUME_UNREADABLE"
    assert reply.error_code in train.manifest.error_codes


def test_the_limit_that_the_cache_goes_by_is_the_containers_own(yard: Yard, tool: Tool) -> None:
    yard.packed(tool, "ct-segmentation")
    code = "from algorithms.volumes.caching import memory_limit_bytes; print(memory_limit_bytes())"
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--memory=384m",
        "--entrypoint=/opt/train/bin/python",
    ]
    done = subprocess.run(
        [*command, tag_of("ct-segmentation"), "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(done.stdout.split()[-1]) == 384 << 20
