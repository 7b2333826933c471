"""`pht-orchestrator`: what the consortium's operator types. Parses, calls one use case, renders."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.audit import audit_app
from orchestrator.commands.opening import HomeArgument, home_at, operator, services
from orchestrator.commands.state import backup, database_app, restore, restored, restored_line
from orchestrator.commands.tokens import token_app
from policies import console
from policies.console import JsonOption
from policies.documents import format_moment
from policies.errors import NotFoundError, RefusedError, StorageError, TrustError

if TYPE_CHECKING:
    from orchestrator.registry.runs import RunView
    from orchestrator.services import Services
    from orchestrator.settings import Home

app = console.new_app("The consortium's side: SuperLink, registry, mirror of the board's repository, runs.")
station_app = console.new_app("Stations, as the board's register names them.")
runs_app = console.new_app("Runs of accepted orders.")
app.add_typer(token_app, name="token")
app.add_typer(station_app, name="station")
app.add_typer(runs_app, name="runs")
app.add_typer(audit_app, name="audit")
app.add_typer(database_app, name="database")
for command in (backup, restore, restored):
    app.command()(command)


@app.command()
def init(
    home: HomeArgument,
    host: Annotated[
        list[str], typer.Option(help="Name or address that clients use; may be given more than once.")
    ],
    port: Annotated[int, typer.Option(help="The one public port.")],
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - a public service
    name: Annotated[
        str, typer.Option(help="Shown at /api/v1/health and in the certificate.")
    ] = "orchestrator",
    root: Annotated[
        Path | None, typer.Option(help="The board's TUF root (root.json), to trust from now on.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new orchestrator: settings, certificates, database."""
    from orchestrator.initialise import initialise  # noqa: PLC0415 - starts faster without
    from orchestrator.settings import parse_settings  # noqa: PLC0415

    settings = parse_settings({"front": {"name": name, "hosts": host, "bind": bind, "port": port}})
    made = initialise(home.absolute(), settings, None if root is None else _read(root))
    if as_json:
        console.echo_json({"home": made.path, "url": settings.url, "ca": made.ca_certificate})
        return
    console.say(f"made {made.path}")
    console.say(f"  address      {settings.url}")
    console.say(f"  authority    {made.ca_certificate} (give this file to every party)")
    if root is None:
        console.say("  next         pht-orchestrator pin-root HOME root.json, with the board's file")
    console.say("  then         pht-orchestrator serve HOME")


