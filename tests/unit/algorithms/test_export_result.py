"""A result in the forms that torch and MONAI load: the same network as the train's own, with the same predictions."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, load
from monai.networks.nets import DenseNet121
from pydantic import ValidationError
from result_documents import accepted_order, round_entry
from safetensors.torch import save
from torch import nn

from algorithms.clientapp.weights import load_weights, read_weights
from algorithms.cxr_classification.model import build_model
from algorithms.export.networks import NETWORKS, ExportError, build
from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.results.write import write_result
from policies import networks
from policies.blobs import BlobFolder
from policies.console import run
from policies.documents import digest_of_file
from policies.errors import ExitCode, TrustError, UsageError
from policies.manifest import TrainManifest
from train_images.cli import app
from train_images.tool.exporting import export

TRAIN = Path(__file__).parents[3] / "train_images" / "cxr-classification" / "train.yaml"
STATIONS = ("amstel", "berkel", "dommel")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """The train's network as after some training: weights, and statistics of BatchNorm that are not the first ones."""
    torch.manual_seed(7)
    model = build_model()
    model.train()
    with torch.no_grad():
        model(torch.rand(4, 1, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def result(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the orchestrator writes of a finished run of that train."""
    folder = tmp_path_factory.mktemp("exported")
    blobs = BlobFolder(folder / "blobs")
    state = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    weights = blobs.put_bytes(save(state))
    accepted = accepted_order(manifest=TRAIN.read_bytes(), folder=folder)
    queue = FolderQueue(folder / "runs").submit(accepted)
    queue.write_rounds([round_entry(1, dict.fromkeys(STATIONS, 0.7), dict.fromkeys(STATIONS, 50))])
    queue.write_progress(RunProgress(state=RunState.FINISHED, round=1, rounds=1, weights=weights.digest))
    return write_result(queue.path, blobs)


@pytest.fixture(scope="module")
def predicted(trained: nn.Module) -> Callable[[nn.Module], float]:
    """How far a model's predictions are from those of the ClientApp's own model with the weights as they travel."""
    client = build_model()
    load_weights(client, read_weights(trained))
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3))

    def difference(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model.eval()(images) - client.eval()(images)).abs().max())

    # The measure itself: an untrained network predicts something else.
    assert difference(DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)) > 1e-3
    return difference


def test_the_checkpoint_loads_into_monais_network(
    result: Path,
    tmp_path: Path,
    predicted: Callable[[nn.Module], float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(app, ["export", str(result), str(tmp_path / "out"), "--to", "torch"]) == ExitCode.OK
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / name) for name in ("model.pt", "network.json")
    ]
    state = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    model = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
    model.load_state_dict(state, strict=True)
    assert predicted(model) < 1e-5
    assert predicted(_of(json.loads((tmp_path / "out" / "network.json").read_bytes()), state)) < 1e-5


def _of(network: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    model = build(network)
    model.load_state_dict(state, strict=True)
    return model


@pytest.fixture(scope="module")
def bundle(result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    written = export(result, out, "monai-bundle")
    assert written == ("configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.pt")
    return out


@pytest.mark.filterwarnings(
    "ignore"
)  # MONAI's own: its workflow looks for a logging file that a bundle need not have.
def test_the_bundle_loads_as_monai_loads_bundles(
    bundle: Path, predicted: Callable[[nn.Module], float]
) -> None:
    model = load(
        name=bundle.name,
        bundle_dir=str(bundle.parent),
        workflow_type="inference",
        source="github",
        repo="none/none/none",
    )
    assert isinstance(model, nn.Module)
    assert predicted(model) < 1e-5
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    parser.get_parsed_content("load_weights")
    assert predicted(parser.get_parsed_content("network")) < 1e-5


def test_the_bundles_metadata_is_of_the_card(bundle: Path) -> None:
    found = json.loads((bundle / "configs" / "metadata.json").read_bytes())
    required = {
        "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task", "description",
        "authors", "copyright", "network_data_format",
    }  # fmt: skip
    assert required <= found.keys()
    assert (found["version"], found["license"]) == ("0.2.0", "Apache-2.0")
    image = found["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"], image["channel_def"]) == (
        1,
        ["*", "*"],
        {"0": "radiograph"},
    )
    assert "Limitations" in (bundle / "docs" / "README.md").read_text()


def test_what_was_changed_is_not_exported(result: Path, tmp_path: Path) -> None:
    changed = tmp_path / "result"
    shutil.copytree(result, changed)
    (changed / "network.json").write_text('{"name": "monai.networks.nets.DenseNet169"}')
    with pytest.raises(TrustError, match=r"network\.json"):
        export(changed, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="there already"):
        export(result, tmp_path, "torch")


def test_weights_of_another_network_are_found_out(result: Path, tmp_path: Path) -> None:
    other = tmp_path / "result"
    shutil.copytree(result, other)
    network = json.loads((other / "network.json").read_bytes())
    (other / "network.json").write_text(
        json.dumps(network | {"arguments": network["arguments"] | {"out_channels": 2}})
    )
    statement = json.loads((other / "provenance.json").read_bytes())
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = digest_of_file(other / subject["name"])[7:]
    (other / "provenance.json").write_text(json.dumps(statement))
    with pytest.raises(UsageError, match="not of this network"):
        export(other, tmp_path / "out", "torch")


@pytest.mark.parametrize(
    "network",
    [
        {"name": "os.system", "arguments": {"command": "true"}},
        {"name": "monai.networks.nets.__builtins__"},
        {"name": "monai.networks.nets.densenet.DenseNet121"},
        {"name": "monai.networks.nets.DenseNet121", "arguments": {"spatial_dims": "$__import__('os').getpid()"}},
        {"name": "monai.networks.nets.DenseNet121", "arguments": {"pretrained": True}},
        {"name": "monai.networks.nets.DenseNet121", "arguments": {"_target_": "os.system"}},
        {"name": "monai.networks.nets.DenseNet121", "arguments": {"spatial_dims": {"_target_": "os.system"}}},
        {"name": "monai.networks.nets.DenseNet121", "arguments": []},
        {"name": "monai.networks.nets.DenseNet121", "arguments": {"nothing": 1}},
    ],
)  # fmt: skip
def test_nothing_of_a_result_is_run(network: dict[str, Any]) -> None:
    with pytest.raises(ExportError):
        build(network)


def test_the_manifest_and_the_export_know_the_same_networks() -> None:
    assert {f"{module}.{name}" for module, names in NETWORKS.items() for name in names} == networks.NETWORKS


@pytest.mark.parametrize(
    "change",
    [
        {"name": "os.system"},
        {"arguments": {"pretrained": True}},
        {"arguments": {"act": "$print(1)"}},
        {"arguments": {"_target_": "x"}},
        {"arguments": {"act": {"name": "x"}}},
    ],
)
def test_a_manifest_names_a_listed_network_with_plain_arguments(change: dict[str, Any]) -> None:
    given = {
        "name": "monai.networks.nets.DenseNet121",
        "arguments": {"spatial_dims": 2, "block_config": [6, 12], "act": "relu"},
    }
    networks.Network.model_validate_json(json.dumps(given))
    with pytest.raises(ValidationError):
        networks.Network.model_validate_json(json.dumps(given | change))


def test_the_tool_and_the_orchestrator_need_no_torch() -> None:
    assert TrainManifest.model_fields["network"].default is None
    import subprocess

    code = (
        "import sys, train_images.tool.exporting, train_images.tool.results, orchestrator.results.card, policies.networks\n"
        "sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
