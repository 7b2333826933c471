"""The register for programs: JSON with all of it, and an Atom feed (RFC 4287) of what changed."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from policies.documents import canonical_json, format_moment
from policies.public_register.facts import Facts, Study
from policies.public_register.layout import FILES
from policies.public_register.markup import escape
from policies.public_register.study_page import study_file, summary
from policies.public_register.words import Language, say


def register_json(facts: Facts) -> bytes:
    """Return everything that the pages show, as one JSON document."""
    document: dict[str, JsonValue] = {
        "schema_version": 1,
        "board": {"name": facts.charter.board, "title": facts.charter.title},
        "as_of": format_moment(facts.now),
        "repository": {
            "root_version": facts.state.root_version,
            "targets_version": facts.state.targets_version,
            "timestamp_version": facts.state.timestamp_version,
        },
        "studies": [_study(study) for study in facts.studies],
        "hospitals": [
            {
                "name": hospital.station.name,
                "organisation": hospital.station.organisation,
                "country": hospital.station.country,
                "agreement": hospital.station.agreement.model_dump(mode="json"),
                "may_take_part": hospital.open,
                "contact": hospital.contact,
            }
            for hospital in facts.hospitals
        ],
        "refused": [request.model_dump(mode="json") for request in facts.refused],
        "outcomes": [outcome.model_dump(mode="json") for outcome in facts.outcomes],
        "withdrawn": facts.revocations.model_dump(mode="json", exclude={"schema_version"}),
    }
    return canonical_json(document)


def atom_feed(facts: Facts, language: Language) -> str:
    """Return the feed in one language; the newest first, dated by the documents and not by the clock."""
    entries = sorted(_entries(facts, language), key=lambda entry: (entry.when, entry.id), reverse=True)
    updated = format_moment(entries[0].when if entries else facts.now)
    title = f"{say(language, 'register')} - {facts.charter.title}"
    written = "".join(_entry(entry) for entry in entries)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="{language.value}">'
        f"<id>urn:pht:register:{escape(facts.charter.board)}:{language.value}</id><title>{escape(title)}</title>"
        f"<updated>{updated}</updated><author><name>{escape(facts.charter.title)}</name></author>{written}</feed>\n"
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    id: str
    when: datetime
    title: str
    text: str
    page: str


def _study(study: Study) -> JsonValue:
    policy = study.policy
    return {
        "policy": policy.model_dump(mode="json"),
        "digest": study.digest,
        "signed_by": [{"name": member.name, "role": member.role} for member in study.signers],
        "opinions": [
            {
                "member": found.member.name,
                "role": found.member.role,
                "verdict": found.opinion.verdict,
                "text": found.opinion.text,
            }
            for found in study.opinions
        ],
        "capacity": {
            "bits_per_round": round(study.capacity.bits_per_round),
            "bits_per_run": round(study.capacity.bits_per_run),
            "radiographs_per_run": round(study.capacity.radiographs, 1),
        },
        "begun": study.begun,
        "over": study.over,
    }


def _entries(facts: Facts, language: Language) -> list[_Entry]:
    board, decisions = facts.charter.board, FILES["decisions"]
    found = [
        _Entry(
            f"urn:pht:policy:{board}:{study.policy.id}:{study.policy.version}",
            study.policy.valid_from,
            study.policy.title,
            summary(study, language),
            study_file(study),
        )
        for study in facts.studies
    ]
    for place, outcome in enumerate(facts.outcomes):
        text = outcome.summary.nl if language is Language.NL else outcome.summary.en
        title = f"{say(language, 'outcome')}: {outcome.policy_id}"
        found.append(_Entry(f"urn:pht:outcome:{board}:{place}", outcome.when, title, text, decisions))
    for place, request in enumerate(facts.refused):
        text = request.reason.nl if language is Language.NL else request.reason.en
        title = f"{say(language, 'refused')}: {request.title}"
        found.append(_Entry(f"urn:pht:refused:{board}:{place}", request.when, title, text, decisions))
    for entry in facts.revocations.revoked:
        what = say(language, "withdrawn_policy", id=entry.policy_id, version=entry.version)
        title = f"{say(language, 'withdrawn')}: {what}"
        name = f"urn:pht:withdrawn:{board}:{entry.policy_id}:{entry.version}"
        found.append(_Entry(name, entry.when, title, entry.reason, decisions))
    for requester in facts.revocations.requesters:
        title = (
            f"{say(language, 'withdrawn')}: {say(language, 'withdrawn_requester', key=requester.key[:16])}"
        )
        name = f"urn:pht:withdrawn:{board}:requester:{requester.key}"
        found.append(_Entry(name, requester.when, title, requester.reason, decisions))
    for station in facts.revocations.stations:
        title = f"{say(language, 'withdrawn')}: {say(language, 'withdrawn_station', name=station.name)}"
        name = f"urn:pht:withdrawn:{board}:station:{station.name}"
        found.append(_Entry(name, station.when, title, station.reason, decisions))
    return found


def _entry(entry: _Entry) -> str:
    return (
        f"<entry><id>{escape(entry.id)}</id><title>{escape(entry.title)}</title>"
        f"<updated>{format_moment(entry.when)}</updated>"
        f'<link rel="alternate" href="{escape(entry.page)}"/><summary>{escape(entry.text)}</summary></entry>'
    )
