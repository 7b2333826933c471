"""`pht-train coefficients`: the result of a regression as a table.

Parses, calls one use case, renders.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_table

if TYPE_CHECKING:
    from train_images.tool.coefficients import Coefficient

_SMALL_P = 0.0001


def add_coefficients(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(coefficients)


def coefficients(
    result: Annotated[Path, typer.Argument(help="A result's folder, as `pht-train results` filled it.")],
    train: Annotated[
        Path, typer.Option(help="The bundle that was run: its model.json names the coefficients.")
    ],
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="How many examples averaging counted, where the result does not tell it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a regression's coefficients with standard errors, tests, intervals and ratios."""
    from train_images.tool.coefficients import read_regression  # noqa: PLC0415 - each command loads what it needs
    from train_images.tool.folders import read_bundle  # noqa: PLC0415

    found = read_regression(result, read_bundle(train), examples)
    if as_json:
        echo_json(found)
        return
    statistic = "t" if found.family == "linear" else "z"
    say_table(
        f"{found.family} regression",
        ("", "coefficient", "error", statistic, "p", "95% interval"),
        [_row(each) for each in found.coefficients],
    )
    if found.ratio is not None:
        # A table of its own: side by side they are wider than a terminal.
        ratios = [
            (each.name, _number(each.ratio), _interval(each.ratio_lower, each.ratio_upper))
            for each in found.coefficients
            if each.ratio is not None
        ]
        say_table("", ("", found.ratio, "95% interval"), ratios)
    for field, reference in found.references.items():
        say(f"{field} is compared with: {reference}")
    if found.patients is not None:
        say(f"{found.patients} patients of {found.stations} stations with all values.")
    if found.log_likelihood is not None:
        kind = "Partial log-likelihood" if found.family == "cox" else "Log-likelihood"
        say(f"{kind} {found.log_likelihood:.4f}.")
    if found.dispersion is not None:
        kind = "Residual variance" if found.family == "linear" else "Pearson dispersion"
        say(f"{kind} {found.dispersion:.6g}.")
    if found.ridge:
        say(f"Ridge penalty {found.ridge:g}.")
    if found.converged:
        say(
            f"Converged: the next step would move no coefficient by more than {found.next_step:.1e} of its error."
        )
    for note in found.notes:
        say(note)
    say("For research only: a table of this kind says what goes together, not what causes what.")


def _row(line: "Coefficient") -> tuple[str, ...]:
    numbers = (_number(line.coefficient), _number(line.standard_error), _number(line.statistic, 2))
    return (line.name, *numbers, _p(line.p), _interval(line.lower, line.upper))


def _number(value: float | None, decimals: int = 4) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"<{_SMALL_P}" if value < _SMALL_P else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
