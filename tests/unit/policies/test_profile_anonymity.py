"""k-anonymity: patients who are shown alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.profiles import ClinicalValue, k_anonymity

QUASI = ("sex", "age_years")


def row(sex: str | None, age: str | None, **more: ClinicalValue) -> dict[str, ClinicalValue]:
    return {"sex": sex, "age_years": age, **more}


def test_the_smallest_class_is_k() -> None:
    rows = [
        ("1", row("F", "60-69", crp=1)), ("2", row("F", "60-69", crp=2)), ("3", row("F", "60-69", crp=3)),
        ("4", row("M", "60-69")), ("5", row("M", "60-69")), ("6", row("M", "70-79")),
    ]  # fmt: skip
    found = k_anonymity(rows, QUASI, wanted=3)
    assert (found.k, found.patients, found.classes, found.patients_below) == (1, 6, 3, 3)
    assert found.smallest == {1: 1, 2: 1}
    assert k_anonymity(rows[:5], QUASI, wanted=2).patients_below == 0


def test_a_patient_with_several_studies_counts_once_and_is_known_by_all_of_them() -> None:
    rows = [
        ("1", row("F", "60-69")), ("1", row("F", "60-69")), ("2", row("F", "60-69")),
        ("3", row("F", "60-69")), ("3", row("F", "70-79")),
    ]  # fmt: skip
    found = k_anonymity(rows, QUASI, wanted=2)
    assert (found.k, found.patients, found.classes, found.patients_below) == (1, 3, 2, 1)


def test_missing_is_a_value_like_any_other() -> None:
    rows = [("1", row(None, "60-69")), ("2", {"age_years": "60-69"}), ("3", row("F", "60-69"))]
    assert k_anonymity(rows, QUASI, wanted=2).smallest == {1: 1}


def test_one_and_true_are_not_alike() -> None:
    assert k_anonymity([("1", {"x": 1}), ("2", {"x": True})], ["x"], wanted=2).k == 1


def test_without_patients_there_is_no_k() -> None:
    found = k_anonymity([], QUASI, wanted=5)
    assert (found.k, found.patients, found.classes) == (0, 0, 0)


def test_without_quasi_identifiers_all_are_alike() -> None:
    assert k_anonymity([("1", {}), ("2", {})], (), wanted=5).k == 2


def test_a_class_of_none_is_nonsense() -> None:
    with pytest.raises(ValueError, match="at least one"):
        k_anonymity([], QUASI, wanted=0)


@given(
    st.lists(
        st.tuples(st.integers(0, 8).map(str), st.sampled_from("FM"), st.sampled_from(["60-69", "70-79"]))
    ),
    st.integers(1, 6),
)
def test_counts_agree_with_each_other(seen: list[tuple[str, str, str]], wanted: int) -> None:
    rows = [(patient, row(sex, age)) for patient, sex, age in seen]
    found = k_anonymity(rows, QUASI, wanted=wanted)
    assert found.patients == len({patient for patient, _, _ in seen})
    assert (found.patients_below == 0) == (found.k >= wanted or not seen)
    assert found.patients_below == sum(size * count for size, count in found.smallest.items())
    # Fewer quasi-identifiers never make it worse.
    assert k_anonymity(rows, QUASI[:1], wanted=wanted).k >= found.k
