"""Reads the result of a regression (`train_images/glm`): coefficients, standard errors, and whether it had converged.

A result holds the sums over all stations divided by N, the examples that averaging counted with (`algorithms/glm/state.py` says why);
the provenance statement of the same result has N. What a coefficient is called stands in the image's `model.json`, so the bundle is
asked for, and held to the digest that the provenance names. Nothing here runs what an image holds.

The arithmetic is the textbook's: the inverse information, for a linear model times the residual variance with Student's t, for the
others with the normal distribution (Wald). With a ridge penalty the numbers are those of the penalised information, and say too little
of the uncertainty.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from policies.documents import digest_of_file
from policies.errors import DocumentError, NotFoundError, TrustError, UsageError, WireError
from policies.result_files import MODEL, PROVENANCE
from policies.wire.arrays import ArrayLimits, read_layout
from train_images.tool.description import read_json_in_image
from train_images.tool.folders import PackedTrain
from train_images.tool.results import statement_of, subjects_of

MODEL_IN_IMAGE: Final = "opt/pht/model.json"
RATIOS: Final[Mapping[str, str]] = {"logistic": "odds ratio", "poisson": "rate ratio", "cox": "hazard ratio"}
CONVERGED: Final = 1e-6
"""Of a standard error: how far the next step may still move a coefficient."""

_LEVEL: Final = 0.95
_WHOLE: Final = 1e-4
_MAX_BYTES: Final = 1 << 20
_LARGEST: Final = 2.0**53
"""Beyond this no number of a result is one of patients, of their sums or of a penalty: arithmetic on it would overflow."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One line of the table; interval of 95%. What is not known is None, and of a penalised fit what has no meaning."""

    name: str
    coefficient: float
    standard_error: float | None
    statistic: float | None
    p: float | None
    lower: float | None
    upper: float | None
    ratio: float | None
    ratio_lower: float | None
    ratio_upper: float | None


@dataclass(frozen=True, slots=True)
class Regression:
    """What a result says.

    Attributes:
        family: logistic, linear, poisson or cox.
        ratio: what the exponential of a coefficient is; None of a linear model.
        references: of each field of categories, what the others are compared with.
        patients: complete ones of all stations; None where N is not told.
        stations: how many took part in the last round; likewise.
        log_likelihood: of the whole model; likewise. Of a Cox model the partial one.
        dispersion: residual variance (linear) or Pearson's chi-square by its degrees of freedom (logistic, poisson).
        ridge: the penalty's weight.
        next_step: how far the next round would move a coefficient, in standard errors, at most.
        notes: what a reader must know before they use it.
    """

    family: str
    ratio: str | None
    coefficients: tuple[Coefficient, ...]
    references: Mapping[str, str]
    patients: int | None
    stations: int | None
    log_likelihood: float | None
    dispersion: float | None
    ridge: float
    next_step: float | None
    converged: bool
    notes: tuple[str, ...]


