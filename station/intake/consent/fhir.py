"""The consent register as FHIR R4 `Consent`: a strict subset, read whole or not at all.

A Bundle (`collection`, or a `searchset` that is complete), or NDJSON: Consents, and the Patients they are about. What the subset
cannot read refuses the file with a reason per entry: left out, an entry could be an objection that nobody sees.

What counts (HL7 FHIR 4.0.1, Consent): `status` active; rejected is an objection; draft, proposed, inactive and entered-in-error
say nothing. `scope` research or patient-privacy; treatment and adr say nothing here. `patient` by a reference to a Patient in the
file or by identifier. `performer` the patient (or nobody named) or a RelatedPerson, who counts as a parent and so until 16.
`policyRule` OPTOUT is an objection to everything, OPTIN and OPTINR add nothing by themselves. `provision`: a rule is permit or deny,
about purposes and for a period, with rules inside; the root may be without type and then only holds rules. A rule that is
narrowed in another way (actor, action, class, code, data, ...) is not read. Pure; an error never holds a value.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

from policies.documents import parse_json
from policies.errors import DocumentError
from station.intake.consent.codes import ConsentCodes
from station.intake.consent.decisions import (
    Decision,
    GivenBy,
    PatientFacts,
    PatientId,
    Purpose,
    Register,
    Word,
)
from station.intake.consent.fhir_elements import (
    ConsentEntryError,
    EntryReason,
    Refusal,
    Resource,
    check_elements,
    codings,
    day_of,
    items,
    refuse_unless,
    word_of,
)
from station.intake.consent.fhir_patients import Patients, read_patients

MAX_FHIR_BYTES = 64 << 20
MAX_RULE_DEPTH = 4

_SCOPES = "http://terminology.hl7.org/CodeSystem/consentscope"
_ACT_CODES = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_SILENT_STATUS = frozenset({"draft", "proposed", "inactive", "entered-in-error"})
_READ = frozenset(
    {"status", "scope", "patient", "dateTime", "performer", "policyRule", "provision", "verification"}
)
_ABOUT = frozenset(
    {"resourceType", "id", "meta", "language", "text", "extension", "identifier", "category", "organization",
     "sourceAttachment", "sourceReference", "policy"}
)  # fmt: skip
_RULE = frozenset({"id", "extension", "type", "period", "purpose", "provision"})
_BYSTANDERS = frozenset({"Patient", "RelatedPerson", "Organization", "Practitioner", "PractitionerRole"})


_Period = tuple[date | None, date | None]
_ALWAYS: _Period = (None, None)


@dataclass(frozen=True, slots=True)
class _Stated:
    """What one Consent says, before it is given to its patients."""

    made: date
    givers: tuple[GivenBy, ...]


def read_fhir(data: bytes, codes: ConsentCodes, *, today: date, lines: bool = False) -> Register:
    """Read a whole register.

    Args:
        data: a Bundle, or NDJSON where `lines`.
        codes: what codes and identifier systems mean here.
        today: when a death that is stated without its date is taken to have been.
        lines: whether it is NDJSON: one resource per line.

    Raises:
        ConsentEntryError: naming entries by their index (from 1) and why each is refused.
        DocumentError: not JSON, too large, nested too deep.
    """
    entries = list(_lines(data) if lines else _bundle(data))
    problems: list[tuple[int, EntryReason]] = []
    patients = read_patients(((index, url, it) for index, url, it in entries), codes, today, problems)
    decisions: dict[Decision, None] = {}
    passed_over = 0
    for index, _, resource in entries:
        try:
            kind = word_of(resource.get("resourceType"))
            if kind != "Consent":
                refuse_unless(kind in _BYSTANDERS, EntryReason.RESOURCE_TYPE)
                continue
            found = _consent(resource, codes, patients)
        except Refusal as refusal:
            problems.append((index, refusal.reason))
            continue
        passed_over += not found
        decisions.update(dict.fromkeys(found))
    if problems:
        raise ConsentEntryError(sorted(problems))
    if not decisions:
        raise ConsentEntryError([(0, EntryReason.EMPTY)])
    return Register(tuple(decisions), patients.facts, passed_over)


def _bundle(data: bytes) -> Iterator[tuple[int, str | None, Resource]]:
    bundle = parse_json(data, what="consent bundle", max_bytes=MAX_FHIR_BYTES)
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise DocumentError("consent bundle: is not a FHIR Bundle")
    if word_of(bundle.get("type")) not in {"collection", "searchset"} or "implicitRules" in bundle:
        raise DocumentError("consent bundle: its type is neither collection nor searchset")
    links = bundle.get("link", [])
    if not isinstance(links, list) or any(
        not isinstance(link, dict) or link.get("relation") == "next" for link in links
    ):
        raise DocumentError(
            "consent bundle: is one page of several", hint="Export all pages into one Bundle, or as NDJSON."
        )
    listed = bundle.get("entry", [])
    for index, entry in enumerate(listed if isinstance(listed, list) else [None], start=1):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            raise ConsentEntryError([(index, EntryReason.RESOURCE_TYPE)])
        url = entry.get("fullUrl")
        yield index, url if isinstance(url, str) else None, resource


def _lines(data: bytes) -> Iterator[tuple[int, str | None, Resource]]:
    if len(data) > MAX_FHIR_BYTES:
        raise DocumentError(f"consent: {len(data)} bytes; at most {MAX_FHIR_BYTES} are read")
    for index, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        resource = parse_json(line, what=f"consent, line {index}")
        if not isinstance(resource, dict):
            raise ConsentEntryError([(index, EntryReason.RESOURCE_TYPE)])
        yield index, None, resource


def _consent(resource: Resource, codes: ConsentCodes, patients: Patients) -> list[Decision]:
    """Return the decisions of one Consent; none where it says nothing now."""
    check_elements(resource, _READ | _ABOUT)
    status = word_of(resource.get("status"))
    if status in _SILENT_STATUS:
        return []
    refuse_unless(status in {"active", "rejected"}, EntryReason.STATUS)
    if not _concerns_us(resource):
        return []
    made = day_of(resource.get("dateTime"), EntryReason.DATE)
    bearers = patients.of(resource.get("patient"), codes)
    stated = _Stated(made, _givers(resource, bearers, patients))
    decisions = [*_policy_rule(resource, stated), *_provision(resource, codes, stated)]
    if status == "rejected":
        refused = tuple({decision.purpose: None for decision in decisions}) or tuple(Purpose)
        decisions = list(_decide(stated, "objection", refused, _ALWAYS))
    refuse_unless(bool(decisions), EntryReason.STATES_NOTHING)
    if any(decision.word == "consent" for decision in decisions):
        _verified(resource)
    found = [replace(decision, patient=bearer) for bearer in bearers for decision in decisions]
    for bearer in bearers:
        born = patients.facts.get(bearer, PatientFacts()).birth_date
        refuse_unless(born is None or born <= made, EntryReason.DATE)
    return found


def _concerns_us(resource: Resource) -> bool:
    scopes = {
        word_of(code)
        for system, code in codings(resource.get("scope"), EntryReason.SCOPE)
        if system == _SCOPES
    }
    refuse_unless(
        bool(scopes) and scopes <= {"research", "patient-privacy", "treatment", "adr"}, EntryReason.SCOPE
    )
    return bool(scopes & {"research", "patient-privacy"})


def _givers(resource: Resource, bearers: tuple[PatientId, ...], patients: Patients) -> tuple[GivenBy, ...]:
    named = items(resource.get("performer"), EntryReason.PERFORMER)
    if not named:
        return (GivenBy.PATIENT,)
    found = set()
    for performer in named:
        reference = word_of(performer.get("reference"))
        itself = reference == word_of(resource["patient"].get("reference"))
        if reference and (itself or patients.by_reference.get(reference) == bearers):
            found.add(GivenBy.PATIENT)
            continue
        kind = reference.rpartition("/")[0].rpartition("/")[2]
        refuse_unless(kind == "RelatedPerson" or reference in patients.relatives, EntryReason.PERFORMER)
        found.add(GivenBy.PARENT)
    return tuple(sorted(found))


def _policy_rule(resource: Resource, stated: _Stated) -> Iterator[Decision]:
    if "policyRule" not in resource:
        return
    for system, code in codings(resource["policyRule"], EntryReason.POLICY_RULE):
        refuse_unless(system == _ACT_CODES and code in {"OPTIN", "OPTINR", "OPTOUT"}, EntryReason.POLICY_RULE)
        if code == "OPTOUT":
            yield from _decide(stated, "objection", tuple(Purpose), _ALWAYS)


def _provision(resource: Resource, codes: ConsentCodes, stated: _Stated) -> Iterator[Decision]:
    if "provision" not in resource:
        return
    root = resource["provision"]
    refuse_unless(isinstance(root, dict), EntryReason.PROVISION_TYPE)
    if root.get("type") is not None:
        yield from _rule(root, codes, stated, _ALWAYS, None, MAX_RULE_DEPTH)
        return
    check_elements(root, _RULE)
    refuse_unless("purpose" not in root, EntryReason.PROVISION_TYPE)
    period = _period(root, _ALWAYS)
    for rule in items(root.get("provision"), EntryReason.PROVISION_TYPE):
        yield from _rule(rule, codes, stated, period, None, MAX_RULE_DEPTH - 1)


def _rule(
    rule: Resource,
    codes: ConsentCodes,
    stated: _Stated,
    around: _Period,
    parent: str | None,
    depth: int,
) -> Iterator[Decision]:
    check_elements(rule, _RULE)
    refuse_unless(depth > 0, EntryReason.TOO_DEEP)
    kind = word_of(rule.get("type"))
    refuse_unless(kind in {"permit", "deny"}, EntryReason.PROVISION_TYPE)
    purposes = tuple(_purpose(coding, codes) for coding in items(rule.get("purpose"), EntryReason.PURPOSE))
    period = _period(rule, around)
    if kind == "permit":
        refuse_unless(parent != "deny", EntryReason.PERMIT_INSIDE_DENY)
        refuse_unless(bool(purposes), EntryReason.PURPOSE)
        refuse_unless(
            period[1] is None or period[1] >= max(stated.made, period[0] or stated.made), EntryReason.PERIOD
        )
        yield from _decide(stated, "consent", purposes, period)
    else:
        ends = isinstance(rule.get("period"), dict) and "end" in rule["period"]
        refuse_unless(not ends, EntryReason.OBJECTION_ENDS)
        yield from _decide(stated, "objection", purposes or tuple(Purpose), _ALWAYS)
    for inner in items(rule.get("provision"), EntryReason.PROVISION_TYPE):
        yield from _rule(inner, codes, stated, period, kind, depth - 1)


def _decide(
    stated: _Stated,
    word: Word,
    purposes: tuple[Purpose, ...],
    period: _Period,
) -> Iterator[Decision]:
    nobody = PatientId("", "")
    for giver in stated.givers:
        for purpose in purposes:
            yield Decision(nobody, purpose, word, stated.made, giver, *period)


def _purpose(coding: Resource, codes: ConsentCodes) -> Purpose:
    purpose = codes.purpose(coding.get("system"), coding.get("code"))
    if purpose is None:
        raise Refusal(EntryReason.PURPOSE_UNKNOWN)
    return purpose


def _period(rule: Resource, around: _Period) -> _Period:
    """Return the days a rule is for, no wider than those of the rule around it."""
    period = rule.get("period", {})
    refuse_unless(isinstance(period, dict) and set(period) <= {"start", "end"}, EntryReason.PERIOD)
    start = day_of(period["start"], EntryReason.PERIOD) if "start" in period else None
    end = day_of(period["end"], EntryReason.PERIOD) if "end" in period else None
    starts = [day for day in (start, around[0]) if day is not None]
    ends = [day for day in (end, around[1]) if day is not None]
    return max(starts, default=None), min(ends, default=None)


def _verified(resource: Resource) -> None:
    for verification in items(resource.get("verification"), EntryReason.NOT_VERIFIED):
        refuse_unless(verification.get("verified") is True, EntryReason.NOT_VERIFIED)
