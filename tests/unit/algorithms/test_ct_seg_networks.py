"""Which network trains follows from the weights that arrive, and is the one that the manifest names."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from algorithms.clientapp.failures import TrainError
from algorithms.ct_segmentation.initial_weights import segresnet_weights, unet_weights
from algorithms.ct_segmentation.networks import network_for, segresnet, unet
from algorithms.export.networks import build

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")

TRAINS = Path(__file__).parents[3] / "train_images"


def shapes(weights: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in weights.items()}


@pytest.mark.parametrize(
    ("folder", "weights"),
    [("ct-segmentation", unet_weights), ("ct-segmentation-segresnet", segresnet_weights)],
)
def test_the_initial_weights_are_of_the_network_that_the_manifest_names(folder: str, weights: Any) -> None:
    manifest = yaml.safe_load((TRAINS / folder / "train.yaml").read_text())
    first, again = weights(), weights()
    assert shapes(first) == shapes(build(manifest["network"]).state_dict())
    assert all((first[name] == again[name]).all() for name in first)
    assert len(manifest["data"]["masks"]) + 1 == manifest["network"]["arguments"]["out_channels"]
    names = [segment["name"] for segment in manifest["outputs"]["predictions"][0]["segments"]]
    assert names == manifest["data"]["masks"]
    told = {metric["key"] for metric in manifest["outputs"]["metrics"]}
    assert told == {
        "loss",
        *(f"{kind}_{name}" for kind in ("dice", "hd95_mm", "false_alarms") for name in names),
    }
    # Nothing that averages over patients leaves beside the weights.
    assert not any("running" in name or "num_batches" in name for name in first)


@pytest.mark.parametrize(
    ("build_one", "classes", "width"), [(unet, 2, 2), (unet, 5, 16), (segresnet, 2, 8), (segresnet, 4, 16)]
)
def test_names_and_shapes_tell_the_network_its_width_and_its_classes(
    build_one: Any, classes: int, width: int
) -> None:
    wanted = build_one(classes, width)
    built = network_for(shapes(wanted.state_dict()), classes)
    assert isinstance(built, nn.Module)
    assert shapes(built.state_dict()) == shapes(wanted.state_dict())
    assert type(built) is type(wanted)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"fc.weight": (2, 16)},
        {"model.0.conv.unit0.conv.weight": ()},
        {"model.0.conv.unit0.conv.weight": (1 << 20, 1, 3, 3, 3)},
        {"convInit.conv.weight": (12, 1, 3, 3, 3)},
        shapes(unet(2, 4).state_dict()) | {"one.more": (1,)},
        shapes(unet(3, 4).state_dict()),
    ],
)
def test_weights_of_no_such_network_are_refused(found: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(TrainError, match="make them with the train's own image") as caught:
        network_for(found, 2)
    assert caught.value.pht_error_code == "WEIGHTS_DO_NOT_FIT"
