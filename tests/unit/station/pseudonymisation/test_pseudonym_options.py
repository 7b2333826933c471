import pytest
from pydantic import ValidationError

from policies.errors import SettingsError
from station.pseudonymisation.options import (
    DeidentificationOptions,
    Option,
    PrivateElement,
    options_of,
)
from station.settings.sections import CollectionSettings


def test_each_option_has_its_code_of_cid_7050() -> None:
    codes = {code.value: code.meaning for code in DeidentificationOptions(chosen=tuple(Option)).codes()}
    assert codes == {
        "113100": "Basic Application Confidentiality Profile",
        "113105": "Clean Descriptors Option",
        "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
        "113108": "Retain Patient Characteristics Option",
        "113109": "Retain Device Identity Option",
        "113111": "Retain Safe Private Option",
    }


def test_modified_dates_is_the_default_and_can_be_left_out() -> None:
    assert [code.value for code in DeidentificationOptions().codes()] == ["113100", "113107"]
    assert [code.value for code in options_of([]).codes()] == ["113100"]


def test_the_same_options_in_another_order_are_the_same() -> None:
    assert options_of(["safe-private", "modified-dates"]) == options_of(["modified-dates", "safe-private"])


@pytest.mark.parametrize(
    ("chosen", "safe_private"),
    [
        (["full-dates"], []),
        (["modified-dates", "modified-dates"], []),
        (["modified-dates"], ["ACME:0019,xx01:DS"]),
        (["safe-private"], ["ACME:0018,xx01:DS"]),
        (["safe-private"], ["ACME:0007,xx01:DS"]),
        (["safe-private"], ["ACME:0019,1001:DS"]),
        (["safe-private"], [":0019,xx01:DS"]),
        (["safe-private"], ["ACME:0019,xx01"]),
    ],
)
def test_what_is_not_an_option_is_refused(chosen: list[str], safe_private: list[str]) -> None:
    with pytest.raises(SettingsError, match="deidentification"):
        options_of(chosen, safe_private)


def test_a_creator_may_have_colons_and_spaces() -> None:
    options = options_of(["safe-private"], ["http://www.gemedicalsystems.com/x 1:0043,xx27:SH"])
    assert options.private_elements() == (
        PrivateElement("http://www.gemedicalsystems.com/x 1", 0x0043, 0x27, "SH"),
    )


def collection(**keys: object) -> CollectionSettings:
    return CollectionSettings.model_validate(
        {
            "name": "chest", "consent_mode": "opt-in", "legal_ground": "consent", "marking": "patient",
            "requester_classes": ["non-profit"], "purposes": ["health-research"], "countries": ["NL"], **keys,
        },
        strict=False,
    )  # fmt: skip


def test_the_settings_of_a_collection_name_the_same_options() -> None:
    settings = collection(deidentification=[*Option], safe_private=["ACME:0019,xx01:DS"])
    options = options_of(settings.deidentification, settings.safe_private)
    assert options.chosen == tuple(Option)
    assert options_of(collection().deidentification) == DeidentificationOptions()


@pytest.mark.parametrize(
    "keys",
    [
        {"deidentification": ["full-dates"]},
        {"deidentification": ["safe-private", "safe-private"]},
        {"safe_private": ["ACME:0019,xx01:DS"]},
        {"deidentification": ["safe-private"], "safe_private": ["ACME:0019,01:DS"]},
    ],
)
def test_the_settings_refuse_what_the_options_refuse(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        collection(**keys)
