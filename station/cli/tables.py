"""What several commands of `pht-station` show alike."""

from typing import Any

from policies.console import echo_json, say, say_table


def show_runs(title: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Show runs as the API gave them."""
    if as_json:
        echo_json(rows)
        return
    say_table(
        title,
        ("order", "policy", "state", "operator", "rounds", "releases", "why not"),
        [
            [
                row["order"].removeprefix("sha256:")[:12], f"{row['policy']} v{row['version']}", row["state"],
                row["operator"], row["rounds"], row["releases"], " ".join(reason["code"] for reason in row["reasons"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


def show_report(report: dict[str, Any], *, as_json: bool) -> None:
    """Show one document, a line per field."""
    if as_json:
        echo_json(report)
        return
    for key, value in report.items():
        say(f"{key.replace('_', ' '):22} {value}")
