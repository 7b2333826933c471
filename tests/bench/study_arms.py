"""The ways to train that a study compares, with equal passes over the images in each.

central        one model on all hospitals' images together, in one place: what federation stands in for.
fedavg         Flower's FedAvg: each round every hospital trains one pass from the common weights, and the weights are averaged.
fedprox        the same with a pull towards the round's common weights (Li et al. 2020), by Flower's FedProx.
fedavg-long    several passes a round, and as many fewer rounds: hospitals drift further apart before they are averaged.
fedprox-long   the same, pulled.
local          each hospital alone, on its own images.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedAvg, FedProx

from algorithms.clientapp.cohort import cases_of
from algorithms.clientapp.weights import device, load_weights
from algorithms.cxr_classification.calibration import TEMPERATURES
from algorithms.cxr_classification.client_app import app
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.initial_weights import initial_weights
from algorithms.cxr_classification.model import build_model
from algorithms.cxr_classification.training import logits_of
from tests.bench.study_grid import NUM_EXAMPLES, FolderGrid

ARMS: Final = ("central", "fedavg", "fedprox", "local")
OTHERS: Final = ("fedavg-long", "fedprox-long")
TOGETHER: Final = "all"
"""Whose model it is where hospitals have one in common."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all arms have in common.

    Attributes:
        passes: over the images in all; in federated arms one each round.
        long: passes a round in the arms called so.
        image_size: pixels along each side.
        batch_size: images per step.
        learning_rate: of AdamW.
        proximal_mu: of the arms called fedprox.
    """

    passes: int = 15
    long: int = 5
    image_size: int = 64
    batch_size: int = 8
    learning_rate: float = 3e-4
    proximal_mu: float = 1.0


def run_arm(arm: str, hospitals: Mapping[str, Path], scratch: Path, plan: Plan, seed: int) -> dict[str, Any]:
    """Train and test one arm.

    Args:
        arm: one of `ARMS` or `OTHERS`.
        hospitals: folders with the cohorts `own` (training, validation) and `test`, by name.
        scratch: a folder for what is joined.
        plan: what all arms have in common.
        seed: of initial weights, order and augmentation.

    Returns:
        A JSON document: per model (a hospital's name, or "all") the mean validation losses by temperature, and per hospital tested
        each image's patient, label and logit.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    own = {name: folder / "own" for name, folder in hospitals.items()}
    groups: dict[str, dict[str, Path]] = {TOGETHER: own}
    if arm == "central":
        groups = {TOGETHER: {TOGETHER: joined(own, scratch / f"joined-{seed}")}}
    elif arm == "local":
        groups = {name: {name: folder} for name, folder in own.items()}
    models = {}
    for name, members in groups.items():
        arrays = _train(arm, members, plan, seed)
        # Validation losses are told by hospitals, as they would be: a model in common is held to all of theirs.
        models[name] = {
            "validation": _validated(own if name == TOGETHER else members, arrays, plan),
            "tested": _tested({each: folder / "test" for each, folder in hospitals.items()}, arrays, plan),
        }
    return {"arm": arm, "seed": seed, "plan": asdict(plan), "models": models}


def joined(cohorts: Mapping[str, Path], into: Path) -> Path:
    """Write a cohort that lists the cases of several, and return its folder."""
    into.mkdir(parents=True, exist_ok=True)
    listed = {
        split: [
            case | {"image": str((folder / case["image"]).resolve()), "patient": f"{name}/{case['patient']}"}
            for name, folder in cohorts.items()
            for case in cases_of(folder, split)
        ]
        for split in ("training", "validation")
    }
    (into / "datalist.json").write_text(json.dumps(listed), encoding="utf-8")
    return into


def _train(arm: str, members: Mapping[str, Path], plan: Plan, seed: int) -> ArrayRecord:
    together = len(members) > 1
    epochs = plan.passes if not together else plan.long if arm.endswith("-long") else 1
    nodes = {
        "min_train_nodes": 1,
        "min_evaluate_nodes": 0,
        "min_available_nodes": 1,
        "fraction_evaluate": 0.0,
    }
    prox = arm.startswith("fedprox")
    strategy = FedProx(proximal_mu=plan.proximal_mu, **nodes) if prox else FedAvg(**nodes)
    start = {name: Array(np.asarray(value)) for name, value in initial_weights(seed).items()}
    result = strategy.start(
        _grid(members, "training"),
        ArrayRecord(start),
        num_rounds=plan.passes // epochs,
        train_config=_config(plan, seed, epochs),
    )
    return result.arrays


def _validated(members: Mapping[str, Path], arrays: ArrayRecord, plan: Plan) -> dict[str, float]:
    grid = _grid(members, "validation")
    content = RecordDict({"arrays": arrays, "config": _config(plan, 0)})
    asked = [
        Message(content, dst_node_id=node, message_type=MessageType.EVALUATE) for node in grid.get_node_ids()
    ]
    told = [reply.content["metrics"] for reply in grid.send_and_receive(asked)]
    weights = [each[NUM_EXAMPLES] for each in told]
    return {
        name: float(np.average([each[name] for each in told], weights=weights))
        for name in (*TEMPERATURES, "brier")
    }


def _tested(cohorts: Mapping[str, Path], arrays: ArrayRecord, plan: Plan) -> dict[str, list[dict[str, Any]]]:
    model = build_model()
    load_weights(model, arrays)
    found = {}
    for name, cohort in cohorts.items():
        data = load_split(cohort, "testing", plan.image_size)
        logits = logits_of(model, data, device())[:, 0].tolist()
        labels = data.tensors[1][:, 0].tolist()
        patients = [str(case["patient"]) for case in cases_of(cohort, "testing")]
        found[name] = [
            {"patient": patient, "label": int(label), "logit": logit}
            for patient, label, logit in zip(patients, labels, logits, strict=True)
        ]
    return found


def _grid(members: Mapping[str, Path], split: str) -> FolderGrid:
    folders = dict(enumerate(members.values(), 1))
    examples = {node: _examples(folder, split) for node, folder in folders.items()}
    return FolderGrid(app, folders, examples)


def _examples(cohort: Path, split: str) -> int:
    """Return a cohort's images as a station tells them: to the nearest ten, at least ten."""
    return max(10, (len(cases_of(cohort, split)) + 5) // 10 * 10)


def _config(plan: Plan, seed: int, local_epochs: int = 1) -> ConfigRecord:
    return ConfigRecord(
        {
            "learning_rate": plan.learning_rate,
            "local_epochs": local_epochs,
            "batch_size": plan.batch_size,
            "image_size": plan.image_size,
            "seed": seed,
            "calibrate_from_round": 1,
            "server-round": 1,
        }
    )
