"""Which findings the network tells apart, and what a cohort says of each case.

One finding is what `data.label` of the manifest names: the station writes it into the datalist, and leaves out cases without it.
Several findings are clinical fields: the image's own `/opt/pht/train.json` names them (`"findings": ["pneumonia", "effusion"]`, in
the order of the network's outputs), the manifest asks for them as `clinical_fields` and for no label, and they stand in the
cohort's `clinical.csv`. There a case may lack one: it is not a number here, and the loss leaves it out.
"""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from algorithms.clientapp.failures import TrainError

MISSING: Final = math.nan
_VALUES: Final[Mapping[str, float]] = {
    "": MISSING, "0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0,
}  # fmt: skip


def named_findings() -> tuple[str, ...]:
    """Return the findings that the image names, in the order of the network's outputs; none where the cohort's label is meant."""
    description = Path(os.environ.get("PHT_TRAIN", "/opt/pht/train.json"))
    if not description.is_file():
        return ()
    return tuple(json.loads(description.read_text(encoding="utf-8")).get("findings", ()))


def labels_of(folder: Path, cases: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[float]]:
    """Return 0, 1 or not a number per case and finding.

    Args:
        folder: the cohort.
        cases: of the datalist.
        names: the findings; with none it is the datalist's own label.

    Raises:
        TrainError: LABEL_NOT_BINARY, a value is neither 0 nor 1; FINDING_ABSENT, the cohort has no such field; NO_LABELS, no case
            has any.
    """
    found = _from_table(folder, cases, names) if names else [[_number(case.get("label"))] for case in cases]
    if all(math.isnan(value) for row in found for value in row):
        raise TrainError("NO_LABELS", "no case has a label: the eCRF has none of these findings filled in")
    return found


def _from_table(folder: Path, cases: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[float]]:
    with (folder / "clinical.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in names if name not in (reader.fieldnames or ())]
        if absent:
            raise TrainError(
                "FINDING_ABSENT",
                f"clinical.csv has no {', '.join(absent)}: the manifest's clinical_fields must ask for every finding",
            )
        rows = {row["case"]: row for row in reader}
    return [[_text(rows.get(str(case["case"]), {}).get(name)) for name in names] for case in cases]


def _text(value: str | None) -> float:
    if (value or "") not in _VALUES:
        raise TrainError("LABEL_NOT_BINARY", "a finding is neither 0, 1, true, false nor empty")
    return _VALUES[value or ""]


def _number(value: object) -> float:
    if value is None:
        return MISSING
    if isinstance(value, bool | int | float) and value in {0, 1}:
        return float(value)
    raise TrainError("LABEL_NOT_BINARY", "a label is neither 0 nor 1")
