"""A mirror report as a page of its own, in Dutch and English: no script, no request, nothing but text and drawn lines.

Everything that a document says becomes text (`policies.public_register.markup`); the drawing is numbers of ours.
"""

from collections.abc import Iterator
from typing import Final, Literal

from policies.mirror_report import MirrorCells, MirrorReport, MirrorTable, MirrorValue, cell_text
from policies.public_register.markup import Html, tag
from policies.withheld import DIFFERENCE, MINIMUM_POOLED, PARTLY, TELLS_ONE, TOO_FEW

Language = Literal["nl", "en"]

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:2.2rem}section{margin:2rem 0}"
)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_WORDS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "title": "Mirror report of {station}",
        "about": "{train}: {title}. Policy {policy}, version {version}.",
        "rounds": "The run {state} after {rounds} of {ordered} rounds; this hospital took part in {own}.",
        "finished": "finished", "failed": "failed", "stopped": "was stopped",
        "stage": "Of", "train": "training", "evaluate": "evaluation", "analyse": "analysis",
        "value": "Value in round {round}", "own": "This hospital", "pooled": "All {count} hospitals together",
        "lowest": "Lowest of {others} others", "median": "Middle of {others} others", "highest": "Highest of {others} others",
        "none": "not released", "not_told": "not told: {why}", "no_spread": "The spread of the others is not told: there are too few of them, or "
        "it would tell nearly what one of them released.",
        "course": "Course over the rounds", "round": "round",
        "footer": "Other hospitals are not named, and each of them sees its own report alone. A pooled value is weighted by numbers of examples.",
        "table": "Table {table} (round {round})", "count": "patients", "sum": "sums", "quantiles": "quantiles: between which two edges each lies",
        "hidden": "hidden", "line": "Line",
        "empty": "No number of this hospital was released in this run.", "order": "Run",
        TOO_FEW: f"fewer than {MINIMUM_POOLED} hospitals released it",
        TELLS_ONE: "it would tell nearly what a single hospital released",
        DIFFERENCE: "other hospitals released it than where it was told before for the same question",
        PARTLY: "a hospital that released other tables did not release this one",
    },
    "nl": {
        "title": "Spiegelrapport van {station}",
        "about": "{train}: {title}. Policy {policy}, versie {version}.",
        "rounds": "De run {state} na {rounds} van {ordered} rondes; dit ziekenhuis deed mee aan {own}.",
        "finished": "was klaar", "failed": "mislukte", "stopped": "werd gestopt",
        "stage": "Van", "train": "training", "evaluate": "evaluatie", "analyse": "analyse",
        "value": "Waarde in ronde {round}", "own": "Dit ziekenhuis", "pooled": "Alle {count} ziekenhuizen samen",
        "lowest": "Laagste van {others} andere", "median": "Middelste van {others} andere", "highest": "Hoogste van {others} andere",
        "none": "niet vrijgegeven", "not_told": "niet verteld: {why}", "no_spread": "De spreiding van de andere wordt niet verteld: het zijn er te "
        "weinig, of zij zou bijna vertellen wat één van hen vrijgaf.",
        "course": "Verloop over de rondes", "round": "ronde",
        "footer": "Andere ziekenhuizen worden niet genoemd, en elk ziet alleen zijn eigen rapport. Een gezamenlijke waarde is gewogen naar "
        "aantallen voorbeelden.",
        "table": "Tabel {table} (ronde {round})", "count": "patiënten", "sum": "sommen", "quantiles": "kwantielen: tussen welke twee grenzen elk ligt",
        "hidden": "verborgen", "line": "Regel",
        "empty": "Van dit ziekenhuis is in deze run geen getal vrijgegeven.", "order": "Run",
        TOO_FEW: f"minder dan {MINIMUM_POOLED} ziekenhuizen gaven haar vrij",
        TELLS_ONE: "zij zou bijna vertellen wat één ziekenhuis vrijgaf",
        DIFFERENCE: "andere ziekenhuizen gaven haar vrij dan waarover zij eerder verteld werd voor dezelfde vraag",
        PARTLY: "een ziekenhuis dat andere tabellen vrijgaf, gaf deze niet vrij",
    },
}  # fmt: skip


def report_page(report: MirrorReport, language: Language) -> str:
    """Return the page, whole."""
    words = _WORDS[language]
    title = words["title"].format(station=report.station)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("meta", name_="viewport", content="width=device-width"),
        tag("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    body = tag("body", tag("h1", title), *_body(report, words, language), lang=language)
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang=language).source + "\n"


