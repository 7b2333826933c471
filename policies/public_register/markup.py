"""Making HTML in which nothing of a document is markup: text is escaped where it becomes a node, and nowhere else.

`Html` is what is markup already, made here only; a plain `str` is text, whoever wrote it. Characters that hide or turn text
around are replaced, so that a page shows what its reader would sign for.
"""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from policies.console import visible

VOID: Final = frozenset({"meta", "link", "br"})


@dataclass(frozen=True, slots=True)
class Html:
    """Markup; `source` is written as it is."""

    source: str


Content = Html | str | None


def tag(name: str, /, *content: Content | Iterable[Content], **attributes: str | None) -> Html:
    r"""Return an element.

    Args:
        name: the element's.
        content: text, which is escaped, or markup; None is nothing.
        attributes: escaped; a trailing underscore is dropped (``class_``), other underscores become hyphens; None is absent.

    >>> tag("p", "1 < 2", tag("b", "!"), class_='a"b').source
    '<p class="a&quot;b">1 &lt; 2<b>!</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*content).source}</{name}>")


def join(*content: Content | Iterable[Content]) -> Html:
    """Return several nodes as one piece of markup."""
    return Html("".join(_one(item) for item in content))


def escape(text: str) -> str:
    r"""Return a text that is nothing but text, in an element or in an attribute.

    >>> escape("<script>\u202e&")
    '&lt;script&gt;�&amp;'
    """
    return html.escape(visible(text), quote=True)


def _one(item: Content | Iterable[Content]) -> str:
    if item is None:
        return ""
    if isinstance(item, Html):
        return item.source
    if isinstance(item, str):
        return escape(item)
    return "".join(_one(each) for each in item)
