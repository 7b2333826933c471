"""The selftest: a hostile train tries every escape on this host."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_table
from policies.documents import canonical_json, format_moment
from policies.errors import PhtError
from station.cli.program import app
from station.cli.reaching import HomeOption, operator_name, station_paths, write_new

if TYPE_CHECKING:
    from station.selftest.report import Report
    from station.selftest.running import Progress


@app.command()
def selftest(
    home: HomeOption,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only this area; may be given again. Without: everything."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Keep the report as JSON in this new file, for an auditor.", dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a hostile train try every escape on this host; fails where something was not stopped."""
    from station.sandbox_settings import launcher_settings  # noqa: PLC0415 - starts faster without
    from station.selftest.recording import record  # noqa: PLC0415
    from station.selftest.running import run_selftest  # noqa: PLC0415

    # The launcher in this process logs what it kills; the table says it better.
    logging.getLogger("station").addHandler(logging.NullHandler())
    paths = station_paths(home)
    settings = launcher_settings(paths.home)
    with _shown(quiet=as_json) as progress:
        report = run_selftest(paths, settings, areas=tuple(only or ()), progress=progress)
    if output is not None:
        write_new(output, canonical_json(report) + b"\n")
    record(paths, report, operator_name())
    if as_json:
        echo_json(report)
    else:
        _say(report)
    if not report.held:
        open_lines = [f"{line.number} {line.name}" for line in report.lines if line.verdict == "NOT STOPPED"]
        raise PhtError(
            f"NOT STOPPED: {', '.join(open_lines) or 'nothing was tried'}",
            hint="Let no train run here until this is understood: set hospital.operator_approval to always and hold every order.",
        )


def _say(report: "Report") -> None:
    host, ceilings = report.host, report.ceilings
    say(f"Selftest of {report.station}, {format_moment(report.began)}, by {report.launcher} launcher")
    say(f"  station    {host.station_version}, Python {host.python}")
    say(f"  host       {host.system}, kernel {host.kernel} ({host.architecture})")
    say(
        f"  engine     {host.engine} {host.engine_version}, runtime {host.runtime}, {'rootless' if host.rootless else 'rootful'}"
    )
    say(f"  held by    cgroup v{host.cgroup_version}; seccomp {host.seccomp}; LSM {host.lsm}")
    say(
        f"  ceilings   {ceilings.memory_mib} MiB, {ceilings.cpus:g} CPUs, {ceilings.pids} processes, {ceilings.scratch_mib} MiB scratch"
    )
    say(f"  image      {report.image}")
    say()
    columns = ("", "area", "tried", "what stopped it", "verdict")
    rows = [(line.number, line.area, line.tried, line.stopped_by, line.verdict) for line in report.lines]
    say_table("", columns, rows)
    say()
    say(
        f"{report.stopped} stopped, {report.not_stopped} NOT STOPPED, {report.not_applicable} not applicable here"
        f"{'' if report.complete else ' (some areas only)'}"
    )


@contextmanager
def _shown(*, quiet: bool) -> "Iterator[Progress]":
    """Yield what shows how far it is, on a terminal and beside the result."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    console = Console(stderr=True, quiet=quiet or not sys.stderr.isatty())
    with Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("preparing", total=None)
        yield lambda done, total, attack, _line: bar.update(
            task, total=total, completed=done, description=attack.name
        )
