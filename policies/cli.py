"""`pht-board`: what members of the governance board, its secretary and its freshness witness type.

Parses, calls one use case of `policies.board` or `policies.trust`, renders. Exit codes: `policies.errors.ExitCode`.
Commands about documents are here, those about the repository in `policies.board.repository_cli`.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board import profile_cli, repository_cli
from policies.board.options import KeyOption, PassphraseEnvironment, PassphraseFile, YesOption
from policies.console import JsonOption, echo_json, new_app, program, say
from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.board.review import Review
    from policies.board.signing_desk import SignedFile
    from policies.charter import StationRegister
    from policies.signing import Signer

app = new_app("Review, sign, publish and revoke what trains may do; keep the policy repository fresh.")
member_app = new_app("The keys of members, secretary, witness and requesters.")
app.add_typer(member_app, name="member")
repository_cli.add_commands(app)
profile_cli.add_commands(app)

TrainOption = Annotated[
    Path | None, typer.Option("--train", help="The train: train.yaml, or a packed bundle's folder.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Initial weights (safetensors), to count what a release can hold."),
]


@member_app.command("new")
def member_new(
    key: Annotated[Path, typer.Argument(help="The new key file; its public part goes beside it as .pub.")],
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the file unencrypted: for a daemon's key.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key."""
    from policies.board.keys import choose_passphrase, new_key, public_file, read_passphrase  # noqa: PLC0415

    given = read_passphrase(passphrase_file, passphrase)
    if given is None and not no_passphrase:
        given = choose_passphrase()
    public_hex = new_key(key, None if no_passphrase else given)
    if as_json:
        echo_json({"key": str(key), "public_file": str(public_file(key)), "public_key": public_hex})
        return
    say(
        f"Key:        {key} (keep it; {'not encrypted' if no_passphrase else 'encrypted with the passphrase'})"
    )
    say(f"Public key: {public_hex}")
    say(f"            also in {public_file(key)}, to hand out")


