"""`pht-station`: what a hospital's operator and data steward type.

Parses, calls one use case (over the local API, or the installation), renders. Exit codes: `policies.errors.ExitCode`.
"""

import getpass
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from policies.console import JsonOption, echo_json, new_app, program, say, say_table
from policies.errors import NotFoundError, RefusedError, StorageError, UsageError
from station.cli_tables import show_report, show_runs
from station.layout import StationPaths

app = new_app("Run a hospital's station: images stay here; approved trains come to them.")
consent_app = new_app("The consent register.")
clinical_app = new_app("Clinical data from eCRF exports.")
audit_app = new_app("The hash-chained audit.")
egress_app = new_app("The ledger of everything that left.")
app.add_typer(consent_app, name="consent")
app.add_typer(clinical_app, name="clinical")
app.add_typer(audit_app, name="audit")
app.add_typer(egress_app, name="egress")

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="PHT_HOME", help="The station's folder.", file_okay=False),
]


class MarkingChoice(StrEnum):
    """What kind of data a collection is."""

    PATIENT = "patient"
    PUBLIC = "public"
    SYNTHETIC = "synthetic"


class ApprovalChoice(StrEnum):
    """Which trains wait for the operator."""

    ALWAYS = "always"
    TRAINING = "training"
    NEVER = "never"


