"""FHIR R4 Consent: what the subset reads, and that everything else refuses the file with a reason per entry."""

import copy
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policies.errors import DataError, DocumentError
from station.intake.consent.codes import ConsentCodes
from station.intake.consent.decisions import Decision, GivenBy, PatientFacts, PatientId, Purpose, Register
from station.intake.consent.fhir import read_fhir
from station.intake.consent.fhir_elements import ConsentEntryError, EntryReason

FORM = "https://example.org/consent-form"
IDS = "urn:oid:2.16.528.1.1007.3.3.1"
CODES = ConsentCodes.model_validate(
    {
        "schema_version": 1,
        "purposes": [
            {"system": FORM, "code": "a", "purpose": "registry"},
            {"system": FORM, "code": "b", "purpose": "research-participants"},
            {"system": FORM, "code": "c", "purpose": "research-third-parties"},
            {"system": FORM, "code": "d", "purpose": "research-commercial"},
        ],
        "issuers": [{"system": IDS, "issuer": "Amstelrijk"}],
    }
)
TODAY = date(2026, 11, 22)
MADE = date(2024, 5, 6)
WHO = PatientId("Amstelrijk", "1430591")


def purpose(*codes: str) -> list[dict[str, str]]:
    return [{"system": FORM, "code": code} for code in codes]


def consent(**changes: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}]
        },
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"identifier": {"system": IDS, "value": "1430591"}},
        "dateTime": "2024-05-06T09:30:00+02:00",
        "provision": {"type": "permit", "purpose": purpose("b")},
        **changes,
    }
    return {key: value for key, value in resource.items() if value is not None}


def patient(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [{"system": IDS, "value": "1430591"}, {"system": "urn:other", "value": "9"}],
        "birthDate": "2012-03-04",
        **changes,
    }


def bundle(*resources: dict[str, Any], **changes: Any) -> bytes:
    entries = [{"fullUrl": f"urn:uuid:{index}", "resource": one} for index, one in enumerate(resources)]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries, **changes}).encode()


def read(*resources: dict[str, Any]) -> Register:
    return read_fhir(bundle(*resources), CODES, today=TODAY)


def said(*resources: dict[str, Any]) -> set[tuple[str, str]]:
    return {(decision.purpose.value, decision.word) for decision in read(*resources).decisions}


def reasons(*resources: dict[str, Any]) -> list[tuple[int, EntryReason]]:
    with pytest.raises(ConsentEntryError) as caught:
        read(*resources)
    assert "1430591" not in str(caught.value)
    return list(caught.value.problems)


def test_a_permit_is_a_consent_to_the_purposes_it_names() -> None:
    assert read(consent()).decisions == (
        Decision(WHO, Purpose.RESEARCH_PARTICIPANTS, "consent", MADE, GivenBy.PATIENT),
    )
    both = consent(
        provision={"type": "permit", "purpose": purpose("a", "b"), "period": {"end": "2030-12-31"}}
    )
    assert {(one.purpose, one.valid_until) for one in read(both).decisions} == {
        (Purpose.REGISTRY, date(2030, 12, 31)), (Purpose.RESEARCH_PARTICIPANTS, date(2030, 12, 31)),
    }  # fmt: skip


def test_a_deny_is_an_objection_to_its_purposes_or_to_everything() -> None:
    assert said(consent(provision={"type": "deny", "purpose": purpose("d")})) == {
        ("research-commercial", "objection")
    }
    everything = {(each.value, "objection") for each in Purpose}
    assert said(consent(provision={"type": "deny"})) == everything
    opt_out = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTOUT"}]}
    assert said(consent(provision=None, policyRule=opt_out)) == everything


