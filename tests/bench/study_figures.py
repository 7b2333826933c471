"""What a study found: how hospitals differ, AUC per hospital and over all, what each gets from taking part, and calibration.

AUC is of testing patients: of one with several images the highest score counts, and any positive image. Where prevalence differs
between hospitals, a model that only tells hospitals apart has an AUC above one half on patients of all of them together; so beside
that stands the AUC of pairs within a hospital, in which knowing the hospital helps nobody. Spread is the standard deviation over
seeds: other splits of the patients, other initial weights and other orders, together. The standard error of a difference takes seeds as
independent, which splits of the same patients are not quite: it says too little (Nadeau and Bengio, "Inference for the generalization
error", 2003).
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from algorithms.cxr_classification.calibration import brier, calibration_error, fit_temperature
from algorithms.cxr_classification.data import WHITE
from algorithms.cxr_classification.loss import finding_loss
from algorithms.cxr_classification.training import auc
from tests.bench.study_arms import ARMS, OTHERS, TOGETHER

Images = Sequence[Mapping[str, Any]]
"""Tested images: patient, label, logit."""
Rows = list[list[str]]
POOLED, WITHIN = "all", "within"


def show(results: Sequence[Mapping[str, Any]], cohorts: Sequence[Path], console: Console) -> None:
    """Print what there is, each table once for people and once for a page."""
    there = [folder for folder in cohorts if (folder / "whole").exists()]
    tables = [
        ("How the hospitals differ (all images, one seed's training split)", hospital_rows(there[0]))
        if there
        else ("", []),
        ("AUC on testing patients, mean and spread over seeds", auc_rows(results)),
        ("Differences of AUC, seed by seed", difference_rows(results)),
        ("Calibration on testing images of all hospitals", calibration_rows(results)),
    ]
    for title, rows in tables:
        if len(rows) < 2:
            continue
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
        console.print("\n".join(_markdown(rows)), markup=False)


def _markdown(rows: Rows) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def hospital_rows(cohorts: Path) -> Rows:
    """Return what differs between hospitals before anything is trained."""
    found = [["hospital", "images", "patients", "positive", "positive in training", "mean grey", "contrast"]]
    for hospital in sorted(each for each in cohorts.iterdir() if (each / "own").exists()):
        cases, training, greys = [], [], []
        for cohort in (hospital / "own", hospital / "test"):
            listed = json.loads((cohort / "datalist.json").read_bytes())
            here = [case for split in ("training", "validation", "testing") for case in listed[split]]
            training += [case["label"] for case in listed["training"]]
            cases += [(cohort.name, case["patient"], case["label"]) for case in here]
            greys += [np.asarray(nibabel.load(cohort / case["image"]).dataobj) / WHITE for case in here]
        labels = [label for _, _, label in cases]
        found.append(
            [
                hospital.name,
                str(len(cases)),
                str(len({(cohort, patient) for cohort, patient, _ in cases})),
                f"{statistics.mean(labels):.0%}",
                f"{statistics.mean(training):.0%}",
                _spread([float(each.mean()) for each in greys]),
                _spread([float(each.std()) for each in greys]),
            ]
        )
    return found


def areas(tested: Mapping[str, Images]) -> dict[str, float]:
    """Return the AUC of each hospital that has both classes, of all patients, and of pairs within a hospital."""
    found: dict[str, float] = {}
    patients = {name: of_patients(images) for name, images in tested.items()}
    weights = {}
    for name, (scores, labels) in patients.items():
        if (area := auc(scores, labels)) is not None:
            found[name] = area
            weights[name] = float(labels.sum() * (1 - labels).sum())
    if weights:
        found[WITHIN] = sum(found[name] * weight for name, weight in weights.items()) / sum(weights.values())
    scores, labels = (torch.cat(parts) for parts in zip(*patients.values(), strict=True))
    if (area := auc(scores, labels)) is not None:
        found[POOLED] = area
    return found


def of_patients(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a score and a label per patient."""
    scores: dict[str, float] = {}
    labels: dict[str, float] = {}
    for image in images:
        patient = image["patient"]
        scores[patient] = max(scores.get(patient, -np.inf), image["logit"])
        labels[patient] = max(labels.get(patient, 0.0), float(image["label"]))
    return torch.tensor(list(scores.values())), torch.tensor(list(labels.values()))


