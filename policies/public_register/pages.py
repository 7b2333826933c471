"""The register's other pages: what runs, the hospitals, objecting, decisions and outcomes."""

import re

from policies.public_register.facts import Facts, Hospital, Study
from policies.public_register.layout import FILES, Page, facts_list, in_document_language
from policies.public_register.markup import Content, Html, join, tag
from policies.public_register.study_page import period, study_file, summary
from policies.public_register.words import Language, day, say

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_WEB = re.compile(r"https://[A-Za-z0-9.-]+(?:/[^\s<>\"']*)?")


def home_page(facts: Facts, language: Language, documents: Language) -> Page:
    """Return what runs now, and who decided that."""
    charter = facts.charter
    roles = ", ".join(say(language, f"role.{role}") for role in charter.required_roles)
    decided = say(
        language,
        "decided_by_text",
        threshold=charter.threshold,
        roles=say(language, "roles_required", roles=roles) if roles else "",
    )
    members = [
        tag(
            "li",
            _own(documents, member.name),
            f", {say(language, f'role.{member.role}')}, ",
            _own(documents, member.organisation),
        )
        for member in charter.members
    ]
    return Page(
        FILES["home"],
        say(language, "home"),
        document=False,
        content=join(
            tag("p", say(language, "intro"), class_="lead"),
            tag("p", tag("a", say(language, "object_here"), href=FILES["objection"])),
            tag("h2", say(language, "studies")),
            [_card(study, language, documents) for study in facts.studies]
            or tag("p", say(language, "none_in_force")),
            tag("h2", say(language, "decided_by")),
            tag("p", decided),
            tag("p", say(language, "decided_by_development")) if charter.development_keys else None,
            tag("ul", members),
        ),
    )


def hospitals_page(facts: Facts, language: Language, documents: Language) -> Page:
    """Return which hospitals may take part, and in what."""
    sections = [_hospital(facts, hospital, language, documents) for hospital in facts.hospitals]
    return Page(
        FILES["hospitals"],
        say(language, "hospitals"),
        document=False,
        content=join(
            tag("p", say(language, "hospitals_text")),
            sections or tag("p", say(language, "no_hospitals")),
        ),
    )


def objection_page(facts: Facts, language: Language, documents: Language) -> Page:
    """Return how a patient objects, and whom to turn to."""
    steps = ("step_recorded", "step_stopped", "step_later", "step_not")
    contacts = [
        join(
            tag("h3", _own(documents, hospital.station.organisation)),
            tag("p", _contact(hospital.contact) if hospital.contact else say(language, "ask_hospital")),
        )
        for hospital in facts.hospitals
    ]
    return Page(
        FILES["objection"],
        say(language, "objection"),
        document=False,
        content=join(
            tag("p", say(language, "objection_intro"), class_="lead"),
            tag("h2", say(language, "how_asked")),
            tag("p", say(language, "opt_in_text")),
            tag("p", say(language, "opt_out_text")),
            tag("p", tag("a", say(language, "which_mode"), href=FILES["home"])),
            tag("h2", say(language, "what_happens")),
            tag("ol", [tag("li", say(language, step)) for step in steps]),
            tag("h2", say(language, "where_to_object")),
            contacts or tag("p", say(language, "no_hospitals")),
            tag("p", say(language, "complaint")),
        ),
    )


