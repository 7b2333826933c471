"""The chest X-ray train at hospitals on disk: cohorts as stations lay them, its ClientApp, and a round of it."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from flower_strategies import in_a_run
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from numpy.typing import NDArray
from round_kit import Round, Weights

from algorithms.cxr_classification import client_app
from algorithms.cxr_classification.data import load_split
from policies.documents import load_yaml
from policies.manifest import TrainManifest
from policies.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32
"""Pixels: the smallest picture that the network's five halvings leave anything of."""
SETTINGS: Mapping[str, float] = {
    "learning_rate": 3e-4, "local_epochs": 1, "batch_size": 8, "image_size": SIDE, "seed": 7, "server-round": 1,
}  # fmt: skip


def lay_cohort(folder: Path, sizes: Mapping[str, int], seed: int = 5) -> Path:
    """Write radiographs whose finding is a bright square, of an image per patient; labels alternate."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    listed: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "testing": []}
    for split, count in sizes.items():
        for number in range(count):
            label = number % 2
            pixels = random.integers(0, 20000, (40, 36), dtype=np.uint16)
            pixels[10:20, 10:20] += np.uint16(30000 * label)
            case = f"c{split}{number}"
            nibabel.save(
                nibabel.Nifti1Image(pixels, np.eye(4), dtype=np.uint16), folder / f"images/{case}.nii"
            )
            listed[split].append(
                {"case": case, "patient": f"p{case}", "image": f"images/{case}.nii", "label": label}
            )
    (folder / "datalist.json").write_text(json.dumps(listed))
    return folder


def write_table(folder: Path, columns: Mapping[str, Sequence[str]], split: str = "training") -> None:
    """Write clinical.csv: a value per case of a split, in the order of the datalist; the rest have none."""
    cases = json.loads((folder / "datalist.json").read_text())
    at = {case["case"]: number for number, case in enumerate(cases[split])}
    with (folder / "clinical.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "patient", *columns))
        for case in (each for listed in cases.values() for each in listed):
            values = [each[at[case["case"]]] if case["case"] in at else "" for each in columns.values()]
            writer.writerow((case["case"], case["patient"], *values))


@contextmanager
def mounted(cohort: Path, findings: Sequence[str] = ()) -> Iterator[None]:
    """As in a fresh container: this cohort, an image that names these findings, nothing warm."""
    in_a_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHT_DATA", str(cohort))
        description = cohort / "train.json"
        description.write_text(json.dumps({"findings": list(findings)} if findings else {}))
        patch.setenv("PHT_TRAIN", str(description))
        load_split.cache_clear()
        client_app._warm.clear()
        yield
    load_split.cache_clear()
    client_app._warm.clear()


def ask(kind: str, weights: Mapping[str, NDArray[Any]], **settings: float) -> RecordDict:
    """What the train answers where it is mounted."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(np.asarray(value)) for name, value in weights.items()}),
            "config": ConfigRecord({**SETTINGS, **settings}),
        }
    )
    message = Message(content, dst_node_id=1, message_type=kind, ttl=3600.0)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    found: RecordDict = client_app.app(message, context).content
    return found


def trained(weights: Mapping[str, NDArray[Any]], **settings: float) -> Weights:
    """The weights after a round where the train is mounted."""
    return {name: each.numpy() for name, each in ask("train", weights, **settings)["arrays"].items()}


def shipped() -> tuple[TrainManifest, Policy]:
    """The train's own manifest, and the example policy that ships with it."""
    manifest = ROOT / "train_images" / "cxr-classification" / "train.yaml"
    policy = ROOT / "policies" / "examples" / "cxr-classification.yaml"
    return (
        load_yaml(TrainManifest, manifest.read_bytes(), what="train.yaml"),
        load_yaml(Policy, policy.read_bytes(), what="policy"),
    )


def answer(cohort: Path, weights: Weights, settings: Mapping[str, float]) -> RecordDict:
    """What the train answers at a hospital, to a message to train."""
    with mounted(cohort):
        return ask("train", weights, **settings)


def round_of(folder: Path, hospitals: Mapping[str, Path], policy: Policy) -> Round:
    """A round of this train under a policy."""
    return Round(folder, hospitals, shipped()[0], policy, answer)
