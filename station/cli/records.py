"""The station's two hash chains: the audit and the egress ledger."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from policies.console import JsonOption, echo_json, new_app, say
from policies.errors import RefusedError, StorageError
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api
from station.layout import StationPaths


class ExportForm(StrEnum):
    """How the audit is written out."""

    JSONL = "jsonl"
    DICOM_XML = "dicom-xml"


ExportOption = Annotated[
    Path | None, typer.Option(help="An export to verify instead; needs no running station.")
]

audit_app = new_app("The hash-chained audit.")
egress_app = new_app("The ledger of everything that left.")
app.add_typer(audit_app, name="audit")
app.add_typer(egress_app, name="egress")


@audit_app.command("verify")
def audit_verify(
    home: HomeOption,
    file: ExportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the audit from its first entry; says where it is broken."""
    _verify(home, "audit", file, as_json=as_json)


@audit_app.command("export")
def audit_export(
    out: Annotated[Path, typer.Argument()],
    home: HomeOption,
    form: Annotated[
        ExportForm,
        typer.Option("--format", help="jsonl: the evidence, with a signed head; dicom-xml: a view of it."),
    ] = ExportForm.JSONL,
) -> None:
    """Write the audit: as JSON lines with a signed head, or as DICOM audit messages (PS3.15 A.5)."""
    if form is ExportForm.JSONL:
        _export(home, "audit", out)
        return
    from station.audit.dicom_xml import to_dicom_xml  # noqa: PLC0415
    from station.settings import load_settings  # noqa: PLC0415

    lines = compute_api(home).get_bytes("/v1/chains/audit/export").split(b"\n")
    _write(out, to_dicom_xml(lines, load_settings(home.resolve()).name))


@egress_app.command("verify")
def egress_verify(
    home: HomeOption,
    file: ExportOption = None,
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
        from station.runs.chains import chain_view, verify_file  # noqa: PLC0415

        name: Literal["audit", "egress"] = "audit" if chain == "audit" else "egress"
        view = chain_view(name, verify_file(file, StationPaths(home.resolve()).card, name)).model_dump()
    else:
        view = compute_api(home).get(f"/v1/chains/{chain}")
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


def _export(home: Path, chain: str, out: Path) -> None:
    _write(out, compute_api(home).get_bytes(f"/v1/chains/{chain}/export"))


def _write(out: Path, data: bytes) -> None:
    try:
        out.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{out.name} cannot be written ({error.strerror})") from error
