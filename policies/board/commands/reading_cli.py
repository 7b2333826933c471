"""The commands of `pht-board` for those who read before they decide: review, diff, similar, simulate."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.documents_cli import reviewed, show_review, show_sections
from policies.board.commands.options import RepositoryOption, TrainOption, WeightsOption
from policies.console import JsonOption, echo_json, say, say_table

if TYPE_CHECKING:
    from policies.board.comparing.images import ImageChanges
    from policies.board.simulation.answers import Simulation

_MOST_LINES = 400

BaseOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--base",
        help="Layers that are known: a bundle, an image config, or the output of `docker image inspect`; may be given again.",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (review, diff, similar, simulate):
        app.command()(command)


def review(
    document: Annotated[
        Path, typer.Argument(help="A policy file, a train.yaml, or a packed bundle's folder.")
    ],
    train: TrainOption = None,
    weights: WeightsOption = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", "-r", help="Compare with the version in force there.")
    ] = None,
    previous: Annotated[
        Path | None, typer.Option("--previous", help="The bundle that was approved before, to compare with.")
    ] = None,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a train asks, what is in its image, what a policy permits, how much could leave."""
    from policies.board.contents.reviewing import with_image  # noqa: PLC0415 - each command loads what it needs
    from policies.board.similarity.reading import with_alike  # noqa: PLC0415

    found = reviewed(document, train, weights, repository)
    found = with_image(found, (document, train), previous=previous, base=tuple(base or ()))
    if repository is not None:
        found = with_alike(found, document, repository, datetime.now(UTC))
    if as_json:
        echo_json(found)
    else:
        show_review(found)


def diff(
    old: Annotated[
        str, typer.Argument(help="Before: a bundle, a train.yaml, a policy file, or policy-id@version.")
    ],
    new: Annotated[str, typer.Argument(help="After: the same kind of thing.")],
    repository: Annotated[
        Path | None, typer.Option("--repository", "-r", help="Where policy-id@version is listed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what changed: fields that widen or narrow, packages, licences, and the lines of the train's own source."""
    from policies.board.comparing.comparison import attention_of, compare, sections_of  # noqa: PLC0415

    found = compare(old, new, repository)
    attention = attention_of(found)
    if as_json:
        echo_json({"comparison": found, "attention": attention})
        return
    show_sections(f"What changed: {found.before} -> {found.after}", sections_of(found), attention)
    if found.image is not None:
        _show_source(found.image)


def _show_source(image: "ImageChanges") -> None:
    left = _MOST_LINES
    for change in image.files:
        if not change.lines:
            continue
        say(f"\n{' '.join(change.path.split())} ({change.happened})")
        for line in change.lines[:left]:
            # Set in, so that no line of a source can pass for one of ours.
            say("    " + line)
        left -= len(change.lines)
        if left <= 0:
            say(f"\nOnly the first {_MOST_LINES} lines are shown; --json has them all.")
            return


def similar(
    document: Annotated[
        Path, typer.Argument(help="A policy file, a train.yaml, or a packed bundle's folder.")
    ],
    repository: RepositoryOption,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Show those that are at least so much alike, 0 to 1."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all, whatever their likeness.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find research questions that were approved before and look alike, in Dutch or English, and say why."""
    from policies.board.similarity.questions import THRESHOLD  # noqa: PLC0415
    from policies.board.similarity.reading import ranked  # noqa: PLC0415

    least = THRESHOLD if threshold is None else threshold
    found = ranked(document, repository, datetime.now(UTC))
    shown = [each for each in found if everything or each.score >= least]
    if as_json:
        echo_json(shown)
        return
    if not shown:
        say(f"Nothing that was approved looks alike: {len(found)} compared, none at {least:g} or more.")
        return
    for each in shown:
        whose = "the same requester" if each.same_requester else each.organisation
        say(f"{each.score:.2f}  {each.name} ({whose}{'' if each.in_force else '; not in force now'})")
        say(f"      {' '.join(each.title.split())}")
        say(f"      words {each.words:.2f}: {', '.join(each.shared_words) or 'none shared'}")
        say(f"      asked for {each.asked:.2f}: {', '.join(each.shared_asked) or 'nothing shared'}")


def simulate(
    policy: Annotated[str, typer.Argument(help="A policy file, signed or not yet, or policy-id@version.")],
    profile: Annotated[
        list[Path], typer.Option("--profile", "-p", help="A station's signed profile; may be given again.")
    ],
    identity: Annotated[
        list[str] | None,
        typer.Option("--identity", help="Key of a station that no register names: hex or a .pub file."),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            "--repository", "-r", help="Register of stations and table of purposes come from there."
        ),
    ] = None,
    train: TrainOption = None,
    order: Annotated[Path | None, typer.Option("--order", help="A signed run order.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Ask about this moment, 2026-01-31T12:00:00Z.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a train would run at stations, rule by rule, from the profiles that these exported."""
    from policies.board.signing.keys import read_public  # noqa: PLC0415
    from policies.board.simulation import answers, reading  # noqa: PLC0415

    now = datetime.now(UTC) if at is None else reading.moment_of(at)
    question = reading.question_of(policy, train, order, repository, now)
    keys = [read_public(key) for key in identity or []]
    found = answers.simulate(question, reading.read_profiles(profile, keys, question.register))
    if as_json:
        echo_json(found)
    else:
        _show_simulation(found)


def _show_simulation(found: "Simulation") -> None:
    rules = list(dict.fromkeys(rule.rule for station in found.stations for rule in station.rules))
    by_station = [{rule.rule: rule.answer for rule in station.rules} for station in found.stations]
    rows = [[name, *(answers.get(name, "-") for answers in by_station)] for name in rules]
    say_table("Would it run there?", ["rule", *(station.station for station in found.stations)], rows)
    for station in found.stations:
        say(
            f"\n{station.station}: {'nothing refuses' if station.could_run else 'would refuse'} (profile of {station.made})"
        )
        for rule in station.rules:
            for reason in rule.reasons:
                say(f"  no, {rule.rule}: {reason}")
            if rule.note:
                say(f"  {rule.rule}: {rule.note}")
    say(f"\n{found.verdict}")
