"""Writes the register as files that any web server serves: two folders, one per language, and what programs read.

Only files of its own are written or removed; each is whole or absent. The same state gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from policies.errors import UsageError
from policies.files import write_atomically
from policies.public_register.facts import Facts, facts_of
from policies.public_register.feeds import atom_feed, register_json
from policies.public_register.layout import CONTENT_SECURITY_POLICY, FILES, Page, render
from policies.public_register.markup import join, tag
from policies.public_register.pages import decisions_page, home_page, hospitals_page, objection_page
from policies.public_register.study_page import study_page
from policies.public_register.words import Language, say
from policies.trust.policy_set import PolicySet


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What the register says that no document of the board does.

    Attributes:
        contacts: where patients of a hospital turn to, by station.
        documents: the language in which the board writes its documents (summaries are in both).
    """

    contacts: Mapping[str, str] = field(default_factory=dict)
    documents: Language = Language.EN


def write_site(found: PolicySet, out: Path, options: SiteOptions, now: datetime) -> tuple[str, ...]:
    """Write the register.

    Args:
        found: the verified state that it shows.
        out: its folder; made where missing, and then either empty or an earlier register.
        options: what to say besides.
        now: the moment it is of.

    Returns:
        The files, below `out`.

    Raises:
        UsageError: the folder holds something else, or a contact is of no registered hospital.
        TrustError: the secretary's decisions cannot be read.
        StorageError: a file cannot be written.
    """
    known = set() if found.register is None else {station.name for station in found.register.stations}
    if unknown := sorted(options.contacts.keys() - known):
        raise UsageError(f"{unknown[0]}: no hospital of this name is registered")
    if out.is_dir() and any(out.iterdir()) and not (out / "register.json").is_file():
        raise UsageError(f"{out.name}: holds something else than a register", hint="Name an empty folder.")
    files = site_files(facts_of(found, options.contacts, now), options)
    for name, data in files.items():
        write_atomically(out / name, data)
    for language in Language:
        for path in (out / language.value / "studies").glob("*.html"):
            if f"{language.value}/studies/{path.name}" not in files:
                path.unlink()
    return tuple(sorted(files))


def site_files(facts: Facts, options: SiteOptions) -> dict[str, bytes]:
    """Return every file of the register by its place."""
    files = {"index.html": _choice(facts), "register.json": register_json(facts)}
    for language in Language:
        pages: list[Page] = [
            home_page(facts, language, options.documents),
            hospitals_page(facts, language, options.documents),
            objection_page(facts, language, options.documents),
            decisions_page(facts, language, options.documents),
            *(study_page(facts, study, language, options.documents) for study in facts.studies),
        ]
        for page in pages:
            files[f"{language.value}/{page.name}"] = render(facts, language, options.documents, page).encode()
        files[f"{language.value}/feed.xml"] = atom_feed(facts, language).encode()
    return files


def _choice(facts: Facts) -> bytes:
    """Return the page that asks for a language, in both."""
    links = [
        tag(
            "li",
            tag("a", say(language, "language"), ": ", say(language, "register"), href=f"{language.value}/{FILES['home']}",
                hreflang=language.value, lang=language.value),
        )
        for language in Language
    ]  # fmt: skip
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        tag("title", facts.charter.title),
    )
    body = tag("main", tag("h1", facts.charter.title), tag("ul", links))
    return f'<!DOCTYPE html>\n<html lang="nl"><head>{head.source}</head><body>{body.source}</body></html>\n'.encode()
