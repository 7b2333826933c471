"""The commands of `pht-board` about documents that are not signed yet: draft, schema; and how a review is shown."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import JsonOption, echo_json, say, say_line
from policies.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.board.reviewing.review import Review
    from policies.board.reviewing.section import Section


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (draft, schema):
        app.command()(command)


def draft(
    source: Annotated[Path, typer.Option("--from", help="train.yaml, or a packed bundle's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The policy file to write; never overwrites one.")],
    requester_key: Annotated[
        str | None, typer.Option(help="Public key of whoever will order runs: hex or a .pub file.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="The board's name, as in its charter.")] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="YAML file of the board's own values, by path: `legal.dpia: DPIA-2026-014`."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a value, such as runs.rounds=5."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="The train's initial weights (safetensors): release.maximum_bytes then holds an update."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft a policy for a train: an example or a skeleton, filled in with what the train says."""
    from policies.board.documents.documents_in import read_file, read_train, tensors_of  # noqa: PLC0415 - each command loads what it needs
    from policies.board.documents.drafting import DraftOptions, draft_policy, read_answers  # noqa: PLC0415
    from policies.board.documents.placeholders import unfinished  # noqa: PLC0415
    from policies.board.signing.keys import read_public  # noqa: PLC0415
    from policies.files import write_atomically  # noqa: PLC0415

    if out.exists():
        raise UsageError(f"{out.name}: is there already", hint="Choose another name, or remove it first.")
    options = DraftOptions(
        now=datetime.now(UTC),
        requester_key=None if requester_key is None else read_public(requester_key),
        board=board,
        answers={} if answers is None else read_answers(read_file(answers), answers.name),
        settings=dict(_split_setting(text) for text in settings or []),
        weights=tensors_of(weights),
    )
    data = draft_policy(read_train(source), options)
    write_atomically(out, data)
    left = unfinished(data)
    if as_json:
        echo_json({"policy": str(out), "left_to_fill_in": left})
        return
    say(f"Drafted {out}." + (f" The board fills in what says FILL IN: {', '.join(left)}." if left else ""))
    say(f"Read it, change it, then: pht-board review {out} --train {source}")


def _split_setting(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {text}: write it as path=value, for example runs.rounds=5")
    return path, value


def reviewed(
    document: Path,
    train_path: Path | None,
    weights: Path | None,
    repository: Path | None,
    *,
    data: bytes | None = None,
) -> "Review":
    """Review the document that a command line names.

    Args:
        document: a policy, a train's manifest, or a bundle.
        train_path: the train that a policy permits.
        weights: its initial weights.
        repository: to compare with the version in force.
        data: the policy's bytes that are about to be signed; the file is not read again.
    """
    from policies.board.documents.documents_in import is_policy, read_file, read_train, tensors_of  # noqa: PLC0415
    from policies.board.documents.listed import policy_in_force  # noqa: PLC0415
    from policies.board.reviewing.review import review_policy, review_train  # noqa: PLC0415
    from policies.documents import digest_of, load_yaml  # noqa: PLC0415
    from policies.policy import Policy  # noqa: PLC0415

    if data is None and (document.is_dir() or not is_policy(read_file(document))):
        return review_train(read_train(document))
    data = read_file(document) if data is None else data
    policy = load_yaml(Policy, data, what=document.name)
    train = None if train_path is None else read_train(train_path)
    previous = None if repository is None else policy_in_force(repository, policy.id)
    found = review_policy(
        policy, data, digest_of(data), train=train, weights=tensors_of(weights), previous=previous
    )
    if repository is None:
        return found
    from policies.board.reviewing.board_words import with_board_words  # noqa: PLC0415

    return with_board_words(found, document, data, repository)


def show_review(found: "Review") -> None:
    """Print a review for a person."""
    show_sections(f"Review of {found.subject}", found.sections, found.attention)


def show_sections(title: str, sections: "Iterable[Section]", attention: "Sequence[str]") -> None:
    """Print what there is to read, and the points to look at."""
    say_line(title)
    for section in sections:
        say(f"\n{section.heading}")
        for line in section.lines:
            say_line(f"  {line}")
    if attention:
        say("\nTo look at")
        for point in attention:
            say_line(f"  ! {point}")


def schema(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default beside the models.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the JSON Schemas of all documents again."""
    from policies.board.documents.schemas import schema_folder, write_schemas  # noqa: PLC0415

    changed = write_schemas(out or schema_folder())
    if as_json:
        echo_json({"changed": changed})
    else:
        say("\n".join(changed) if changed else "All schemas were current.")
