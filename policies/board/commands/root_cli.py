"""The commands of `pht-board` about the root: who decides, with which keys, and until when."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.options import confirm
from policies.console import JsonOption, echo_json, say, say_line
from policies.documents import format_moment
from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.signing import Signer
    from policies.trust.root import DraftedRoot, RootPlan, RootSignatures

FolderArgument = Annotated[Path, typer.Argument(help="The repository's folder.")]

SecretaryKeyOption = Annotated[str, typer.Option(help="Public key that may publish: hex or a .pub file.")]
WitnessKeyOption = Annotated[
    str, typer.Option(help="Public key of the freshness witness: hex or a .pub file.")
]
ThresholdOption = Annotated[
    int | None, typer.Option(help="Members it takes to change charter or keys; by default the charter's.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (init, root, rotate):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the repository.")],
    charter: Annotated[Path, typer.Option(help="The charter (YAML): members, threshold, required roles.")],
    secretary_key: SecretaryKeyOption,
    witness_key: WitnessKeyOption,
    root_threshold: ThresholdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a board's repository; its members sign the root next."""
    from policies.trust.repository import BoardRepository  # noqa: PLC0415 - each command loads what it needs

    plan = _plan(charter, secretary_key, witness_key, root_threshold)
    repository = BoardRepository.create(folder, plan, now=datetime.now(UTC))
    _show_root(repository.root.drafted(), folder, as_json=as_json)


def root(
    folder: FolderArgument,
    charter: Annotated[Path, typer.Option(help="The charter as it is to be from now on (YAML).")],
    secretary_key: SecretaryKeyOption,
    witness_key: WitnessKeyOption,
    root_threshold: ThresholdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next root: another charter, rotated keys, or a new lifetime. Old and new members sign it."""
    from policies.trust.root import BoardRoot  # noqa: PLC0415

    board_root = BoardRoot(folder)
    board_root.in_force()
    board_root.propose(_plan(charter, secretary_key, witness_key, root_threshold), now=datetime.now(UTC))
    _show_root(board_root.drafted(), folder, as_json=as_json)


def rotate(
    folder: FolderArgument,
    secretary_key: Annotated[
        str | None, typer.Option(help="The secretary's new public key: hex or a .pub file.")
    ] = None,
    witness_key: Annotated[
        str | None, typer.Option(help="The witness's new public key: hex or a .pub file.")
    ] = None,
    member: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KEY", help="A member's new public key; may be given again."),
    ] = None,
    remove_member: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A member who leaves; may be given again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next root by what changes; with no option it only lives longer. Old and new keys sign it."""
    from policies.board.signing.keys import read_public  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415
    from policies.trust.root import BoardRoot  # noqa: PLC0415
    from policies.trust.rotation import RootChanges, rotated, to_sign_again  # noqa: PLC0415

    board_root = BoardRoot(folder)
    board_root.in_force()
    if board_root.drafted() is not None:
        raise UsageError(
            "another root waits for signatures already",
            hint=f"Have it signed, or remove {folder.name}/draft/root.json to begin anew.",
        )
    changes = RootChanges(
        secretary_key=None if secretary_key is None else read_public(secretary_key),
        witness_key=None if witness_key is None else read_public(witness_key),
        members=dict(_member_key(text) for text in member or []),
        removed=tuple(remove_member or []),
    )
    after = rotated(board_root.plan(), changes)
    board_root.propose(after, now=datetime.now(UTC))
    again = to_sign_again(BoardRepository(folder).listed(), after.charter)
    _show_root(board_root.drafted(), folder, as_json=as_json, again=again)


def _member_key(text: str) -> tuple[str, str]:
    from policies.board.signing.keys import read_public  # noqa: PLC0415

    name, equals, key = text.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--member {text}: write it as NAME=key.pub")
    return name, read_public(key)


def _plan(charter: Path, secretary_key: str, witness_key: str, threshold: int | None) -> "RootPlan":
    from policies.board.signing.keys import read_public  # noqa: PLC0415
    from policies.charter import Charter  # noqa: PLC0415
    from policies.documents import load_yaml_file  # noqa: PLC0415
    from policies.trust.root import RootPlan  # noqa: PLC0415

    found = load_yaml_file(Charter, charter)
    return RootPlan(found, threshold or found.threshold, read_public(secretary_key), read_public(witness_key))


def sign_root(folder: Path, signer: "Callable[[], Signer]", *, yes: bool, as_json: bool) -> None:
    """Show the drafted root to a member and add the member's signature, over the very bytes that were shown."""
    from policies.trust.root import BoardRoot  # noqa: PLC0415

    board_root = BoardRoot(folder)
    drafted = board_root.to_sign(datetime.now(UTC))
    if not as_json:
        _show_draft(drafted, board_root.plan() if board_root.exists() else None)
    confirm("Sign this charter and its keys?", yes=yes, as_json=as_json)
    _show_root(board_root.sign(signer(), drafted.signed_bytes), folder, as_json=as_json)


def _show_draft(drafted: "DraftedRoot", before: "RootPlan | None") -> None:
    from policies.trust.rotation import changes_in_words  # noqa: PLC0415

    plan, charter = drafted.plan, drafted.plan.charter
    members = len(charter.members)
    say_line(f"Charter of {charter.title} ({charter.board}), root {drafted.version}")
    roles = ", ".join(charter.required_roles) or "any"
    say_line(f"  {charter.threshold} of {members} members sign a policy; roles among them: {roles}")
    say_line(f"  {plan.threshold} of {members} members sign a root: another charter, other keys")
    say_line(f"  in force until {format_moment(drafted.expires)}")
    for member in charter.members:
        say_line(f"  {member.role}: {member.name}, {member.organisation}, {member.key}")
    for key in charter.development_keys:
        say_line(f"  alone, for public and synthetic data: {key}")
    say_line(f"  secretary, who publishes: {plan.secretary_key}")
    say_line(f"  freshness witness: {plan.witness_key}")
    for line in changes_in_words(before, plan):
        say_line(f"Changes: {line}")


def _show_root(
    found: "RootSignatures | None", folder: Path, *, as_json: bool, again: tuple[str, ...] = ()
) -> None:
    first = folder / "metadata" / "1.root.json"
    if found is None or found.valid:
        if as_json:
            echo_json({"in_force": True, "root": str(first)})
        else:
            say("The root is in force.")
            say(f"Stations pin {first}: hand it to them by a way the orchestrator has no hand in.")
        return
    if as_json:
        echo_json(
            {
                "in_force": False,
                "version": found.version,
                "signed": found.signed,
                "needed": found.needed,
                "to_sign_again": again,
            }
        )
    else:
        say(f"Root {found.version}: {found.signed} of {found.needed} signatures.")
        say(f"Members sign with: pht-board sign --root {folder} --key KEY")
        for document in again:
            say_line(
                f"! {document} lacks signatures with the keys of this root: have it signed and published again"
            )
