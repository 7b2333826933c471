"""Who is in a frozen cohort, in the order in which its train sees them, and by which names: for counting what a train says of each.

    train's pseudonym -> project's pseudonym   one way for the train; the station knows both
    clinical.csv      -> the fields of a patient, as the train is shown them (in their bands)

Read once per run, from the cohort's own documents and the station's cohort key. Never mounted, and nothing of it leaves.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from policies.errors import StateError
from policies.splits import Split
from station.cohorts.definition import CohortDefinition
from station.cohorts.frozen import FrozenCohort
from station.cohorts.keys import CohortKey


@dataclass(frozen=True, slots=True)
class Roster:
    """The patients of a frozen cohort.

    Attributes:
        splits: the train's pseudonyms per split, in the order of their first appearance in datalist.json.
        names: the project's pseudonym of each.
        clinical: per field, what the lines of a patient show, by the train's pseudonym; several cases of a patient may differ.
    """

    splits: Mapping[Split, tuple[str, ...]]
    names: Mapping[str, str]
    clinical: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def read(cls, cohort: FrozenCohort, names: Mapping[str, str]) -> Self:
        """Read a cohort's documents.

        Args:
            cohort: frozen.
            names: the project's pseudonym for each of the train's.

        Raises:
            StateError: they cannot be read, or hold a patient whose name is not known.
        """
        try:
            listed: dict[str, Any] = json.loads((cohort.path / "datalist.json").read_bytes())
            table = list(csv.reader(io.StringIO((cohort.path / "clinical.csv").read_text("utf-8"))))
            splits = {
                split: tuple(dict.fromkeys(str(entry["patient"]) for entry in listed[split]))
                for split in Split
            }
            header, *lines = table
            clinical = {field: _column(lines, place) for place, field in enumerate(header) if place > 1}
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise StateError(
                "cohort: its documents cannot be read", hint="Freeze the cohort again."
            ) from error
        if any(patient not in names for patients in splits.values() for patient in patients):
            raise StateError(
                "cohort: it lists a patient that was not frozen", hint="Freeze the cohort again."
            )
        return cls(splits, dict(names), clinical)

    @classmethod
    def of(cls, cohort: FrozenCohort, definition: CohortDefinition, key: CohortKey) -> Self:
        """Read a cohort that was frozen under a definition with the station's key.

        Raises:
            StateError: as above.
        """
        scope = definition.scope
        return cls.read(cohort, {key.patient_id(scope, patient): patient for patient in cohort.patients})

    @property
    def patients(self) -> tuple[str, ...]:
        """Everybody, by the train's pseudonym; splits are by patient, so nobody stands twice."""
        return tuple(patient for split in Split for patient in self.splits.get(split, ()))

    def shown(self, patient: str, field: str) -> tuple[str, ...]:
        """Return what the cohort's table shows of a patient's field: different values once, sorted; empty where there is none."""
        return self.clinical.get(field, {}).get(patient, ())


def _column(lines: list[list[str]], place: int) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for line in lines:
        if line[place]:
            found.setdefault(line[1], set()).add(line[place])
    return {patient: tuple(sorted(values)) for patient, values in found.items()}
