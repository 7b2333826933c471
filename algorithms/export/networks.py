"""Builds the network that a result names, and puts its weights in.

A result's `network.json` comes from others: the name is looked up in a closed list and never imported as such, and arguments are plain
numbers and words. Nothing in it is run, and nothing is fetched.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

NETWORKS: Final = {
    "monai.networks.nets": frozenset(
        {
            "AttentionUnet", "BasicUNet", "Classifier", "DenseNet", "DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264",
            "DynUNet", "EfficientNetBN", "HighResNet", "Regressor", "ResNet", "SEResNet50", "SEResNet101", "SegResNet",
            "SwinUNETR", "UNet", "UNETR", "ViT", "VNet",
        }
    ),
    "torchvision.models": frozenset(
        {"convnext_tiny", "densenet121", "efficientnet_b0", "resnet18", "resnet34", "resnet50", "vit_b_16"}
    ),
}  # fmt: skip
"""The same list as in the train's manifest; EfficientNetBN is told not to fetch weights."""

_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9_. -]{0,100}")
_FETCHES: Final = frozenset({"pretrained", "weights", "weights_backbone", "pretrain_path", "progress"})


class ExportError(Exception):
    """What cannot be exported, in a sentence for the researcher."""


def build(network: Mapping[str, Any]) -> nn.Module:
    """Return the network, untrained.

    Raises:
        ExportError: it is not one of the list, its arguments are no plain ones, or it does not take them.
    """
    module, _, name = str(network.get("name")).rpartition(".")
    if name not in NETWORKS.get(module, frozenset()):
        raise ExportError("the network is not one of those that can be built")
    arguments = network.get("arguments", {})
    if not isinstance(arguments, dict) or not all(
        _ARGUMENT.fullmatch(str(key)) and key not in _FETCHES and _plain(value)
        for key, value in arguments.items()
    ):
        raise ExportError("an argument of the network is not a plain one")
    if name == "EfficientNetBN":
        arguments = arguments | {"pretrained": False}
    try:
        made = getattr(importlib.import_module(module), name)(**arguments)
    except ModuleNotFoundError as error:
        raise ExportError(f"{module.partition('.')[0]} is not installed") from error
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ExportError(f"{name} does not take these arguments ({type(error).__name__})") from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{name} is no network")
    return made


def read_state(model: Path) -> dict[str, torch.Tensor]:
    """Return a result's tensors by name.

    Raises:
        ExportError: the file is none of tensors.
    """
    try:
        found: dict[str, torch.Tensor] = load_file(model)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{model.name} cannot be read as safetensors") from error
    return found


def fit(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put the tensors into the network; every one must be there and fit.

    Raises:
        ExportError: names or shapes differ.
    """
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ExportError("the weights are not of this network: names or shapes differ") from error


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(_plain(each) for each in value)
    return (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
    )
