"""Two trains over the same patients learn no common name for them, and neither learns the project's."""

import json
from dataclasses import replace
from pathlib import Path

from cohort_files import DEFINITION, KEY, case, tree

from station.cohorts import CohortDefinition, CohortKey, FrozenCohort, freeze

OTHER_TRAINS = (
    DEFINITION.model_copy(update={"policy_id": "another-policy"}),
    DEFINITION.model_copy(update={"manifest_digest": "sha256:" + "2" * 64}),
)


def frozen(definition: CohortDefinition, folder: Path, key: CohortKey = KEY) -> FrozenCohort:
    sources = [
        replace(case(folder, number, patient=f"PROJECTPATIENT{number}"), study=f"2.25.77777{number}")
        for number in range(30)
    ]
    result = freeze(definition, sources, folder / "out", key)
    assert isinstance(result, FrozenCohort)
    return result


def identifiers(cohort: FrozenCohort) -> tuple[list[str], list[str]]:
    datalist = json.loads((cohort.path / "datalist.json").read_text())
    return [entry["case"] for entry in datalist["training"]], [
        entry["patient"] for entry in datalist["training"]
    ]


def test_no_identifier_is_shared_between_trains(tmp_path: Path) -> None:
    first = frozen(DEFINITION, tmp_path)
    for definition in OTHER_TRAINS:
        second = frozen(definition, tmp_path)
        assert first.patients_by_split == second.patients_by_split
        for ours, theirs in zip(identifiers(first), identifiers(second), strict=True):
            assert len(ours) == len(theirs)
            assert not set(ours) & set(theirs)


def test_the_order_of_cases_does_not_link_either(tmp_path: Path) -> None:
    def order(cohort: FrozenCohort) -> list[bytes]:
        datalist = json.loads((cohort.path / "datalist.json").read_text())
        return [(cohort.path / entry["image"]).read_bytes() for entry in datalist["training"]]

    first, second = order(frozen(DEFINITION, tmp_path)), order(frozen(OTHER_TRAINS[0], tmp_path))
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_same_policy_keeps_its_names_over_versions(tmp_path: Path) -> None:
    later = DEFINITION.model_copy(update={"policy_version": 2})
    assert identifiers(frozen(DEFINITION, tmp_path)) == identifiers(frozen(later, tmp_path))


def test_nothing_of_the_projects_stands_in_the_cohort(tmp_path: Path) -> None:
    cohort = frozen(DEFINITION, tmp_path)
    for name, data in tree(cohort.path).items():
        for forbidden in (b"PROJECTPATIENT", b"2.25.", b".dcm", b"crp_mg_l", str(tmp_path).encode()):
            assert forbidden not in data, f"{forbidden!r} stands in {name}"
