"""What a cohort's `clinical.csv` shows of a case: the granted fields, in the bands of their minimal-dataset profile."""

from datetime import date, timedelta

from policies.profiles import load_profile
from station.cohorts.definition import CohortDefinition
from station.cohorts.keys import DAY_S
from station.cohorts.source import CaseSource, JsonScalar


def shown_fields(definition: CohortDefinition, case: CaseSource, shift_s: int) -> dict[str, JsonScalar]:
    """Return the fields to write.

    1. The label is what the train learns: it stays as it is.
    2. A date is moved by the patient's shift in this train, by whole days.
    3. Every value is shown in its band; what does not fit its field is not shown.

    Args:
        definition: its fields are all in its profile.
        case: a case of the cohort.
        shift_s: how much earlier the patient's moments lie in this train.
    """
    profile = load_profile(definition.profile)
    shown: dict[str, JsonScalar] = {}
    for name in definition.clinical_fields:
        value = case.clinical.get(name)
        if name == definition.label:
            shown[name] = value
            continue
        if profile.field(name).kind == "date":
            value = _moved(value, shift_s // DAY_S)
        shown[name] = profile.band(name, value)
    return shown


def _moved(value: JsonScalar, days: int) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return (date.fromisoformat(value) - timedelta(days=days)).isoformat()
    except (ValueError, OverflowError):
        return None
