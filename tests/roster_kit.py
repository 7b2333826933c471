"""Lists of patients without a cohort on disk, for tests of counting."""

from collections.abc import Mapping

from policies.splits import Split
from station.cohorts import FrozenCohort
from station.cohorts.roster import Roster


def roster(clinical: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None, **splits: int) -> Roster:
    """So many patients per split, called `training0` by the train and `project-training0` by the project."""
    listed = {
        Split(name): tuple(f"{name}{number}" for number in range(size)) for name, size in splits.items()
    }
    names = {patient: f"project-{patient}" for patients in listed.values() for patient in patients}
    return Roster(listed, names, clinical or {})


def by_own_names(cohort: FrozenCohort) -> Roster:
    """The list of a cohort made by hand, whose train and project call patients the same."""
    return Roster.read(cohort, {patient: patient for patient in cohort.patients})