@app.command()
def serve(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Run it until SIGTERM or Ctrl-C: SuperLink, front, API, run worker."""
    from orchestrator import supervisor  # noqa: PLC0415 - Flower takes a second to import: only who serves pays
    from orchestrator.logs import start_logging  # noqa: PLC0415
    from orchestrator.settings import load_settings  # noqa: PLC0415

    place = home_at(home)
    load_settings(place)
    start_logging(place.logs, "supervisor")

    def show(ready: supervisor.Ready) -> None:
        if as_json:
            typer.echo(ready.encode().decode().strip())
        else:
            console.say(f"ready at {ready.url}; authority {ready.ca}")

    supervisor.serve(place, show, lambda why: typer.echo(f"waiting: {why}", err=True))


@app.command("pin-root")
def pin_root_command(
    home: HomeArgument, root: Annotated[Path, typer.Argument(help="The board's root.json.")]
) -> None:
    """Trust the board's root; received from the board itself, not from this mirror."""
    from orchestrator.registry.trust import pin_root  # noqa: PLC0415

    charter = pin_root(home_at(home), _read(root))
    console.say(f"pinned the root of {charter.board}: {charter.title} ({len(charter.members)} members)")


@app.command("renew-certificate")
def renew(home: HomeArgument) -> None:
    """Issue a new server certificate; it counts from the next start."""
    from orchestrator.initialise import renew_certificate  # noqa: PLC0415

    renew_certificate(home_at(home))
    console.say("renewed; restart `serve` to use it")


@app.command()
def status(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Whether it runs, and what it holds."""
    from orchestrator.home_lock import is_held  # noqa: PLC0415
    from policies.tls import read_certificate  # noqa: PLC0415

    place = home_at(home)
    with closing(services(home)) as parts:
        runs = parts.runs.all(operator())
        stations = parts.stations.all()
        found = {
            "running": is_held(place),
            "url": parts.settings.url,
            "certificate": f"until {format_moment(read_certificate(place.server_certificate).not_valid_after_utc)}",
            "database": parts.database.name,
            "restored": restored_line(place) or "no",
            "mirror": _mirror_state(place),
            "stations": len(stations),
            "bundles": len(parts.bundles.all()),
            "runs": {state: sum(run.progress.state == state for run in runs) for state in _states(runs)},
        }
    if as_json:
        console.echo_json(found)
        return
    for key, value in found.items():
        console.say(f"{key:12} {value}")


@station_app.command("sync")
def station_sync(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Read the board's register from the mirror, and register new node keys with the SuperLink."""
    with closing(services(home)) as parts:
        result = parts.stations.sync()
    if as_json:
        console.echo_json(result)
        return
    console.say(f"register version {result.register_version}: {result.nodes_registered} node keys registered")
    for what, names in (("added", result.added), ("removed", result.removed)):
        if names:
            console.say(f"  {what}: {', '.join(names)}")


@station_app.command("list")
def station_list(home: HomeArgument, as_json: JsonOption = False) -> None:
    """The stations that take part; when each last proved its key here (to about 10 s)."""
    with closing(services(home)) as parts:
        stations = parts.stations.all()
    if as_json:
        console.echo_json(stations)
        return
    console.say_table(
        "Stations",
        ("name", "organisation", "register", "node known", "last seen"),
        [
            (
                view.name,
                view.organisation,
                f"version {view.register_version}",
                "yes" if view.node_id is not None else "no",
                _ago(view.last_seen),
            )
            for view in stations
        ],
    )


@station_app.command("statements")
def station_statements(home: HomeArgument, as_json: JsonOption = False) -> None:
    """What stations stated of their own records; a fork is shown first and ends with exit code 4."""
    with closing(services(home)) as parts:
        views = parts.statements.views()
    if as_json:
        console.echo_json(views)
    else:
        console.say_table(
            "Statements",
            ("station", "epoch", "sequence", "audit", "egress", "received", "restored", "forks"),
            [
                (
                    view.station, view.epoch, view.sequence, view.audit, view.egress, _ago(view.received),
                    f"{view.restorations}x", f"!! {view.forks}: {view.last_fork}" if view.forks else "none",
                )
                for view in views
            ],
        )  # fmt: skip
    forked = [view.station for view in views if view.forks]
    if forked:
        raise RefusedError(
            "STATEMENT_FORK",
            f"stations that contradicted themselves: {', '.join(forked)}",
            hint="Both statements are kept in state.db. Tell the board and the hospital.",
        )


@runs_app.command("list")
def runs_list(home: HomeArgument, as_json: JsonOption = False) -> None:
    """All runs, the newest first."""
    with closing(services(home)) as parts:
        views = parts.runs.all(operator())
    if as_json:
        console.echo_json(views)
        return
    console.say_table(
        "Runs",
        ("order", "policy", "requester", "state", "round", "stations"),
        [
            (
                view.digest[7:19],
                f"{view.policy_id} v{view.policy_version}",
                view.requester.partition(":")[2],
                view.progress.state,
                f"{view.progress.round}/{view.progress.rounds}",
                len(view.stations),
            )
            for view in views
        ],
    )


@runs_app.command("show")
def runs_show(
    home: HomeArgument,
    order: Annotated[str, typer.Argument(help="The order's digest, or the first characters of it.")],
    as_json: JsonOption = False,
) -> None:
    """One run with its rounds."""
    with closing(services(home)) as parts:
        view = _find(parts, order)
        rounds = parts.runs.rounds(operator(), view.digest)
    if as_json:
        console.echo_json({"run": view, "rounds": rounds})
        return
    console.say(f"order      {view.digest}")
    console.say(f"policy     {view.policy_id} version {view.policy_version}")
    console.say(f"state      {view.progress.state} {view.progress.code}".rstrip())
    console.say(f"result     {', '.join(view.result) or 'none yet'}")
    for entry in rounds:
        console.say(f"round {entry.get('round')}: took part {', '.join(entry.get('took_part', []))}")


@runs_app.command("stop")
def runs_stop(home: HomeArgument, order: Annotated[str, typer.Argument(help="As for `show`.")]) -> None:
    """Ask that a run stops; its stations are told to finish."""
    with closing(services(home)) as parts:
        view = _find(parts, order)
        parts.runs.stop(operator(), view.digest)
    console.say(f"asked {view.digest[7:19]} to stop")


@runs_app.command("resume")
def runs_resume(home: HomeArgument, order: Annotated[str, typer.Argument(help="As for `show`.")]) -> None:
    """Let a failed or stopped run go on from its last checkpoint."""
    with closing(services(home)) as parts:
        view = _find(parts, order)
        parts.runs.resume(operator(), view.digest)
    console.say(f"queued {view.digest[7:19]} again")


def _mirror_state(home: "Home") -> str:
    from orchestrator.registry.trust import verified_policies  # noqa: PLC0415

    try:
        state = verified_policies(home).state
    except TrustError as error:
        return error.message
    return f"verified, fresh until {format_moment(state.expires)}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.name}: there is no such file") from error
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be read ({error.strerror})") from error


def _find(services: "Services", order: str) -> "RunView":
    prefix = order.removeprefix("sha256:")
    found = [view for view in services.runs.all(operator()) if view.digest[7:].startswith(prefix)]
    if len(found) != 1:
        raise NotFoundError(
            f"{len(found)} runs begin with {order}", hint="Give more characters of the digest."
        )
    return found[0]


def _states(runs: list["RunView"]) -> list[str]:
    return sorted({view.progress.state.value for view in runs})


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return f"{seconds:.0f} s ago" if seconds < 3600 else format_moment(moment)


main = console.program(app)
