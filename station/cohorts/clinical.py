"""What a cohort's `clinical.csv` shows of a case: fields in the bands of their profile, and how its images were acquired.

Only what is granted; how images were acquired is as coarse as `policies.acquisition` has it.
"""

from datetime import date, timedelta

from policies.acquisition import shown
from policies.profiles import load_profile
from station.cohorts.definition import CohortDefinition
from station.cohorts.keys import DAY_S
from station.cohorts.source import CaseSource, JsonScalar


def shown_fields(definition: CohortDefinition, case: CaseSource, shift_s: int) -> dict[str, JsonScalar]:
    """Return the fields to write.

    1. The label is what the train learns: it stays as it is.
    2. A date is moved by the patient's shift in this train, by whole days.
    3. Every value is shown in its band; what does not fit its field is not shown.
    4. Of how images were acquired what the field's own form has.

    Args:
        definition: its fields are all in its profile.
        case: a case of the cohort.
        shift_s: how much earlier the patient's moments lie in this train.
    """
    profile = load_profile(definition.profile)
    table: dict[str, JsonScalar] = {}
    for name in definition.clinical_fields:
        value = case.clinical.get(name)
        if name == definition.label:
            table[name] = value
            continue
        if profile.field(name).kind == "date":
            value = _moved(value, shift_s // DAY_S)
        table[name] = profile.band(name, value)
    return table | {
        field.value: shown(field, case.acquisition.get(field)) for field in definition.acquisition_fields
    }


def _moved(value: JsonScalar, days: int) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return (date.fromisoformat(value) - timedelta(days=days)).isoformat()
    except (ValueError, OverflowError):
        return None
