"""A cohort of made-up volumes with a marked ball in each, laid out as a station lays one out, and messages about it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from algorithms.ct_segmentation import client_app
from algorithms.ct_segmentation.networks import segresnet, unet
from algorithms.ct_segmentation.sampling import Sampling
from station.cohorts import nifti

SHAPE = (52, 46, 26)
SPACING_MM = (2.0, 2.0, 3.0)
AFFINE = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 45], [0, 0, 3.0, -30], [0, 0, 0, 1]])

CONFIG: dict[str, float] = {
    "learning_rate": 0.01,
    "local_epochs": 1,
    "batch_size": 4,
    "plain_sgd": False,
    "spacing_xy_mm": 2.2,
    "spacing_z_mm": 3.0,
    "patch_xy": 32,
    "patch_z": 32,
    "patches_per_case": 2,
    "share_about_structures": 0.5,
    "window_low_hu": -1000.0,
    "window_high_hu": 400.0,
    "augment": True,
    "cache_share": 0.4,
    "seed": 7,
    "proximal-mu": 0.0,
    "server-round": 1,
}
"""The train's hyperparameters, in a size for tests, and the round."""

SAMPLING = Sampling(
    spacing_mm=(CONFIG["spacing_xy_mm"], CONFIG["spacing_xy_mm"], CONFIG["spacing_z_mm"]),
    patch=(int(CONFIG["patch_xy"]), int(CONFIG["patch_xy"]), int(CONFIG["patch_z"])),
    patches_per_case=int(CONFIG["patches_per_case"]),
    share_about_structures=CONFIG["share_about_structures"],
    window_hu=(CONFIG["window_low_hu"], CONFIG["window_high_hu"]),
    augment=bool(CONFIG["augment"]),
    seed=int(CONFIG["seed"]),
    classes=2,
)
"""The same, as the train's own parts take it; one structure."""


def ball(
    shape: tuple[int, ...], spacing_mm: Iterable[float], centre_mm: Any, radius_mm: float
) -> NDArray[np.bool_]:
    """Which voxels lie in a ball, told in millimetres from the first voxel along the axes."""
    axes = [np.arange(size) * step for size, step in zip(shape, spacing_mm, strict=True)]
    points = np.meshgrid(*axes, indexing="ij")
    distance = sum((along - middle) ** 2 for along, middle in zip(points, centre_mm, strict=True))
    return np.asarray(distance <= radius_mm**2)


def write_case(
    folder: Path, name: str, image: NDArray[Any], label: NDArray[Any], affine: Any = AFFINE
) -> dict[str, str]:
    """Write a volume and its label map as a station does; returns their entry of the datalist."""
    entry = {"case": name, "patient": f"p-{name}"}
    for key, voxels in (("image", image.astype(np.int16)), ("label", label.astype(np.uint8))):
        place = folder / f"{key}s" / f"{name}.nii"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(nifti.header(voxels.shape, affine, voxels.dtype) + voxels.tobytes(order="F"))
        entry[key] = f"{key}s/{name}.nii"
    return entry


def make_case(folder: Path, name: str, *, marked: bool = True) -> dict[str, str]:
    """A ball of tissue somewhere in a lung of noise; a name is a case, wherever it lies."""
    random = np.random.default_rng(list(name.encode()))
    centre = [random.uniform(22, size * step - 22) for size, step in zip(SHAPE, SPACING_MM, strict=True)]
    inside = ball(SHAPE, SPACING_MM, centre, random.uniform(12, 18)) if marked else np.zeros(SHAPE, bool)
    return write_case(folder, name, np.where(inside, 40, -800) + random.normal(0, 40, SHAPE), inside)


def write_cohort(
    folder: Path, cases: Mapping[str, Iterable[dict[str, str]]], structures: Iterable[str] = ("nodule",)
) -> Path:
    """Write the datalist."""
    labels = {"0": "background"} | {str(at): name for at, name in enumerate(structures, start=1)}
    splits = {split: list(cases.get(split, ())) for split in ("training", "validation", "testing")}
    (folder / "datalist.json").write_text(json.dumps({"labels": labels} | splits))
    return folder


def forget() -> None:
    """Forget what the train keeps warm: a process that was started anew."""
    client_app._built.cache_clear()
    client_app._training_cases.cache_clear()


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def message(
    kind: str, arrays: Mapping[str, NDArray[Any]], case: str | None = None, **changes: float
) -> Message:
    """A message as the runtime makes it."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()}),
            "config": ConfigRecord(CONFIG | changes),
        }
    )
    if case is not None:
        content["predict"] = ConfigRecord({"case": case})
    return Message(content=content, dst_node_id=1, message_type=kind, ttl=3600.0)


def ask(
    kind: str, arrays: Mapping[str, NDArray[Any]], case: str | None = None, **changes: float
) -> RecordDict:
    """What the train answers."""
    return client_app.app(message(kind, arrays, case, **changes), context()).content


def trained(arrays: Mapping[str, NDArray[Any]], **changes: float) -> dict[str, NDArray[Any]]:
    """The weights after a round."""
    return {name: array.numpy() for name, array in ask("train", arrays, **changes)["arrays"].items()}


def same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two models are the same byte for byte."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def weights(kind: str = "unet") -> dict[str, NDArray[Any]]:
    """Small untrained networks."""
    torch.manual_seed(3)
    made = unet(2, 2) if kind == "unet" else segresnet(2, 8)
    return {name: tensor.numpy().copy() for name, tensor in made.state_dict().items()}
