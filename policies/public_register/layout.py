"""The frame of every page: landmarks, navigation, language switch, style, and a policy for the browser that allows nothing else.

Aims at WCAG 2.2 AA: a language on every part, one h1 and an unbroken order of headings, a skip link, visible focus, contrast of
7:1 or more, text that reflows, nothing that moves or asks for a script. Prints without its navigation.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from policies.public_register.facts import Facts
from policies.public_register.markup import Content, Html, escape, join, tag
from policies.public_register.words import Language, day, say

PAGES: Final = ("home", "hospitals", "objection", "decisions")
FILES: Final = {
    "home": "index.html",
    "hospitals": "hospitals.html",
    "objection": "objection.html",
    "decisions": "decisions.html",
}

_STYLE: Final = """
:root{color-scheme:light}
*{box-sizing:border-box}
html{font-size:100%}
body{margin:0;background:#fff;color:#1b1b1b;font:1.0625rem/1.6 system-ui,-apple-system,"Segoe UI",Arial,sans-serif}
a{color:#0b3d91}
a:hover{text-decoration-thickness:.15em}
:focus-visible{outline:.2rem solid #7a2e00;outline-offset:.15rem}
.skip{position:absolute;left:-999rem}
.skip:focus{position:static;display:block;padding:.75rem 1rem}
header,main,footer{max-width:46rem;margin:0 auto;padding:1rem}
header{border-bottom:.125rem solid #0b3d91}
header p{margin:0 0 .5rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:0;padding:0}
nav a{display:inline-block;padding:.35rem 0;min-height:1.5rem}
nav a[aria-current]{font-weight:700;color:#1b1b1b;text-decoration:none}
h1{font-size:1.9rem;line-height:1.25;margin:1rem 0}
h2{font-size:1.4rem;line-height:1.3;margin:2rem 0 .5rem}
h3{font-size:1.15rem;margin:1.25rem 0 .25rem}
.card{border-left:.3rem solid #0b3d91;padding:.1rem 0 .1rem 1rem;margin:1.5rem 0}
.lead{font-size:1.2rem}
dl{margin:.5rem 0}
dt{font-weight:700;margin-top:.6rem}
dd{margin:0;overflow-wrap:anywhere}
.notice{border:.125rem solid #7a2e00;padding:.5rem 1rem}
footer{border-top:.0625rem solid #595959;margin-top:3rem;font-size:.95rem;color:#333}
@media print{nav,.skip,.switch{display:none}body{font-size:11pt}a{color:#000}a[href^="http"]::after{content:" (" attr(href) ")"}}
"""

_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page in one language.

    Attributes:
        name: its file below the language's folder, the same in both languages.
        title: the h1, as text.
        document: the title is a document's, in the documents' language.
        content: what follows the h1.
    """

    name: str
    title: str
    document: bool
    content: Html

    @property
    def up(self) -> str:
        """The way to the language's folder."""
        return "../" * self.name.count("/")


def render(facts: Facts, language: Language, documents: Language, page: Page) -> str:
    """Return a whole page.

    Args:
        facts: for the footer.
        language: of the page.
        documents: the language in which the board writes its documents.
        page: what it shows.
    """
    board = facts.charter.title
    heading = tag("h1", page.title, lang=documents.value if page.document else None)
    body = join(
        tag("a", say(language, "skip"), class_="skip", href="#content"),
        _header(facts, language, documents, page),
        tag("main", heading, page.content, id="content", tabindex="-1"),
        _footer(facts, language, page),
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{page.title} - {say(language, 'register')} - {board}"),
        tag("link", rel="alternate", hreflang=language.other.value, href=_other(language, page)),
        tag(
            "link",
            rel="alternate",
            type="application/atom+xml",
            href=f"{page.up}feed.xml",
            title=say(language, "feed"),
        ),
        Html(f"<style>{_STYLE}</style>"),
    )
    return f'<!DOCTYPE html>\n<html lang="{escape(language.value)}"><head>{head.source}</head><body>{body.source}</body></html>\n'


def in_document_language(documents: Language, name: str, *content: Content) -> Html:
    """Return an element that holds a document's own text: it is in the language that the board writes in."""
    return tag(name, *content, lang=documents.value)


def facts_list(*pairs: tuple[str, Content | list[Html]]) -> Html:
    """Return a description list; a list of items becomes several descriptions."""
    items: list[Html] = []
    for term, description in pairs:
        items.append(tag("dt", term))
        found = description if isinstance(description, list) else [description]
        items += [tag("dd", item) for item in found]
    return tag("dl", items)


def _header(facts: Facts, language: Language, documents: Language, page: Page) -> Html:
    links = [
        tag(
            "li",
            tag(
                "a",
                say(language, name),
                href=f"{page.up}{FILES[name]}",
                aria_current="page" if FILES[name] == page.name else None,
            ),
        )
        for name in PAGES
    ]
    switch = tag(
        "p",
        tag("a", say(language, "in_other_language"), href=_other(language, page), hreflang=language.other.value,
            lang=language.other.value),
        class_="switch",
    )  # fmt: skip
    return tag(
        "header",
        tag(
            "p",
            tag("strong", say(language, "register")),
            " - ",
            in_document_language(documents, "span", facts.charter.title),
        ),
        switch,
        tag("nav", tag("ul", links), aria_label=say(language, "nav")),
    )


def _footer(facts: Facts, language: Language, page: Page) -> Html:
    state = facts.state
    where = f"{page.up}../register.json"
    return tag(
        "footer",
        tag("p", say(language, "footer", board=facts.charter.title, date=day(language, facts.now))),
        tag(
            "p",
            say(
                language, "versions", root=state.root_version, targets=state.targets_version,
                timestamp=state.timestamp_version,
            ),
            " ",
            tag("a", say(language, "machine_readable"), " (JSON)", href=where),
            " ",
            tag("a", say(language, "feed"), href=f"{page.up}feed.xml"),
        ),
    )  # fmt: skip


def _other(language: Language, page: Page) -> str:
    return f"{page.up}../{language.other.value}/{page.name}"