def read_regression(result: Path, train: PackedTrain, examples: int | None = None) -> Regression:
    """Read a fetched result.

    Args:
        result: a folder that `pht-train results` filled.
        train: the bundle that the run was of.
        examples: N, where the provenance statement does not tell it.

    Raises:
        NotFoundError: there is no result, or it holds no model.
        TrustError: the model is not the one that the provenance names.
        UsageError: the run was of another train, or that train is no regression; N is not that of the result.
        DocumentError: the image has no readable model.json, or the result is of another model.
    """
    predicate = _verified(result, train)
    document: dict[str, Any] | None = read_json_in_image(train, MODEL_IN_IMAGE)
    if document is None:
        raise UsageError(
            f"the train's image has no /{MODEL_IN_IMAGE}, so its result is no table of coefficients"
        )
    try:
        family, names = str(document["family"]), _names(document)
        references = {
            str(each["field"]): str(each["reference"]) for each in document["covariates"] if "groups" in each
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DocumentError(f"the image's /{MODEL_IN_IMAGE} describes no regression") from error
    found = _arrays(result / MODEL, len(names))
    ridge = _inside(_inside(predicate, "order"), "hyperparameters").get("ridge", 0.0)
    if not isinstance(ridge, int | float) or not 0 <= ridge <= _LARGEST:
        raise DocumentError(f"{PROVENANCE}: ridge is a number from 0 on")
    counted, notes = _examples(predicate, examples)
    return _regression(_Fit(family, names, references, found, float(ridge)), counted, notes)


@dataclass(frozen=True, slots=True)
class _Fit:
    family: str
    names: tuple[str, ...]
    references: Mapping[str, str]
    arrays: Mapping[str, Floats]
    ridge: float

    @property
    def patients(self) -> float:
        return float(self.arrays["population"][0])

    @property
    def penalties(self) -> Floats:
        return np.array([0.0 if name == "intercept" else self.ridge for name in self.names])


def _regression(fit: _Fit, examples: int | None, notes: list[str]) -> Regression:
    if fit.patients <= 0:
        raise UsageError("the result holds no sums: no station has answered a round")
    width = len(fit.names)
    beta, arrays = fit.arrays["coefficients"], fit.arrays
    information = np.zeros((width, width))
    information[np.tril_indices(width)] = arrays["information"]
    information = information + np.tril(information, -1).T + np.diag(fit.penalties * fit.patients)
    gradient = arrays["score"] - fit.penalties * fit.patients * beta
    try:
        inverse = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        notes.append("The columns say the same: there are no standard errors.")
        inverse = np.full((width, width), np.nan)
    step = inverse @ gradient
    patients = stations = dispersion = None
    errors: Floats = np.full(width, np.nan)
    if examples is not None:
        patients, stations = _whole(arrays["population"] * examples)
        dispersion = _dispersion(fit, examples, patients)
        scale = dispersion if fit.family == "linear" and dispersion is not None else 1.0
        with np.errstate(invalid="ignore"):
            errors = np.sqrt(np.diag(inverse) * scale / examples)
    furthest = _furthest(step, errors)
    converged = furthest is not None and furthest <= CONVERGED
    if furthest is not None and not converged:
        notes.append(
            "Not converged: run more rounds from this model, or look for a coefficient that grows without end."
        )
    if fit.ridge:
        notes.append("With a ridge penalty standard errors say too little, and there are no p-values.")
    degrees = None if fit.family != "linear" or patients is None else patients - width
    return Regression(
        fit.family,
        RATIOS.get(fit.family),
        tuple(_lines(fit, beta, errors, degrees)),
        fit.references,
        patients,
        stations,
        _log_likelihood(fit, examples, patients),
        dispersion,
        fit.ridge,
        furthest,
        converged,
        tuple(notes),
    )


def _lines(fit: _Fit, beta: Floats, errors: Floats, degrees: int | None) -> Iterator[Coefficient]:
    # Loaded here: what prints no table starts faster.
    from scipy.special import ndtr, ndtri, stdtr, stdtrit  # noqa: PLC0415

    beyond = (1 + _LEVEL) / 2
    known_degrees = degrees is not None and degrees > 0
    wide = float(stdtrit(degrees, beyond) if known_degrees else ndtri(beyond))
    for name, value, error in zip(fit.names, beta.tolist(), errors.tolist(), strict=True):
        ratio = math.exp(min(value, 700.0)) if fit.family in RATIOS and name != "intercept" else None
        if not math.isfinite(error) or error <= 0 or (fit.family == "linear" and not known_degrees):
            yield Coefficient(name, value, None, None, None, None, None, ratio, None, None)
            continue
        statistic = value / error
        tail = float(stdtr(degrees, -abs(statistic)) if known_degrees else ndtr(-abs(statistic)))
        # A ridge pulls coefficients towards zero: that one is zero is no hypothesis that its size could speak against.
        tested, p = (None, None) if fit.ridge else (statistic, 2 * tail)
        low, high = value - wide * error, value + wide * error
        ends = (None, None) if ratio is None else (math.exp(min(low, 700.0)), math.exp(min(high, 700.0)))
        yield Coefficient(name, value, error, tested, p, low, high, ratio, *ends)


def _furthest(step: Floats, errors: Floats) -> float | None:
    if not np.isfinite(errors).all() or not np.isfinite(step).all() or not (errors > 0).all():
        return None
    return float(np.max(np.abs(step) / errors))


def _dispersion(fit: _Fit, examples: int, patients: int) -> float | None:
    degrees = patients - len(fit.names)
    if fit.family == "cox" or degrees <= 0:
        return None
    return float(fit.arrays["pearson"][0]) * examples / degrees


def _log_likelihood(fit: _Fit, examples: int | None, patients: int | None) -> float | None:
    if examples is None or patients is None:
        return None
    total = float(fit.arrays["log_likelihood"][0]) * examples
    if fit.family != "linear":
        return total
    # Of the normal distribution at the variance that makes it largest.
    squares = -2 * total
    return None if squares <= 0 else -patients / 2 * (math.log(2 * math.pi * squares / patients) + 1)


def _whole(population: Floats) -> tuple[int, int]:
    """Return patients and stations, which are whole numbers only if N is that of the sums."""
    nearest = np.round(population)
    if np.any(np.abs(population - nearest) > _WHOLE * np.maximum(1.0, nearest)) or np.any(nearest < 1):
        raise UsageError(
            "the sums are not of so many examples: a station was counted with another number than it has",
            hint="Order the run again. Or give --examples: what averaging counted in the last round.",
        )
    return int(nearest[0]), int(nearest[1])


def _verified(result: Path, train: PackedTrain) -> Mapping[str, Any]:
    if not (result / PROVENANCE).is_file():
        raise NotFoundError(f"{result}: holds no result", hint="Fetch it: pht-train results DIGEST OUT.")
    subjects = subjects_of(result / PROVENANCE)
    path = result / MODEL
    if MODEL not in subjects:
        raise NotFoundError("the result holds no model: its run trained none")
    if not path.is_file() or digest_of_file(path) != subjects[MODEL]:
        raise TrustError(f"{MODEL} is not the file that {PROVENANCE} names", hint="Fetch the result again.")
    predicate = statement_of(result / PROVENANCE).get("predicate")
    if not isinstance(predicate, dict):
        raise TrustError(f"{PROVENANCE} does not say which train was run")
    if _inside(predicate, "train").get("image_config_digest") != train.index.config.digest:
        raise UsageError(
            "the run was of another image than this bundle's, whose coefficients may have other names",
            hint="Give the bundle that was submitted for it.",
        )
    return predicate


def _inside(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object within a document of somebody else's; an empty one where it is none."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _examples(predicate: Mapping[str, Any], given: int | None) -> tuple[int | None, list[str]]:
    """Return N of the round that made the model, and what is to be said of its rounds."""
    listed = predicate.get("rounds")
    rounds = {
        each["round"]: each
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and isinstance(each.get("round"), int)
    }
    made = _inside(predicate, "outcome").get("model_of_round")
    last, before = (rounds.get(made), rounds.get(made - 1)) if isinstance(made, int) else (None, None)
    notes: list[str] = []
    if last is not None and before is not None and last.get("took_part") != before.get("took_part"):
        notes.append("Other stations took part in the last round than in the one before.")
    total = given if given is not None else None if last is None else last.get("examples_total")
    if isinstance(total, bool) or not isinstance(total, int) or not 0 < total <= _LARGEST:
        notes.append(
            "How many examples were counted is not told (fewer than three stations): no standard errors. --examples gives it."
        )
        return None, notes
    return total, notes


def _arrays(path: Path, width: int) -> dict[str, Floats]:
    try:
        read_layout(path, ArrayLimits(max_bytes=_MAX_BYTES))
    except WireError as error:
        raise DocumentError(f"{MODEL}: {error.message}") from error
    loaded = load_file(path)
    lengths = {
        "coefficients": width,
        "score": width,
        "information": width * (width + 1) // 2,
        "log_likelihood": 1,
        "pearson": 1,
        "population": 2,
    }
    found: dict[str, Floats] = {}
    for name, length in lengths.items():
        parts = [loaded.get(name), loaded.get(f"{name}.rest")]
        if any(part is None or part.shape != (length,) or part.dtype != np.float64 for part in parts):
            raise DocumentError(f"{MODEL} is no result of this train's model ({name})")
        found[name] = np.sum([part for part in parts if part is not None], axis=0)
        if not (np.abs(found[name]) <= _LARGEST).all():
            raise DocumentError(f"{MODEL} holds what is no number, or beyond any sum ({name})")
    return found


def _names(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the coefficients are called, as the train orders them."""
    names = [] if document["family"] == "cox" else ["intercept"]
    for each in document["covariates"]:
        field = str(each["field"])
        if "groups" in each:
            levels = [*each["groups"], *([each["missing"]] if each.get("missing") is not None else [])]
            names += [f"{field}: {level}" for level in levels if level != each["reference"]]
            continue
        centre, per = float(each.get("centre", 0)), float(each.get("per", 1))
        names.append(
            field + ("" if per == 1 else f" per {per:g}") + ("" if centre == 0 else f" from {centre:g}")
        )
    return tuple(names)
