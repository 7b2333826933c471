"""Pseudonymising a folder or a zip on its own, without a station."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, say
from policies.errors import DataError
from station.cli.program import app

if TYPE_CHECKING:
    from station.intake.tool.request import ToolRequest
    from station.pseudonymisation.options import DeidentificationOptions


class OptionChoice(StrEnum):
    """Options of PS3.15 Annex E beside the Basic Profile."""

    MODIFIED_DATES = "modified-dates"
    PATIENT_CHARACTERISTICS = "patient-characteristics"
    DEVICE_IDENTITY = "device-identity"
    CLEAN_DESCRIPTORS = "clean-descriptors"
    SAFE_PRIVATE = "safe-private"


class PixelChoice(StrEnum):
    """What is done about text and faces in pixels."""

    REQUIRE = "require"
    DETECT_ONLY = "detect-only"
    OFF = "off"


SourceArgument = Annotated[Path, typer.Argument(help="A folder of DICOM files, or a zip file.", exists=True)]
TargetArgument = Annotated[Path, typer.Argument(help="A new folder for the pseudonymised images.")]
KeyOption = Annotated[Path, typer.Option(help="The hospital's pseudonym key (0600).", dir_okay=False)]
NewKeyOption = Annotated[bool, typer.Option("--new-key", help="Make the key file; there must be none.")]
ProjectOption = Annotated[str, typer.Option(help="Pseudonyms of one project do not link to another's.")]
IssuerOption = Annotated[str, typer.Option(help="Who issued patient ids that come without an issuer.")]
OptionOption = Annotated[
    list[OptionChoice] | None,
    typer.Option(help="Beside the Basic Profile; may be given again. Default: modified-dates."),
]
NoOptionsOption = Annotated[
    bool, typer.Option("--no-options", help="The Basic Profile alone: no date stays.")
]
SafePrivateOption = Annotated[
    list[str] | None, typer.Option(help="With safe-private: also this element, creator:gggg,xxee:VR.")
]
PixelsOption = Annotated[
    PixelChoice,
    typer.Option(
        help="require: text in films is found by both detectors and masked, and what is doubtful left out; "
        "detect-only: by our own detector where tesseract is missing; off: nobody looks."
    ),
]
KeepFacesOption = Annotated[
    bool, typer.Option("--keep-faces", help="Also images in which a face could be made out.")
]
JobsOption = Annotated[int, typer.Option(help="How many processes work.", min=1, max=256)]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        help="Also write old and new identifiers (id_old,id_new) to this folder; audited beside the key."
    ),
]


@app.command()
def pseudonymise(
    source: SourceArgument,
    target: TargetArgument,
    key: KeyOption,
    new_key: NewKeyOption = False,
    project: ProjectOption = "registry",
    issuer: IssuerOption = "",
    option: OptionOption = None,
    no_options: NoOptionsOption = False,
    safe_private: SafePrivateOption = None,
    pixels: PixelsOption = PixelChoice.REQUIRE,
    keep_faces: KeepFacesOption = False,
    jobs: JobsOption = 1,
    mapping_to: MappingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pseudonymise a folder or a zip into a folder; run it again to go on where it stopped.

    Ends with exit code 8 when a file has no output; the report says how many, and why.
    """
    from station.intake.tool.request import ToolRequest  # noqa: PLC0415 - starts faster without

    chosen = [] if no_options else [choice.value for choice in option or [OptionChoice.MODIFIED_DATES]]
    request = ToolRequest(
        source=source,
        target=target,
        key=key,
        project=project,
        default_issuer=issuer,
        options=_options(chosen, safe_private or []),
        pixels=pixels.value,
        keep_faces=keep_faces,
        jobs=jobs,
    )
    if new_key:
        _make_key(key)
    _run(request, mapping_to, as_json=as_json)


def _run(request: "ToolRequest", mapping_to: Path | None, *, as_json: bool) -> None:
    from station.intake.tool.running import pseudonymise as run  # noqa: PLC0415

    with _progress(quiet=as_json) as tell:
        report = run(request, mapping_to, tell)
    if as_json:
        echo_json(report)
    else:
        say(report.readable().rstrip("\n"))
    if report.failed:
        raise DataError(
            f"{sum(report.failed.values())} of {report.files} files have no output",
            hint="The report says why.",
        )


def _options(chosen: list[str], safe_private: list[str]) -> "DeidentificationOptions":
    from station.pseudonymisation.options import options_of  # noqa: PLC0415

    return options_of(chosen, safe_private)


def _make_key(path: Path) -> None:
    from station.pseudonymisation.keys import PseudonymKey  # noqa: PLC0415

    PseudonymKey.generate(path, now=datetime.now(UTC))


@contextmanager
def _progress(*, quiet: bool) -> "Iterator[Callable[[int, int], None]]":
    """Show a bar on a terminal; tell nothing where a script listens."""
    if quiet or not sys.stderr.isatty():
        yield _tell_nothing
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pseudonymising", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tell_nothing(done: int, total: int) -> None:
    del done, total