OrderArgument = Annotated[str, typer.Argument(help="The order's digest, or enough of it to be the only one.")]


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="A new folder for the station.")],
    name: Annotated[str, typer.Option(help="The station's name in the board's register.")],
    orchestrator: Annotated[str, typer.Option(help="The orchestrator's address, https://host:port.")],
    ca: Annotated[
        Path,
        typer.Option(help="The certificate authority to trust for it (PEM).", exists=True, dir_okay=False),
    ],
    root: Annotated[
        Path,
        typer.Option(
            help="The board's root metadata, received by a trusted way.", exists=True, dir_okay=False
        ),
    ],
    collection: Annotated[list[str], typer.Option(help="A collection to offer; may be given again.")],
    marking: Annotated[
        MarkingChoice, typer.Option(help="patient, public or synthetic: what the collections are.")
    ] = MarkingChoice.PATIENT,
    approval: Annotated[
        ApprovalChoice, typer.Option(help="Trains that need the operator: always, training or never.")
    ] = ApprovalChoice.ALWAYS,
    separation: Annotated[str, typer.Option(help="users (needs root), none, or auto.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a station: users, folders, keys, settings; pins the board's root."""
    from station.installation import Choices, first_settings, install  # noqa: PLC0415 - starts faster without

    separated = _separated(separation)
    settings = first_settings(
        Choices(name, orchestrator, tuple(collection), marking.value, approval.value, separated)
    )
    card = install(home, settings, _read(root), _read(ca))
    if as_json:
        echo_json(card)
        return
    say(f"Station {card.name} is ready in {home}.")
    say(f"  identity key  {card.identity_key}")
    say(f"  for the board {home / 'card.json'}")
    if not separated:
        say(
            "  separation    none: intake, compute and launcher share one user (run as root to separate them)"
        )


def _separated(word: str) -> bool:
    root = os.geteuid() == 0
    if word == "users" and not root:
        raise UsageError("--separation users needs root", hint="Run as root, or give --separation none.")
    if word not in {"users", "none", "auto"}:
        raise UsageError(f"unknown separation {word!r}", hint="users, none or auto.")
    return root and word != "none"


@app.command()
def serve(home: HomeOption) -> None:
    """Run intake, compute with its agent, and the launcher, until stopped."""
    from station.serving import serve_station  # noqa: PLC0415

    serve_station(_paths(home).home)


@app.command()
def status(home: HomeOption, as_json: JsonOption = False) -> None:
    """Is the station well?"""
    view = _compute(home).get("/v1/status")
    if as_json:
        echo_json(view)
        return
    for key, value in view.items():
        say(f"{key.replace('_', ' '):22} {value if value is not None else '-'}")


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="A folder of DICOM files.", exists=True, file_okay=False)],
    collection: Annotated[str, typer.Option(help="The collection they belong to.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Take a folder of images in: spooled, pseudonymised, handed over. Again is harmless."""
    from station.intake.staging import stage_folder  # noqa: PLC0415

    intake = _intake(home)
    batch = stage_folder(home.resolve(), source)
    report = intake.post("/v1/batches", {"batch": batch, "collection": collection})
    while not report["finished"]:
        time.sleep(0.2)
        report = intake.get(f"/v1/batches/{batch}")
    if as_json:
        echo_json(report)
        return
    say(f"{report['handed_over']} of {report['files']} files pseudonymised and handed over.")
    for reason, count in sorted(report["quarantined"].items()):
        say(f"  {count} in quarantine: {reason}")


@consent_app.command("import")
def consent_import(
    csv: Annotated[
        Path, typer.Argument(help="patient_id,decision,purpose,date", exists=True, dir_okay=False)
    ],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Replace the consent state by a register's export; takes effect at the next message."""
    show_report(_intake(home).post_bytes("/v1/consent", _read(csv), {}), as_json=as_json)


@clinical_app.command("import")
def clinical_import(
    csv: Annotated[Path, typer.Argument(help="An eCRF export.", exists=True, dir_okay=False)],
    collection: Annotated[str, typer.Option(help="The collection its patients belong to.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Link clinical data to the images' pseudonyms."""
    report = _intake(home).post_bytes("/v1/clinical", _read(csv), {"collection": collection})
    show_report(report, as_json=as_json)


@app.command()
def catalogue(home: HomeOption, as_json: JsonOption = False) -> None:
    """What the station holds."""
    rows = _compute(home).get("/v1/catalogue")
    if as_json:
        echo_json(rows)
        return
    columns = ("name", "patients", "studies", "images")
    say_table("Collections", columns, [[row[key] for key in columns] for row in rows])


@app.command()
def trains(home: HomeOption, as_json: JsonOption = False) -> None:
    """Trains that wait for the operator's word."""
    rows = [row for row in _compute(home).get("/v1/runs") if row["operator"] == "pending"]
    show_runs("Waiting for your word", rows, as_json=as_json)


@app.command()
def runs(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every order this station has seen."""
    show_runs("Runs", _compute(home).get("/v1/runs"), as_json=as_json)


@app.command()
def approve(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Let a waiting train run here."""
    _word(home, order, "approve", as_json=as_json)


@app.command()
def hold(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Keep a train from running here; approve lets it on again."""
    _word(home, order, "hold", as_json=as_json)


@app.command()
def stop(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Stop a run for good: its container is killed and its scratch wiped."""
    _word(home, order, "stop", as_json=as_json)


@app.command()
def explain(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Every rule of board, hospital, consent, data and resources, with its verdict now."""
    api = _compute(home)
    rules = api.get(f"/v1/runs/{_full(api, order)}/explain")
    if as_json:
        echo_json(rules)
    else:
        say_table(
            "Would it run now?",
            ("rule", "verdict", "why not"),
            [
                [
                    r["rule"],
                    r["verdict"],
                    "; ".join(f"{x['code']} {x['detail']}".strip() for x in r["reasons"]),
                ]
                for r in rules
            ],
        )
    refused = [reason["code"] for rule in rules for reason in rule["reasons"]]
    if refused:
        raise RefusedError(refused[0], "It would not run here now.", hint="The rules above say why.")


@app.command()
def logs(order: OrderArgument, home: HomeOption) -> None:
    """What a train printed; it never leaves the station."""
    api = _compute(home)
    say(api.get_bytes(f"/v1/runs/{_full(api, order)}/logs").decode("utf-8", "replace"))


@app.command()
def releases(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every release this station made."""
    rows = _compute(home).get("/v1/releases")
    if as_json:
        echo_json(rows)
        return
    say_table(
        "Releases",
        ("released", "policy", "round", "stage", "bytes", "metrics", "suppressed"),
        [
            [
                row["released"], row["policy"], row["round"], row["stage"], row["size"],
                " ".join(f"{key}={value}" for key, value in row["metrics"].items()), " ".join(row["suppressed"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


@audit_app.command("verify")
def audit_verify(
    home: HomeOption,
    file: Annotated[
        Path | None, typer.Option(help="An export to verify instead; needs no running station.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the audit from its first entry; says where it is broken."""
    _verify(home, "audit", file, as_json=as_json)


@audit_app.command("export")
def audit_export(out: Annotated[Path, typer.Argument()], home: HomeOption) -> None:
    """Write the audit as JSON lines with a signed head."""
    _export(home, "audit", out)


@egress_app.command("verify")
def egress_verify(
    home: HomeOption,
    file: Annotated[
        Path | None, typer.Option(help="An export to verify instead; needs no running station.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the egress ledger from its first entry."""
    _verify(home, "egress", file, as_json=as_json)


@egress_app.command("export")
def egress_export(out: Annotated[Path, typer.Argument()], home: HomeOption) -> None:
    """Write the egress ledger as JSON lines with a signed head."""
    _export(home, "egress", out)


def _verify(home: Path, chain: str, file: Path | None, *, as_json: bool) -> None:
    view: dict[str, Any]
    if file is not None:
        from station.runs.chains import verify_file  # noqa: PLC0415
        from station.runs.desk import chain_view  # noqa: PLC0415

        name: Literal["audit", "egress"] = "audit" if chain == "audit" else "egress"
        view = chain_view(name, verify_file(file, StationPaths(home.resolve()).card, name)).model_dump()
    else:
        view = _compute(home).get(f"/v1/chains/{chain}")
    if as_json:
        echo_json(view)
    elif view["intact"]:
        say(f"{chain}: {view['entries']} entries, unbroken; head {view['head']}")
    if not view["intact"]:
        raise RefusedError(
            "CHAIN_BROKEN",
            f"the {chain} chain is broken at entry {view['broken_at']}: {view['problem']}",
            hint="Keep the database as it is and call the hospital's security officer.",
        )


def _word(home: Path, order: str, word: str, *, as_json: bool) -> None:
    api = _compute(home)
    view = api.post(f"/v1/runs/{_full(api, order)}/{word}", {"actor": _operator()})
    show_runs(word, [view], as_json=as_json)


def _full(api: Any, start: str) -> str:  # noqa: ANN401 - LocalApi, imported late
    matches = [
        row["order"]
        for row in api.get("/v1/runs")
        if row["order"].removeprefix("sha256:").startswith(start.removeprefix("sha256:"))
    ]
    if not matches:
        raise NotFoundError(f"no order starts with {start!r}", hint="`pht-station runs` lists them.")
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} orders start with {start!r}", hint="Give more of the digest.")
    return str(matches[0])


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user without an entry on this host, as in some containers.
        return f"uid-{os.getuid()}"


def _export(home: Path, chain: str, out: Path) -> None:
    data = _compute(home).get_bytes(f"/v1/chains/{chain}/export")
    try:
        out.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{out.name} cannot be written ({error.strerror})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path.name} cannot be read ({error.strerror})") from error


def _paths(home: Path) -> StationPaths:
    paths = StationPaths(home.resolve())
    if not paths.settings.is_file():
        raise NotFoundError(
            f"there is no station in {home}", hint="Name its folder with --home, or make one with init."
        )
    return paths


def _compute(home: Path) -> Any:  # noqa: ANN401 - imported late, so that --help is quick
    from station.web.client import LocalApi  # noqa: PLC0415

    paths = _paths(home)
    return LocalApi(paths.api_socket, paths.api_token)


def _intake(home: Path) -> Any:  # noqa: ANN401 - imported late, so that --help is quick
    from station.web.client import LocalApi  # noqa: PLC0415

    paths = _paths(home)
    return LocalApi(paths.intake_socket, paths.run / "intake.token")


main = program(app)