def test_rules_inside_a_root_without_type_each_count() -> None:
    root = {
        "period": {"start": "2024-06-01", "end": "2029-06-01"},
        "provision": [
            {
                "type": "permit",
                "purpose": purpose("b"),
                "period": {"start": "2024-01-01", "end": "2028-01-01"},
            },
            {
                "type": "permit",
                "purpose": purpose("c"),
                "provision": [{"type": "deny", "purpose": purpose("d")}],
            },
        ],
    }
    found = {one.purpose: one for one in read(consent(provision=root)).decisions}
    participants = found[Purpose.RESEARCH_PARTICIPANTS]
    assert (participants.valid_from, participants.valid_until) == (date(2024, 6, 1), date(2028, 1, 1))
    assert found[Purpose.RESEARCH_THIRD_PARTIES].valid_until == date(2029, 6, 1)
    assert found[Purpose.RESEARCH_COMMERCIAL].word == "objection"
    assert found[Purpose.RESEARCH_COMMERCIAL].valid_until is None, "an objection has no end"


def test_who_consents_is_the_patient_or_a_relative() -> None:
    relative = {"resourceType": "RelatedPerson", "id": "r1"}
    asked = consent(
        patient={"reference": "Patient/p1"},
        performer=[{"reference": "Patient/p1"}, {"reference": "RelatedPerson/r1"}],
    )
    register = read(patient(), relative, asked)
    assert {one.given_by for one in register.decisions} == {GivenBy.PATIENT, GivenBy.PARENT}
    assert register.facts == {WHO: PatientFacts(date(2012, 3, 4))}
    assert {one.patient for one in register.decisions} == {WHO}
    by_url = consent(patient={"reference": "urn:uuid:0"}, performer=[{"reference": "Patient/p1"}])
    assert {one.given_by for one in read(patient(), by_url).decisions} == {GivenBy.PATIENT}


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"birthDate": "2012"}, PatientFacts(date(2012, 12, 31))),
        ({"birthDate": "2012-02"}, PatientFacts(date(2012, 2, 29))),
        ({"deceasedDateTime": "2025-01-02T10:00:00Z"}, PatientFacts(date(2012, 3, 4), date(2025, 1, 2))),
        ({"deceasedBoolean": True}, PatientFacts(date(2012, 3, 4), TODAY)),
        ({"deceasedBoolean": False}, PatientFacts(date(2012, 3, 4))),
    ],
)
def test_births_and_deaths(changes: dict[str, Any], facts: PatientFacts) -> None:
    about = consent(patient={"reference": "Patient/p1"})
    assert read(patient(**changes), about).facts == {WHO: facts}


@pytest.mark.parametrize("status", ["draft", "proposed", "inactive", "entered-in-error"])
def test_what_is_not_in_force_says_nothing(status: str) -> None:
    register = read(consent(), consent(status=status, provision={"type": "deny"}))
    assert (len(register.decisions), register.passed_over) == (1, 1)
    treatment = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "treatment"}]
    }
    assert read(consent(), consent(scope=treatment)).passed_over == 1


def test_a_rejected_form_is_an_objection() -> None:
    assert said(consent(status="rejected")) == {("research-participants", "objection")}
    assert said(consent(status="rejected", provision=None)) == {(each.value, "objection") for each in Purpose}