@member_app.command("show")
def member_show(
    key: KeyOption,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Show the public part of a key."""
    public_hex = _open(key, passphrase_file, passphrase).public_hex
    if as_json:
        echo_json({"public_key": public_hex})
    else:
        say(public_hex)


@app.command()
def draft(
    source: Annotated[Path, typer.Option("--from", help="train.yaml, or a packed bundle's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The policy file to write; never overwrites one.")],
    requester_key: Annotated[
        str | None, typer.Option(help="Public key of whoever will order runs: hex or a .pub file.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="The board's name, as in its charter.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a value, such as runs.rounds=5."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft a policy for a train: an example or a skeleton, filled in with what the train says."""
    from policies.board.documents_in import read_train  # noqa: PLC0415 - each command loads what it needs
    from policies.board.drafting import DraftOptions, draft_policy, unfinished  # noqa: PLC0415
    from policies.board.keys import read_public  # noqa: PLC0415
    from policies.files import write_atomically  # noqa: PLC0415

    if out.exists():
        raise UsageError(f"{out.name}: is there already", hint="Choose another name, or remove it first.")
    options = DraftOptions(
        now=datetime.now(UTC),
        requester_key=None if requester_key is None else read_public(requester_key),
        board=board,
        settings=dict(_split_setting(text) for text in settings or []),
    )
    data = draft_policy(read_train(source), options)
    write_atomically(out, data)
    left = len(unfinished(data))
    if as_json:
        echo_json({"policy": str(out), "left_to_fill_in": left})
        return
    say(f"Drafted {out}." + (f" {left} lines say FILL IN." if left else ""))
    say(f"Read it, change it, then: pht-board review {out} --train {source}")


def _split_setting(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--set {text}: write it as path=value, for example runs.rounds=5")
    return path, value


@app.command()
def review(
    document: Annotated[
        Path, typer.Argument(help="A policy file, a train.yaml, or a packed bundle's folder.")
    ],
    train: TrainOption = None,
    weights: WeightsOption = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", "-r", help="Compare with the version in force there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a train asks, or what a policy permits and how much could leave."""
    found = _review(document, train, weights, repository)
    if as_json:
        echo_json(found)
    else:
        _show(found)


def _review(
    document: Path, train_path: Path | None, weights: Path | None, repository: Path | None
) -> "Review":
    from policies.board.documents_in import elements_of, is_policy, read_file, read_train  # noqa: PLC0415
    from policies.board.review import review_policy, review_train  # noqa: PLC0415
    from policies.documents import digest_of, load_yaml  # noqa: PLC0415
    from policies.policy import Policy  # noqa: PLC0415

    if document.is_dir() or not is_policy(read_file(document)):
        return review_train(read_train(document))
    data = read_file(document)
    policy = load_yaml(Policy, data, what=document.name)
    train = None if train_path is None else read_train(train_path)
    previous = None if repository is None else repository_cli.policy_in_force(repository, policy.id)
    return review_policy(
        policy, data, digest_of(data), train=train, elements=elements_of(weights), previous=previous
    )


def _show(found: "Review") -> None:
    say(f"Review of {found.subject}")
    for section in found.sections:
        say(f"\n{section.heading}")
        for line in section.lines:
            # One line each: a text with line breaks could pass for a heading of ours.
            say(f"  {' '.join(line.split())}")
    if found.attention:
        say("\nTo look at")
        for point in found.attention:
            say(f"  ! {' '.join(point.split())}")


@app.command()
def sign(
    key: KeyOption,
    document: Annotated[Path | None, typer.Argument(help="The policy file; omit it with --root.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Sign the drafted root of the repository in this folder.")
    ] = None,
    train: TrainOption = None,
    weights: WeightsOption = None,
    yes: YesOption = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a policy file (or, with --root, the board's charter), after showing what is signed."""
    if (document is None) == (root is None):
        raise UsageError("name a policy file, or the repository with --root, and not both")
    if root is not None:
        repository_cli.sign_root(
            root, lambda: _open(key, passphrase_file, passphrase), yes=yes, as_json=as_json
        )
        return
    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing_desk import read_policy, sign_document  # noqa: PLC0415
    from policies.charter import POLICY_PAYLOAD_TYPE  # noqa: PLC0415

    path = document or Path()
    data = read_file(path)
    policy = read_policy(data, path.name)
    if not as_json:
        _show(_review(path, train, weights, None))
        say()
    repository_cli.confirm(f"Sign {policy.id}, version {policy.version}?", yes=yes)
    signer = _open(key, passphrase_file, passphrase)
    _show_signed(sign_document(path, data, POLICY_PAYLOAD_TYPE, signer), as_json=as_json)


@app.command()
def register(
    document: Annotated[Path, typer.Argument(help="The register of stations (YAML).")],
    key: KeyOption,
    yes: YesOption = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the register of stations: who takes part, with which keys, under which agreement."""
    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing_desk import read_register, sign_document  # noqa: PLC0415
    from policies.charter import REGISTER_PAYLOAD_TYPE  # noqa: PLC0415

    data = read_file(document)
    found = read_register(data, document.name)
    if not as_json:
        _show_register(found)
    repository_cli.confirm(f"Sign version {found.version} of the register?", yes=yes)
    signer = _open(key, passphrase_file, passphrase)
    _show_signed(sign_document(document, data, REGISTER_PAYLOAD_TYPE, signer), as_json=as_json)


def _show_register(found: "StationRegister") -> None:
    say(f"Register of stations of {found.board}, version {found.version}")
    for station in found.stations:
        say(f"  {station.name}: {station.organisation} ({station.country})")
        say(f"    agreement {station.agreement.reference}, until {station.agreement.expires}")
        say(f"    identity {station.identity_key}")
        say(f"    node     {station.node_key[:60]}...")


def _show_signed(done: "SignedFile", *, as_json: bool) -> None:
    if as_json:
        echo_json(done)
        return
    say(f"Signed {done.digest}")
    say(
        f"{done.envelope} holds {done.signatures} signature{'' if done.signatures == 1 else 's'}: pass it on with the file."
    )


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default beside the models.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the JSON Schemas of all documents again."""
    from policies.board.schemas import schema_folder, write_schemas  # noqa: PLC0415

    changed = write_schemas(out or schema_folder())
    if as_json:
        echo_json({"changed": changed})
    else:
        say("\n".join(changed) if changed else "All schemas were current.")


def _open(key: Path, passphrase_file: Path | None, passphrase: str | None) -> "Signer":
    from policies.board.keys import open_key, read_passphrase  # noqa: PLC0415

    return open_key(key, read_passphrase(passphrase_file, passphrase))


main = program(app)
