"""External validation in the real sandbox and through the real guard: what a station lets leave of a model that is brought."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tool_kit import Tool, with_layer
from trains_kit import TRAINS, Yard

from algorithms.ct_segmentation.networks import unet
from algorithms.cxr_classification.initial_weights import initial_weights

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore:NvImgCodec"),
    # MONAI 1.6.1 calls its own function with an argument that it has deprecated itself.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges"),
]

SMALL = ("--pixels", 64, "--set", "image_size=64")


def test_the_model_that_is_brought_is_scored_and_the_station_counts(
    yard: Yard, tool: Tool, tmp_path: Path
) -> None:
    train = yard.packed(tool, "model-evaluation")
    model = tmp_path / "brought.safetensors"
    weights = {name: np.ascontiguousarray(value) for name, value in initial_weights().items()}
    # It calls everybody positive, whatever it sees: then every figure is known without the images.
    weights["class_layers.out.weight"] = np.zeros_like(weights["class_layers.out.weight"])
    weights["class_layers.out.bias"] = np.full_like(weights["class_layers.out.bias"], 3.0)
    save_file(weights, model)
    report = tool.json("check", train.path, "--patients", 100, *SMALL, "--weights", model)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    score = 1 / (1 + np.exp(-3.0))
    labels = [line[0] for line in message["tables"]["labels"]]
    negative, positive = labels
    assert min(labels) >= 10
    assert negative + positive == report["patients"]["testing"]
    share = positive / (negative + positive)
    assert message["metrics"]["auc"] == 0.5
    assert message["metrics"]["brier"] == pytest.approx(
        share * (1 - score) ** 2 + (1 - share) * score**2, abs=1e-4
    )
    assert message["metrics"]["calibration_error"] == pytest.approx(abs(score - share), abs=1e-3)
    # One score has no slope; the intercept is by how much its logit is off.
    assert "calibration_slope" not in message["metrics"]
    assert message["metrics"]["calibration_intercept"] == pytest.approx(
        np.log(share / (1 - share)) - 3.0, abs=0.01
    )
    assert message["tables"]["scores"] == [[0, 0], [0, 0], [0, 0], [negative, positive]]
    assert message["tables"]["confusion"] == [[0, 0], [negative, positive]]
    # All phantoms of a dry run are of one maker's scanner, which the station itself fills in.
    columns = train.manifest.aggregate_lines(
        next(item for item in train.manifest.outputs.aggregates if item.key == "labels_by_scanner")
    )
    makers = dict(zip(columns, [line[0] for line in message["tables"]["labels_by_scanner"]], strict=True))
    assert {name: count for name, count in makers.items() if count} == {
        "negative.philips": negative,
        "positive.philips": positive,
    }


def test_a_segmentation_is_held_to_what_was_drawn(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    train = yard.packed(tool, "segmentation-evaluation")
    torch.manual_seed(3)
    model = tmp_path / "brought.safetensors"
    save_file({name: tensor.numpy().copy() for name, tensor in unet(2, 2).state_dict().items()}, model)
    small = (
        "--set",
        "patch_xy=64",
        "--set",
        "patch_z=32",
        "--set",
        "spacing_xy_mm=8",
        "--set",
        "spacing_z_mm=8",
    )
    report = tool.json("check", train.path, "--patients", 48, *small, "--weights", model)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    # So few patients are too few for most of it: what does not leave is named with the rule, and nothing is lost without a word.
    named = {*message["metrics"], *message["tables"], *(item["key"] for item in message["suppressed"])}
    outputs = train.manifest.outputs
    assert {item.key for item in outputs.aggregates} | {"loss"} <= named
    assert named <= {item.key for item in (*outputs.aggregates, *outputs.metrics)}


def test_another_network_is_a_copy_with_two_lines_changed(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    source = TRAINS / "model-evaluation"
    other = b'"name": "monai.networks.nets.DenseNet169"'
    described = (
        (source / "train.json").read_bytes().replace(b'"name": "monai.networks.nets.DenseNet121"', other)
    )
    assert json.loads(described)["network"]["name"].endswith("169")
    manifest = (source / "train.yaml").read_bytes()
    manifest = manifest.replace(b"DenseNet121", b"DenseNet169").replace(
        b"name: model-evaluation", b"name: densenet169-evaluation"
    )
    train = with_layer(
        yard.packed(tool, "model-evaluation"),
        tmp_path / "bundle",
        {"opt/pht/train.json": described},
        manifest,
    )
    model = tmp_path / "of-another.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in initial_weights().items()}, model)
    # The weights of the network that it is no longer: said by the code that the manifest declares.
    tool("check", train.path, "--patients", 48, *SMALL, "--weights", model, "--log", code=4)
    assert "WEIGHTS_DO_NOT_FIT" in tool.out + tool.err