UNREADABLE: list[tuple[dict[str, Any], EntryReason]] = [
    ({"status": "maybe"}, EntryReason.STATUS),
    ({"status": None}, EntryReason.STATUS),
    ({"status": ["active"]}, EntryReason.STATUS),
    ({"modifierExtension": [{"url": "x"}]}, EntryReason.MODIFIER_EXTENSION),
    ({"implicitRules": "x"}, EntryReason.UNKNOWN_ELEMENT),
    ({"contained": []}, EntryReason.UNKNOWN_ELEMENT),
    ({"scope": None}, EntryReason.SCOPE),
    ({"scope": {"coding": [{"system": "x", "code": "research"}]}}, EntryReason.SCOPE),
    ({"dateTime": None}, EntryReason.DATE),
    ({"dateTime": "2024-05"}, EntryReason.DATE),
    ({"dateTime": "2024-02-30"}, EntryReason.DATE),
    ({"patient": None}, EntryReason.PATIENT),
    ({"patient": {"reference": "Patient/1430591"}}, EntryReason.PATIENT_NOT_IN_FILE),
    ({"patient": {"identifier": {"system": "urn:other", "value": "1"}}}, EntryReason.PATIENT_SYSTEM_UNKNOWN),
    ({"patient": {"identifier": {"value": "1"}}}, EntryReason.PATIENT_SYSTEM_UNKNOWN),
    ({"patient": {"identifier": {"system": IDS, "value": ""}}}, EntryReason.PATIENT),
    ({"performer": [{"reference": "Practitioner/1"}]}, EntryReason.PERFORMER),
    ({"performer": [{"display": "mother"}]}, EntryReason.PERFORMER),
    ({"policyRule": {"coding": [{"system": "x", "code": "OPTIN"}]}}, EntryReason.POLICY_RULE),
    ({"provision": None}, EntryReason.STATES_NOTHING),
    ({"provision": {}}, EntryReason.STATES_NOTHING),
    ({"provision": {"purpose": purpose("b")}}, EntryReason.PROVISION_TYPE),
    ({"provision": {"type": "allow", "purpose": purpose("b")}}, EntryReason.PROVISION_TYPE),
    ({"provision": {"type": "permit"}}, EntryReason.PURPOSE),
    ({"provision": {"type": "permit", "purpose": []}}, EntryReason.PURPOSE),
    ({"provision": {"type": "permit", "purpose": purpose("e")}}, EntryReason.PURPOSE_UNKNOWN),
    ({"provision": {"type": "permit", "purpose": purpose("b", "e")}}, EntryReason.PURPOSE_UNKNOWN),
    ({"provision": {"type": "deny", "purpose": purpose("e")}}, EntryReason.PURPOSE_UNKNOWN),
    ({"provision": {"type": "permit", "purpose": purpose("b"), "actor": []}}, EntryReason.UNKNOWN_ELEMENT),
    ({"provision": {"type": "permit", "purpose": purpose("b"), "dataPeriod": {}}}, EntryReason.UNKNOWN_ELEMENT),
    ({"provision": {"type": "permit", "purpose": purpose("b"), "modifierExtension": []}},
     EntryReason.MODIFIER_EXTENSION),
    ({"provision": {"type": "permit", "purpose": purpose("b"), "period": {"end": "2024"}}}, EntryReason.PERIOD),
    ({"provision": {"type": "permit", "purpose": purpose("b"), "period": {"end": "2024-05-05"}}},
     EntryReason.PERIOD),
    ({"provision": {"type": "deny", "period": {"end": "2030-01-01"}}}, EntryReason.OBJECTION_ENDS),
    ({"provision": {"type": "deny", "provision": [{"type": "permit", "purpose": purpose("b")}]}},
     EntryReason.PERMIT_INSIDE_DENY),
    ({"verification": [{"verified": False}]}, EntryReason.NOT_VERIFIED),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), UNREADABLE)
def test_what_cannot_be_read_refuses_the_file(changes: dict[str, Any], reason: EntryReason) -> None:
    assert reasons(consent(), consent(**changes)) == [(2, reason)]


def test_every_entry_that_cannot_be_read_is_named() -> None:
    found = reasons(
        consent(status="maybe"), consent(), consent(dateTime=None), {"resourceType": "Observation"}
    )
    assert found == [(1, EntryReason.STATUS), (3, EntryReason.DATE), (4, EntryReason.RESOURCE_TYPE)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"identifier": [{"system": "urn:other", "value": "9"}]}, EntryReason.PATIENT_SYSTEM_UNKNOWN),
        ({"birthDate": "4 March"}, EntryReason.DATE),
        ({"birthDate": "2024-05-07"}, EntryReason.DATE),
        ({"modifierExtension": []}, EntryReason.MODIFIER_EXTENSION),
        ({"deceasedBoolean": "no"}, EntryReason.PATIENT),
    ],
)
def test_a_patient_that_cannot_be_read_refuses_the_file(changes: dict[str, Any], reason: EntryReason) -> None:
    assert reason in {
        one for _, one in reasons(patient(**changes), consent(patient={"reference": "Patient/p1"}))
    }


