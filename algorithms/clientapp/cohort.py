"""Where a station's cohort lies, and which cases it lists (the Decathlon form that MONAI reads)."""

import json
import os
from pathlib import Path
from typing import Any

from algorithms.clientapp.failures import TrainError


def data_folder() -> Path:
    """Return where the cohort lies; outside a container PHT_DATA says."""
    return Path(os.environ.get("PHT_DATA", "/train/data"))


def cases_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """Return a split's entries of the datalist, in its order: `image` and, where they are, `label`, `patient`, clinical fields.

    Raises:
        TrainError: NO_CASES, the cohort lists no case of this split.
    """
    cases: list[dict[str, Any]] = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))[split]
    if not cases:
        raise TrainError(
            "NO_CASES", f"the cohort has no {split} cases: a larger cohort, or another cohort key, has some"
        )
    return cases
