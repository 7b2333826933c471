"""The mirror report of a run: this hospital's values beside the pooled ones, and where it stands among the others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import UsageError
from policies.files import write_atomically
from policies.mirror_report import MirrorReport, MirrorTable, MirrorValue, cell_text, read_report
from policies.withheld import WORDS
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api
from station.cli.trains import OrderArgument, full_order


class Language(StrEnum):
    """Of the page."""

    NL = "nl"
    EN = "en"


@app.command("mirror-report")
def mirror_report(
    order: OrderArgument,
    home: HomeOption,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it as a page (HTML) to this new file.")
    ] = None,
    language: Annotated[Language, typer.Option("--language", help="Of the page.")] = Language.NL,
    as_json: JsonOption = False,
) -> None:
    """This hospital's values of a run that is over, beside the pooled ones; other hospitals are not named."""
    if out is not None and out.exists():
        raise UsageError(f"{out.name}: is there already", hint="Name a new file.")
    api = compute_api(home)
    report = read_report(api.get_bytes(f"/v1/runs/{full_order(api, order)}/mirror-report"))
    if out is not None:
        from policies.mirror_page import report_page  # noqa: PLC0415 - starts faster without

        write_atomically(out, report_page(report, language.value).encode())
    if as_json:
        echo_json(report)
        return
    _show(report)
    if out is not None:
        say(f"Wrote {out}: {out.stat().st_size} bytes.")


def _show(report: MirrorReport) -> None:
    say(f"{report.train}, policy {report.policy_id} version {report.policy_version}: {report.state}, "
        f"{report.rounds_of_station} of {report.rounds} rounds with this hospital.")  # fmt: skip
    say_table(
        "Own value and the others",
        ("number", "round", "own", "pooled", "of", "lowest", "middle", "highest"),
        [
            [
                f"{value.stage} {value.metric}",
                str(value.round),
                *(_number(each, value) for each in (value.own, value.pooled)),
                str(value.hospitals),
                *(_number(each, value) for each in (value.lowest, value.median, value.highest)),
            ]
            for value in report.values
        ],
    )
    for table in report.tables:
        _show_table(table)
    for value in report.values:
        if value.code:
            say(
                f"{value.stage} {value.metric}: the pooled value is not told: {WORDS.get(value.code, value.code)}."
            )


def _show_table(table: MirrorTable) -> None:
    """Own cells, and those of all hospitals together where they are told."""
    sides = [("own", table.own)] + ([("pooled", table.pooled)] if table.pooled is not None else [])
    say_table(
        f"{table.stage} {table.table} ({table.measure}), round {table.round}, of {table.hospitals}",
        ("line", *(f"{side} {name}" for side, _ in sides for name in table.columns)),
        [
            [line, *(cell_text(cell, "hidden") for _, cells in sides for cell in cells[number])]
            for number, line in enumerate(table.lines)
        ],
    )
    if table.code:
        say(
            f"{table.stage} {table.table}: the pooled table is not told: {WORDS.get(table.code, table.code)}."
        )


def _number(value: float | None, of: MirrorValue) -> str:
    return "-" if value is None else f"{value:.{of.decimals}f}"
