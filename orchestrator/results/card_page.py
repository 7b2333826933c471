"""The model card as a page of Markdown. Everything of a document in it is text: no markup of its own, in Markdown or in HTML."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from policies.console import visible

ROUNDS_SHOWN: Final = 20
"""Rounds in the page's table; the others are in the card and in the metrics."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@:-])")
_TITLES: Final = {
    "details": "Details", "use": "Intended use", "policy": "Policy", "data": "Data", "development": "How it was made",
    "release": "What could leave a hospital", "stations": "Stations",
}  # fmt: skip


def card_page(card: Mapping[str, Any]) -> str:
    """Return the page."""
    return "\n".join(_lines(card)) + "\n"


def text(value: object) -> str:
    r"""Return a value as text that no reader of Markdown or HTML takes for anything else.

    >>> text("<b> [x](javascript:1)\n# y")
    '&lt;b&gt; \\[x\\]\\(javascript\\:1\\) \\# y'
    """
    shown = " ".join(visible(str(value)).split())
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(sign, name)
    return _SPECIAL.sub(r"\\\1", shown)


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    details = card["details"]
    yield f"# {text(details['title'])}"
    yield ""
    yield f"{text(details['name'])} {text(details['version'])}. {text(card['outcome']['words'])}"
    for name, title in _TITLES.items():
        yield from ("", f"## {title}", "")
        yield from _section(card[name])
    yield from ("", "## Performance", "")
    yield from _performance(card["performance"])
    yield from ("", "## Limitations", "")
    yield from (f"- {text(line)}" for line in card["limitations"])
    yield from ("", "## Made with", "")
    yield from _section(card["software"])


def _section(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        label = text(str(name).replace("_", " "))
        if isinstance(value, Mapping):
            yield f"{indent}- {label}:" if value else f"{indent}- {label}: none"
            yield from _section(value, indent + "  ")
        elif isinstance(value, list | tuple):
            yield f"{indent}- {label}: {_items(value)}"
        else:
            yield f"{indent}- {label}: {text(_word(value))}"


def _items(values: "list[Any] | tuple[Any, ...]") -> str:
    parts = [
        " ".join(text(each) for each in value.values()) if isinstance(value, Mapping) else text(_word(value))
        for value in values
    ]
    return "; ".join(parts) or "none"


def _word(value: object) -> object:
    return (
        {True: "yes", False: "no", None: "none"}.get(value, value)
        if value is None or isinstance(value, bool)
        else value
    )


def _performance(performance: Mapping[str, Any]) -> Iterator[str]:
    for metric in performance["metrics"]:
        yield (
            f"- {text(metric['metric'])} ({text(metric['stage'])}): on {text(metric['patients'])} patients, from "
            f"{metric['minimum']:g} to {metric['maximum']:g}, stated by {text(metric['stated_by'])}"
        )
    names = [(metric["stage"], metric["metric"]) for metric in performance["metrics"]]
    if not performance["rounds"] or not names:
        yield "No metric was released."
        return
    yield ""
    yield f"Pooled {text(performance['pooled_means'])}."
    yield ""
    yield "| round | stations | " + " | ".join(f"{text(stage)} {text(key)}" for stage, key in names) + " |"
    yield "|---" * (2 + len(names)) + "|"
    for entry in performance["rounds"][-ROUNDS_SHOWN:]:
        cells = (_cell(entry, stage, key) for stage, key in names)
        yield f"| {text(entry['round'])} | {text(entry['stations'])} | " + " | ".join(cells) + " |"
    last = performance["rounds"][-1].get("by_station")
    for stage, stations in (last or {}).items():
        for station, values in sorted(stations.items()):
            released = ", ".join(f"{text(key)} {value:g}" for key, value in sorted(values.items()))
            yield f"- last round, {text(stage)}, {text(station)}: {released or 'nothing released'}"
    for code, words in performance["withheld_because"].items():
        yield f"- {text(code)}: not told, since {text(words)}"


def _cell(entry: Mapping[str, Any], stage: str, key: str) -> str:
    value = (entry["pooled"].get(stage) or {}).get(key)
    if value is not None:
        return f"{value:g}"
    return text((entry["withheld"].get(stage) or {}).get(key, "-"))