def decisions_page(facts: Facts, language: Language, documents: Language) -> Page:
    """Return what came of studies, what was refused, and what was withdrawn."""
    outcomes = [
        join(
            tag(
                "h3",
                tag("code", outcome.policy_id),
                f", {say(language, 'version').lower()} {outcome.version}",
            ),
            tag(
                "p",
                say(language, "on", date=day(language, outcome.when)),
                ": ",
                _in(language, outcome.summary.nl, outcome.summary.en),
            ),
            tag(
                "p",
                tag(
                    "a",
                    say(language, "reference"),
                    ": ",
                    outcome.reference,
                    href=outcome.reference,
                    rel="noopener noreferrer",
                ),
            )
            if outcome.reference
            else None,
        )
        for outcome in reversed(facts.outcomes)
    ]
    refused = [
        join(
            tag("h3", _own(documents, request.title)),
            facts_list(
                (say(language, "requested_by"), _own(documents, request.organisation)),
                (say(language, "reason"), _in(language, request.reason.nl, request.reason.en)),
            ),
            tag("p", say(language, "on", date=day(language, request.when)), "."),
        )
        for request in reversed(facts.refused)
    ]
    withdrawn = _withdrawn(facts, language, documents)
    return Page(
        FILES["decisions"],
        say(language, "decisions"),
        document=False,
        content=join(
            tag("h2", say(language, "outcomes")),
            outcomes or tag("p", say(language, "no_outcomes")),
            tag("h2", say(language, "refused")),
            refused or tag("p", say(language, "no_refused")),
            tag("h2", say(language, "withdrawn")),
            tag("ul", withdrawn) if withdrawn else tag("p", say(language, "no_withdrawn")),
        ),
    )


def _card(study: Study, language: Language, documents: Language) -> Html:
    policy = study.policy
    # The link's text alone says where it goes, also to who hears only the links.
    return tag(
        "section",
        tag("h3", tag("a", policy.title, href=study_file(study), lang=documents.value)),
        tag("p", say(language, "development"), class_="notice") if policy.role == "development" else None,
        tag("p", summary(study, language)),
        tag("p", say(language, "requested_by"), " ", _own(documents, policy.requester.organisation), "."),
        period(study, language),
        class_="card",
    )


def _hospital(facts: Facts, hospital: Hospital, language: Language, documents: Language) -> Html:
    station = hospital.station
    until = day(language, station.agreement.expires)
    if hospital.withdrawn is not None:
        standing: Content = say(language, "station_withdrawn", date=day(language, hospital.withdrawn))
    elif not hospital.open:
        standing = say(language, "agreement_over", date=until)
    else:
        standing = say(language, "agreement_until", reference=station.agreement.reference, date=until)
    running = [
        study
        for study in facts.studies
        if study.begun and not study.over and hospital.takes_part_in(study.policy.id)
    ]
    links = [
        tag("li", tag("a", study.policy.title, href=study_file(study), lang=documents.value))
        for study in running
    ]
    return join(
        tag("h2", _own(documents, station.organisation)),
        tag("p", say(language, "country"), ": ", station.country, ". ", standing),
        tag("p", say(language, "may_run_here" if links else "nothing_here")),
        tag("ul", links) if links else None,
    )


def _withdrawn(facts: Facts, language: Language, documents: Language) -> list[Html]:
    told = [
        *((entry.when, say(language, "withdrawn_policy", id=entry.policy_id, version=entry.version), entry.reason)
          for entry in facts.revocations.revoked),
        *((entry.when, say(language, "withdrawn_requester", key=entry.key[:16]), entry.reason)
          for entry in facts.revocations.requesters),
        *((entry.when, say(language, "withdrawn_station", name=entry.name), entry.reason)
          for entry in facts.revocations.stations),
    ]  # fmt: skip
    return [
        tag(
            "li",
            what,
            ". ",
            say(language, "on", date=day(language, when)),
            ". ",
            say(language, "reason"),
            ": ",
            _own(documents, reason),
        )
        for when, what, reason in sorted(told, reverse=True)
    ]


def _contact(text: str) -> Html:
    """Return a contact in which an address or an https page is a link, and everything else text."""
    parts: list[Content] = []
    for word in re.split(r"(\s+)", text):
        bare = word.rstrip(".,;")
        if _EMAIL.fullmatch(bare):
            parts += [tag("a", bare, href=f"mailto:{bare}"), word[len(bare) :]]
        elif _WEB.fullmatch(bare):
            parts += [tag("a", bare, href=bare, rel="noopener noreferrer"), word[len(bare) :]]
        else:
            parts.append(word)
    return join(*parts)


def _own(documents: Language, text: str) -> Html:
    return in_document_language(documents, "span", text)


def _in(language: Language, nl: str, en: str) -> str:
    return nl if language is Language.NL else en