def _body(report: MirrorReport, words: dict[str, str], language: Language) -> Iterator[Html]:
    yield tag(
        "p",
        words["about"].format(
            train=report.train,
            title=report.train_title,
            policy=report.policy_title or report.policy_id,
            version=report.policy_version,
        ),
    )
    summary = report.summary_nl if language == "nl" else report.summary_en
    if summary is not None:
        yield tag("p", summary)
    yield tag(
        "p",
        words["rounds"].format(
            state=words[report.state],
            rounds=report.rounds,
            ordered=report.rounds_ordered,
            own=report.rounds_of_station,
        ),
    )
    for value in report.values:
        yield _section(value, words)
    for table in report.tables:
        yield _table(table, words)
    if not report.values and not report.tables:
        yield tag("p", words["empty"])
    yield tag("footer", tag("p", words["footer"]), tag("p", f"{words['order']} {report.order_digest}"))


def _section(value: MirrorValue, words: dict[str, str]) -> Html:
    rows = [
        (words["own"], _number(value.own, value) or words["none"]),
        (
            words["pooled"].format(count=value.hospitals),
            _number(value.pooled, value) or words["not_told"].format(why=words.get(value.code, value.code)),
        ),
    ]
    rows += [
        (words[name].format(others=value.others), text)
        for name in ("lowest", "median", "highest")
        if (text := _number(getattr(value, name), value))
    ]
    table = tag(
        "table",
        *(tag("tr", tag("th", label, scope="row"), tag("td", text, class_="n")) for label, text in rows),
    )
    return tag(
        "section",
        tag("h2", f"{value.metric} ({words[value.stage]})"),
        tag("p", words["value"].format(round=value.round)),
        table,
        _drawing(value),
        None if value.others else tag("p", words["no_spread"]),
        _course(value, words),
    )


def _table(table: MirrorTable, words: dict[str, str]) -> Html:
    """Own cells and, where they are told, those of all hospitals beside them."""
    sides: list[tuple[str, MirrorCells]] = [(words["own"], table.own)]
    if table.pooled is not None:
        sides.append((words["pooled"].format(count=table.hospitals), table.pooled))
    header = tag(
        "tr",
        tag("th", words["line"]),
        *(tag("th", f"{side}: {name}") for side, _ in sides for name in table.columns),
    )
    rows = [
        tag(
            "tr",
            tag("th", line, scope="row"),
            *(
                tag("td", cell_text(cell, words["hidden"]), class_="n")
                for _, cells in sides
                for cell in cells[number]
            ),
        )
        for number, line in enumerate(table.lines)
    ]
    why = words["not_told"].format(why=words.get(table.code, table.code))
    return tag(
        "section",
        tag("h2", words["table"].format(table=table.table, round=table.round)),
        tag("p", f"{table.column}{f' / {table.by}' if table.by else ''}: {words[table.measure]}"),
        tag("table", header, *rows),
        tag("p", f"{words['pooled'].format(count=table.hospitals)}: {why}") if table.pooled is None else None,
    )


def _course(value: MirrorValue, words: dict[str, str]) -> Html | None:
    if len(value.course) < 2:
        return None
    header = tag(
        "tr", *(tag("th", text) for text in (words["round"], words["own"], words["pooled"].format(count="")))
    )
    rows = [
        tag(
            "tr",
            tag("td", str(point.round)),
            *(tag("td", _number(each, value) or "-", class_="n") for each in (point.own, point.pooled)),
        )
        for point in value.course
    ]
    return tag("details", tag("summary", words["course"]), tag("table", header, *rows))


def _drawing(value: MirrorValue) -> Html | None:
    """A line from lowest to highest of all that is told, with a tick for pooled and a dot for this hospital."""
    told = [each for each in (value.own, value.pooled, value.lowest, value.highest) if each is not None]
    if value.own is None or len(told) < 2:
        return None
    low, high = min(told), max(told)
    wide = (high - low) or 1.0

    def place(number: float) -> str:
        return f"{20 + 560 * (number - low) / wide:.1f}"

    parts = ['<line x1="20" y1="20" x2="580" y2="20" stroke="#bbb"/>']
    if value.lowest is not None and value.highest is not None:
        parts.append(
            f'<line x1="{place(value.lowest)}" y1="20" x2="{place(value.highest)}" y2="20" stroke="#666" stroke-width="6"/>'
        )
    if value.pooled is not None:
        x = place(value.pooled)
        parts.append(f'<line x1="{x}" y1="8" x2="{x}" y2="32" stroke="#000" stroke-width="2"/>')
    parts.append(f'<circle cx="{place(value.own)}" cy="20" r="7" fill="#0b5fa5"/>')
    return Html(f'<svg viewBox="0 0 600 40" aria-hidden="true">{"".join(parts)}</svg>')


def _number(value: float | None, of: MirrorValue) -> str:
    return "" if value is None else f"{value:.{of.decimals}f}"
