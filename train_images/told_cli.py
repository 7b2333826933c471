"""`pht-train performance` and `pht-train statistics`: what a fetched result's tables say. Parses, calls one use case, renders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_line, say_table

if TYPE_CHECKING:
    from train_images.told.intervals import Figure
    from train_images.told.performance import GroupPerformance, Performance
    from train_images.told.reading import ToldResult
    from train_images.told.statistics import TableStatistics

ResultArgument = Annotated[Path, typer.Argument(help="The folder that `pht-train results` fetched into.")]


def add_told_commands(app: typer.Typer) -> None:
    """Add the two commands to the program."""
    app.command()(performance)
    app.command()(statistics)


def performance(
    result: ResultArgument,
    table: Annotated[str | None, typer.Option(help="One table of scores; without it all of them.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="One edge between bins, of the confusion counts; without it all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how well a model did, over all stations and in each, from the scores that stations counted in bins."""
    from train_images.told.performance import performance_of  # noqa: PLC0415 - each command loads what it needs
    from train_images.told.reading import read_told  # noqa: PLC0415

    told = read_told(result)
    found = performance_of(told, table, threshold)
    if as_json:
        echo_json({"train": told.train, "rounding": told.rounding, "noise": told.noise, "tables": found})
        return
    for each in found:
        rows = [row for group in each.groups for row in _rows(group)]
        say_table(
            f"{each.table}: {each.column} by {each.by}",
            ("patients", "of", "positive", "negative", "hidden cells", "AUC (95 %)", "AUC for sure"),
            rows,
        )
        for group in each.groups:
            if group.pooled is not None:
                _say_pooled(group.group, group.pooled)
    _say_caution(told)


def _rows(group: "GroupPerformance") -> list[tuple[str, ...]]:
    named = [(name, "1", found) for name, found in group.stations.items()]
    if group.pooled is not None:
        named.append(("together", str(group.pooled_of), group.pooled))
    rows: list[tuple[str, ...]] = [
        (
            f"{group.group}, {name}",
            of,
            _number(found.positives),
            _number(found.negatives),
            str(found.hidden_cells),
            _figure(found.auc),
            _sure(found.auc),
        )
        for name, of, found in named
    ]
    if group.within is not None:
        rows.append((f"{group.group}, pairs within one hospital", "", "", "", "", _figure(group.within), ""))
    if group.left_out:
        rows.append((f"{group.group}, left out: {', '.join(group.left_out)}", "", "", "", "", "", ""))
    return rows


def _say_pooled(group: str, found: "Performance") -> None:
    say_table(
        f"{group}: at each threshold",
        ("score from", "sensitivity", "specificity", "PPV", "NPV", "TP", "FN", "FP", "TN"),
        [
            (
                "as ordered" if each.threshold is None else f"{each.threshold:g}",
                *(
                    _either(figure)
                    for figure in (
                        each.sensitivity, each.specificity, each.positive_predictive_value, each.negative_predictive_value,
                        each.true_positives, each.false_negatives, each.false_positives, each.true_negatives,
                    )
                ),
            )
            for each in found.confusion
        ],
    )  # fmt: skip
    if found.calibration is None:
        return
    say_table(
        f"{group}: calibration",
        ("predicted", "patients", "observed (95 %)"),
        [
            (
                f"{each.predicted_low:g} to {each.predicted_high:g}",
                _number(each.patients),
                _figure(each.observed),
            )
            for each in found.calibration.bins
        ],
    )
    say_line(
        f"{group}: calibration error {_sure(found.calibration.expected_error)}, Brier score {_sure(found.calibration.brier)}."
    )


def statistics(result: ResultArgument, as_json: JsonOption = False) -> None:
    """Say who the patients are, over all stations: counts, means and variances, and where quantiles lie."""
    from train_images.told.reading import read_told  # noqa: PLC0415
    from train_images.told.statistics import statistics_of  # noqa: PLC0415

    told = read_told(result)
    found = statistics_of(told)
    if as_json:
        echo_json({"train": told.train, "rounding": told.rounding, "noise": told.noise, "tables": found})
        return
    for each in found:
        _say_statistics(each)
    _say_caution(told)


def _say_statistics(table: "TableStatistics") -> None:
    from train_images.told.statistics import Count, Mean, Quantile  # noqa: PLC0415

    title = f"{table.table}: {table.measure} of {table.column}{f' by {table.by}' if table.by else ''}, {table.of} stations"
    if not table.pooled:
        say_line(f"{title}: not told.")
        return
    rows: list[tuple[str, ...]] = []
    for cell in table.pooled:
        match cell:
            case Mean():
                rows.append(
                    (
                        cell.line,
                        _number(cell.patients),
                        _number(cell.mean),
                        _number(cell.standard_deviation),
                        "" if cell.low is None else f"{cell.low:.6g} to {cell.high:.6g}",
                    )
                )
            case Quantile():
                rows.append((cell.line, f"{cell.low:g} to {cell.high:g}"))
            case Count():
                known = _number(cell.patients) if cell.patients is not None else f"at least {cell.at_least:g}"
                rows.append((cell.line, cell.column, known))
    headers = {
        "sum": ("line", "patients", "mean", "standard deviation", "mean, 95 %"),
        "quantiles": ("probability", "lies in"),
        "count": ("line", "column", "patients"),
    }
    say_table(title, headers[table.measure], rows)
    if table.quartiles:
        say_table(
            f"{table.table}: quartiles of {table.column} by {table.by}",
            (str(table.by), "probability", "lies in"),
            [(each.column, each.line, f"{each.low:g} to {each.high:g}") for each in table.quartiles],
        )


def _say_caution(told: "ToldResult") -> None:
    if told.noise:
        say(
            "Every number has noise in it, so neither an interval here holds nor what is said to be sure: they are those of exact counts."
        )
    elif told.rounding > 1:
        say(
            f"Counts are rounded to {told.rounding}: figures that rest on them are off by as much as that makes, and neither an "
            "interval here holds nor what is said to be sure."
        )


def _number(value: float | None) -> str:
    return "not told" if value is None else f"{value:.6g}"


def _figure(figure: "Figure") -> str:
    if figure.value is None:
        return "not told"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _sure(figure: "Figure") -> str:
    return "" if figure.least is None or figure.most is None else f"{figure.least:.3f} to {figure.most:.3f}"


def _either(figure: "Figure") -> str:
    if figure.value is None:
        return _sure(figure) or "not told"
    return f"{figure.value:g}" if figure.value > 1 or figure.low is None else f"{figure.value:.3f}"