def by_arm(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the AUCs of each arm and seed; `local` is each hospital's own model at home, `local elsewhere` at the others."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        models, seed = result["models"], result["seed"]
        if TOGETHER in models:
            found.setdefault(result["arm"], {})[seed] = areas(models[TOGETHER]["tested"])
            continue
        home = areas({name: model["tested"][name] for name, model in models.items()})
        # Scores of different models have no common scale: patients of different hospitals make no pairs.
        home.pop(POOLED, None)
        found.setdefault(result["arm"], {})[seed] = home
        away: dict[str, list[float]] = {}
        for name, model in models.items():
            for other, area in areas(model["tested"]).items():
                if other in models and other != name:
                    away.setdefault(other, []).append(area)
        found.setdefault(f"{result['arm']} elsewhere", {})[seed] = {
            name: statistics.mean(values) for name, values in away.items()
        }
    return found


def auc_rows(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Return a line per arm."""
    arms = by_arm(results)
    places = _places(arms)
    found = [["training", "seeds", *places]]
    for arm in (*ARMS, "local elsewhere", *OTHERS):
        if seeds := arms.get(arm):
            values = [[each[place] for each in seeds.values() if place in each] for place in places]
            found.append([arm, str(len(seeds)), *(_spread(each) for each in values)])
    return found


def difference_rows(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Return what one arm has more than another on the same patients, with its standard error over seeds."""
    arms = by_arm(results)
    places = _places(arms)
    found = [["difference", "seeds", *places]]
    for one, other in (("fedavg", "central"), ("fedprox", "fedavg"), ("fedavg", "local"), ("fedprox-long", "fedavg-long"),
                       ("fedavg-long", "fedavg")):  # fmt: skip
        both = sorted(arms.get(one, {}).keys() & arms.get(other, {}).keys())
        if not both:
            continue
        row = [f"{one} - {other}", str(len(both))]
        for place in places:
            pairs = [(arms[one][seed].get(place), arms[other][seed].get(place)) for seed in both]
            row.append(_error([a - b for a, b in pairs if a is not None and b is not None]))
        found.append(row)
    return found


def calibration_rows(results: Sequence[Mapping[str, Any]]) -> Rows:
    """Return loss, Brier score and calibration error before and after a temperature that hospitals' validation losses say."""
    found = [
        ["training", "seeds", "temperature", "loss", "after", "Brier", "after", "calibration error", "after"]
    ]
    for arm in (*ARMS, *OTHERS):
        rows = [
            _calibration(each["models"][TOGETHER])
            for each in results
            if each["arm"] == arm and TOGETHER in each["models"]
        ]
        if rows:
            found.append([arm, str(len(rows)), *(_spread(column) for column in zip(*rows, strict=True))])
    return found


def _calibration(model: Mapping[str, Any]) -> list[float]:
    images = [image for tested in model["tested"].values() for image in tested]
    logits = torch.tensor([[image["logit"]] for image in images])
    labels = torch.tensor([[float(image["label"])] for image in images])
    value = fit_temperature(model["validation"]).value
    found = [value]
    for measure in (
        lambda each: float(finding_loss(each, labels, torch.ones(1))),
        lambda each: brier(each, labels),
        lambda each: calibration_error(torch.sigmoid(each)[:, 0], labels[:, 0]),
    ):
        found += [measure(logits), measure(logits / value)]
    return found


def _places(arms: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[str]:
    named = {place for seeds in arms.values() for each in seeds.values() for place in each}
    return [*sorted(named - {POOLED, WITHIN}), *(place for place in (WITHIN, POOLED) if place in named)]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}" + (
        f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    )


def _error(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:+.2f}"
    return f"{statistics.mean(values):+.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"
