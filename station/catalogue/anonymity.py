"""How well patients hide among each other in the clinical table that a train would see (k-anonymity).

The table itself is not made: the very functions that make it say what it would show. The unit is the patient.
"""

from collections.abc import Iterable

from policies.profiles import load_profile
from policies.profiles.anonymity import Anonymity, k_anonymity
from station.cohorts import CaseSource, CohortDefinition, CohortKey
from station.cohorts.clinical import shown_fields

REPORTED_K = 5
"""Classes of fewer patients are reported as small where the hospital names no number of its own."""


def cohort_anonymity(
    definition: CohortDefinition,
    cases: Iterable[CaseSource],
    key: CohortKey,
    *,
    wanted: int | None,
    patients: frozenset[str] | None = None,
) -> Anonymity:
    """Return the k-anonymity of a cohort's clinical table over the fields that can single a person out.

    Without such a field, all patients are alike.

    Args:
        definition: what the cohort is asked to be.
        cases: as the catalogue chose them.
        key: the station's cohort key: it decides the splits, and by how much dates are moved.
        wanted: the hospital's own minimum.
        patients: those who were laid out; where not given, those of the splits that would be.
    """
    laid = [
        case
        for case in cases
        if (key.split_of(case.patient) in definition.splits if patients is None else case.patient in patients)
    ]
    rows = (
        (case.patient, shown_fields(definition, case, key.shift_s(definition.scope, case.patient)))
        for case in laid
    )
    fields = load_profile(definition.profile).quasi_identifiers(definition.clinical_fields)
    return k_anonymity(rows, fields, wanted=wanted or REPORTED_K)


def in_words(found: Anonymity) -> str:
    """Say it in a sentence, for the operator."""
    return (
        f"k = {found.k}: {found.patients_below} of {found.patients} patients are in classes of fewer than "
        f"{found.wanted} who look alike"
    )