def test_a_rule_nested_too_deep() -> None:
    rule: dict[str, Any] = {"type": "deny"}
    for _ in range(4):
        rule = {"type": "permit", "purpose": purpose("b"), "provision": [rule]}
    assert reasons(consent(provision=rule)) == [(1, EntryReason.TOO_DEEP)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        bundle(consent(), type="batch"),
        bundle(consent(), link=[{"relation": "next", "url": "https://example.org/2"}]),
        bundle(consent(), link="next"),
        json.dumps(consent()).encode(),
    ],
)
def test_what_is_no_whole_bundle(data: bytes) -> None:
    with pytest.raises(DocumentError):
        read_fhir(data, CODES, today=TODAY)


def test_a_bundle_that_states_nothing_withdraws_nobody() -> None:
    assert reasons() == [(0, EntryReason.EMPTY)]
    assert reasons(consent(status="draft")) == [(0, EntryReason.EMPTY)]


def test_lines() -> None:
    data = (
        b"\n".join(json.dumps(one).encode() for one in (patient(), consent(), consent(status="draft")))
        + b"\n"
    )
    register = read_fhir(data, CODES, today=TODAY, lines=True)
    assert (len(register.decisions), register.passed_over) == (1, 1)
    with pytest.raises(ConsentEntryError) as caught:
        read_fhir(data + b'{"resourceType": "Consent"}', CODES, today=TODAY, lines=True)
    assert caught.value.problems == ((4, EntryReason.STATUS),)


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in _paths(one, (*path, key)))]


FULL = [
    patient(),
    consent(
        patient={"reference": "Patient/p1"},
        performer=[{"reference": "Patient/p1"}],
        verification=[{"verified": True}],
        provision={"provision": [
            {"type": "permit", "purpose": purpose("b"), "period": {"start": "2024-06-01", "end": "2030-01-01"}},
        ]},
    ),
]  # fmt: skip
junk = st.sampled_from(
    [None, 0, -1, True, "", "x", [], [[]], [None], {}, {"x": 1}, ["permit"], {"type": "permit"}]
)


@settings(max_examples=600)
@given(where=st.sampled_from(_paths(FULL)[1:]), put=junk, drop=st.booleans())
def test_a_damaged_resource_never_gives_more_consent(where: tuple[Any, ...], put: object, drop: bool) -> None:
    # Another number, or another issuer's, is another patient, not a damaged one.
    assume(
        not (where[:2] == (0, "identifier") and where[-1] in {"value", "system"} and put == "x" and not drop)
    )
    resources = copy.deepcopy(FULL)
    holder: Any = resources
    for key in where[:-1]:
        holder = holder[key]
    if drop and isinstance(holder, dict):
        del holder[where[-1]]
    else:
        holder[where[-1]] = put
    whole = {(one.purpose, one.given_by) for one in read(*FULL).decisions}
    try:
        register = read(*resources) if all(isinstance(one, dict) for one in resources) else None
    except (DataError, DocumentError):
        return
    if register is not None:
        found = {(one.purpose, one.given_by) for one in register.decisions if one.word == "consent"}
        assert found <= whole
        assert {one.patient for one in register.decisions} <= {WHO}


def _codes(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = CODES.model_dump(mode="json")
    change(document)
    return document


@pytest.mark.parametrize(
    "document",
    [
        _codes(lambda it: it.update(purposes=[])),
        _codes(lambda it: it["purposes"].append(it["purposes"][0])),
        _codes(lambda it: it["purposes"][0].update(purpose="everything")),
        _codes(lambda it: it["issuers"].append(it["issuers"][0])),
        _codes(lambda it: it.update(default="registry")),
    ],
)
def test_codes_that_say_nothing_clear_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ConsentCodes.model_validate(document)
