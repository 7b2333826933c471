"""A train's own code tried without a container: a cohort of people who do not exist, and messages as the runtime gives them.

For a researcher's own tests::

    cohort = make_cohort(Path("my-train"), tmp_path / "cohort", patients=12)   # what lies under /train/data
    monkeypatch.setenv("PHT_DATA", str(cohort))
    answer = ask(Path("my-train"), "train", weights)                           # what the ClientApp answers

Quick, and no replacement for `pht-train check`: nothing here is confined, and no guard judges what is answered.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from policies.errors import DocumentError
from policies.manifest import TrainManifest
from policies.order import HyperparameterValue
from policies.rows import RowColumn
from train_images.tool.folders import read_folder
from train_images.tool.lone_cohort import DEFAULT_PATIENTS, lay_cohort

_DESCRIPTION = "train.json"

__all__ = [
    "Answer",
    "ask",
    "declared_columns",
    "declared_error_codes",
    "declared_metrics",
    "default_settings",
    "make_cohort",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a ClientApp answered.

    Attributes:
        metrics: by name; what the guard would judge.
        rows: a list per column; what the station would count.
        arrays: the weights that would travel.
    """

    metrics: Mapping[str, Any]
    rows: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def make_cohort(folder: Path, out: Path, *, patients: int = DEFAULT_PATIENTS, seed: int = 1) -> Path:
    """Make up a cohort in the shape that a train asks for, as it would find it under /train/data.

    Args:
        folder: the train's, with its train.yaml.
        out: the folder to make.
        patients: how many to make up; a quarter of them are kept for testing, and are in the cohort of an evaluation alone.
        seed: equal seeds give equal cohorts.

    Returns:
        `out`.

    Raises:
        PhtError: train.yaml is wrong, or no such cohort can be made.
    """
    return lay_cohort(read_folder(folder), out, patients=patients, seed=seed).path


def ask(
    folder: Path,
    stage: Literal["train", "evaluate", "analyse", "score"],
    weights: Mapping[str, Any] | None = None,
    settings: Mapping[str, HyperparameterValue] | None = None,
) -> Answer:
    """Give the train's ClientApp one message, as the runtime in its image would; PHT_DATA says where the cohort lies.

    Args:
        folder: the train's: its train.json names the ClientApp, whose modules lie beside it.
        stage: what to ask for.
        weights: names with arrays (numpy, or torch tensors); None sends none.
        settings: hyperparameters; those that are not named have the manifest's default.

    Raises:
        DocumentError: the train has no ClientApp.
    """
    # Here and not above: a cohort is made without Flower.
    from train_images.runtime.pht_runtime.flower import FlowerTrain  # noqa: PLC0415
    from train_images.runtime.pht_runtime.frames import Request  # noqa: PLC0415

    config: dict[str, Any] = {**default_settings(folder), **(settings or {})}
    with _importable(folder), tempfile.TemporaryDirectory(prefix="pht-ask-") as made:
        path = None
        if weights is not None:
            path = str(Path(made) / "weights.safetensors")
            save_file({name: _numpy(value) for name, value in weights.items()}, path)
        train = FlowerTrain(_clientapp(folder), {"data": "", "scratch": made})
        reply = train.answer(Request({"type": stage, "id": 1, "round": 1, "config": config}, path))
    return Answer(dict(reply.metrics), dict(reply.rows), dict(reply.arrays))


def declared_metrics(folder: Path, stage: str) -> tuple[set[str], set[str]]:
    """Return the metrics that a stage must answer by the manifest, and those that it may leave out."""
    metrics = [metric for metric in _manifest(folder).outputs.metrics if metric.stage == stage]
    required = {metric.key for metric in metrics if metric.required}
    return required, {metric.key for metric in metrics} - required


def declared_columns(folder: Path) -> dict[str, RowColumn]:
    """Return the columns of a row that the train's program fills in, by name; `column.accepts(value)` says whether one fits."""
    rows = _manifest(folder).outputs.rows
    return {} if rows is None else {column.name: column for column in rows.of_train}


def declared_error_codes(folder: Path) -> set[str]:
    """Return what the train may say of itself when it fails."""
    return set(_manifest(folder).error_codes)


def default_settings(folder: Path) -> dict[str, HyperparameterValue]:
    """Return every hyperparameter with its default."""
    return {name: spec.default for name, spec in _manifest(folder).hyperparameters.items()}


def _manifest(folder: Path) -> TrainManifest:
    return read_folder(folder).manifest


def _clientapp(folder: Path) -> str:
    try:
        found = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))["clientapp"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DocumentError(
            f"{folder / _DESCRIPTION}: names no clientapp",
            hint='Only a train of interface flower has one: {"interface": "flower", "clientapp": "my_train:app"}.',
        ) from error
    return str(found)


def _numpy(value: Any) -> NDArray[Any]:  # noqa: ANN401 - a torch tensor, or whatever numpy makes an array of
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.array(value, order="C")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    path = str(folder.resolve())
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
