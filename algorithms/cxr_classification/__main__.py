"""``python -m algorithms.cxr_classification RESULT OUT``: a trained model with calibrated output.

RESULT is the fetched result of a run whose last round told losses at other temperatures (`calibrate_from_round`). OUT gets the same
network as `model.safetensors`, and `calibration.json` with the temperature and what it changes.

The tensors differ from those that the result's provenance names, and OUT says of which model they are made.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from algorithms.cxr_classification.calibration import Temperature, divide_logits, fit_temperature
from algorithms.cxr_classification.model import HEAD


class CalibrationError(ValueError):
    """What cannot be calibrated, in a sentence for the researcher."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write; 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        fitted = calibrate(chosen.result, chosen.out)
    except (CalibrationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"temperature {fitted.value:.3f}: validation loss {fitted.loss_before:.4f} before, {fitted.loss_after:.4f} after\n"
    )
    if fitted.at_the_end:
        sys.stdout.write("the smallest loss was at the last temperature told: a better one may lie beyond\n")
    return 0


def calibrate(result: Path, out: Path) -> Temperature:
    """Write a model whose logits are divided by the temperature that hospitals' losses say.

    Args:
        result: a folder with `model.safetensors` and `metrics.json`.
        out: a folder that is not there yet.

    Raises:
        CalibrationError: a file is not what it should be, or the run told no losses at other temperatures.
        OSError: a file cannot be read or written.
    """
    model, metrics = result / "model.safetensors", result / "metrics.json"
    try:
        state = load_file(model)
    except SafetensorError as error:
        raise CalibrationError(f"{model.name} cannot be read as safetensors") from error
    if f"{HEAD}.weight" not in state:
        raise CalibrationError(f"{model.name} is no model of this train: it has no {HEAD}")
    try:
        fitted = fit_temperature(_last_losses(json.loads(metrics.read_bytes())))
    except ValueError as error:
        raise CalibrationError(
            f"{metrics.name}: {error}; a run with calibrate_from_round tells them, where its policy permits these metrics"
        ) from error
    out.mkdir(parents=True)
    save_file(
        {name: each.contiguous() for name, each in divide_logits(state, fitted.value).items()},
        out / "model.safetensors",
    )
    about = {
        "temperature": fitted.value,
        "validation_loss_before": fitted.loss_before,
        "validation_loss_after": fitted.loss_after,
        "at_the_end_of_the_range": fitted.at_the_end,
        "made_of": "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    (out / "calibration.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return fitted


def _last_losses(document: Any) -> dict[str, float]:  # noqa: ANN401 - a file of others
    final = document.get("final") if isinstance(document, dict) else None
    means = final.get("evaluate") if isinstance(final, dict) else None
    if not isinstance(means, dict):
        return {}
    return {str(name): float(value) for name, value in means.items() if isinstance(value, int | float)}


if __name__ == "__main__":
    sys.exit(main())
