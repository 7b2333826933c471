"""A MONAI bundle of a result: `configs/metadata.json`, `configs/inference.json`, `models/model.pt`, `docs/README.md`.

Source: the MONAI Bundle specification (monai.io, "MONAI Bundle Specification"). What a result does not say stands as the
specification's wildcard or as "not stated". MONAI runs texts that begin with `$`, `@` or `%`: ours are the ones below, and a text of
others gets a character before it.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

NOT_STATED: Final = "not stated"
_EXPRESSIONS: Final = ("$", "@", "%", "_")


def write_bundle(
    out: Path,
    state: Mapping[str, torch.Tensor],
    network: Mapping[str, Any],
    card: Mapping[str, Any],
    page: str,
) -> None:
    """Write the bundle into a new folder."""
    for name in ("configs", "models", "docs"):
        (out / name).mkdir(parents=True)
    torch.save(dict(state), out / "models" / "model.pt")
    _write(out / "configs" / "metadata.json", metadata(network, card))
    _write(out / "configs" / "inference.json", inference(network))
    (out / "docs" / "README.md").write_text(page, encoding="utf-8")


def inference(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that builds the network and loads its weights; images are the reader's to prepare."""
    module, _, name = str(network["name"]).rpartition(".")
    # MONAI finds its own classes by their names; others by the module's.
    target = name if module == "monai.networks.nets" else f"{module}.{name}"
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": target, **network.get("arguments", {})},
        "network": "$@network_def.to(@device)",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        # Not `initialize`, which MONAI runs wherever it happens to be: `monai.bundle.load` brings the weights itself.
        "load_weights": [
            "$@network.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
            "$@network.eval()",
        ],
        "inferer": {"_target_": "SimpleInferer"},
    }


def metadata(network: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bundle's metadata, from the model card."""
    details, policy, use = card["details"], card["policy"], card["use"]
    return {
        "version": details["version"],
        "changelog": {details["version"]: text(card["outcome"]["words"])},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {},
        "name": text(details["title"]),
        "task": text(use["statement"]),
        "description": text(policy["summary_en"]),
        "authors": text(details["made_by"]),
        "copyright": NOT_STATED,
        "license": text(details["licence"]),
        "intended_use": text(use["statement"]),
        "network_data_format": {
            "inputs": {"image": _data(network.get("input"), card)},
            "outputs": {"pred": _data(network.get("output"), card)},
        },
    }


def text(value: object) -> str:
    """Return a text that MONAI takes for nothing else."""
    found = str(value)
    return f" {found}" if found.startswith(_EXPRESSIONS) else found


def _data(data: Mapping[str, Any] | None, card: Mapping[str, Any]) -> dict[str, Any]:
    data = data or {}
    channels = [text(each) for each in data.get("channels", ())]
    return {
        "type": "image" if data.get("meaning") == "image" else str(data.get("meaning", NOT_STATED)),
        "format": text(data.get("preparation", NOT_STATED)),
        "modality": ", ".join(map(text, card["data"]["modalities"])),
        "num_channels": len(channels) or "*",
        "spatial_shape": [size or "*" for size in data.get("spatial_shape", ())] or ["*"],
        "dtype": "float32",
        "value_range": list(data.get("value_range", ())),
        "is_patch_data": False,
        "channel_def": {str(number): channel for number, channel in enumerate(channels)},
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
