"""The commands of `pht-board` about the repository: init, root, publish, revoke, status, witness, verify."""

import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.options import (
    CaOption,
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    RepositoryOption,
    TokenOption,
    ToOption,
)
from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from policies.policy import Policy
    from policies.signing import Signer
    from policies.trust.root import RootPlan, RootSignatures

FolderArgument = Annotated[Path, typer.Argument(help="The repository's folder.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (init, root, publish, revoke, status, witness, verify):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the repository.")],
    charter: Annotated[Path, typer.Option(help="The charter (YAML): members, threshold, required roles.")],
    secretary_key: Annotated[str, typer.Option(help="Public key that may publish: hex or a .pub file.")],
    witness_key: Annotated[
        str, typer.Option(help="Public key of the freshness witness: hex or a .pub file.")
    ],
    root_threshold: Annotated[
        int | None, typer.Option(help="Members it takes to change charter or keys; by default the charter's.")
    ] = None,
    sign_with: Annotated[
        list[Path] | None,
        typer.Option("--sign-with", help="A member's key that is at hand; may be given again."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a board's repository; its members sign the root next."""
    from policies.board.keys import open_key  # noqa: PLC0415 - each command loads what it needs
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    plan = _plan(charter, secretary_key, witness_key, root_threshold)
    signers = [open_key(path, None) for path in sign_with or []]
    repository = BoardRepository.create(folder, plan, signers, now=datetime.now(UTC))
    _show_root(repository.root.drafted(), folder, as_json=as_json)


def root(
    folder: FolderArgument,
    charter: Annotated[Path, typer.Option(help="The charter as it is to be from now on (YAML).")],
    secretary_key: Annotated[str, typer.Option(help="Public key that may publish: hex or a .pub file.")],
    witness_key: Annotated[
        str, typer.Option(help="Public key of the freshness witness: hex or a .pub file.")
    ],
    root_threshold: Annotated[
        int | None, typer.Option(help="Members it takes to change charter or keys; by default the charter's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next root: another charter, rotated keys, or a new lifetime. Old and new members sign it."""
    from policies.trust.root import BoardRoot  # noqa: PLC0415

    board_root = BoardRoot(folder)
    board_root.in_force()
    board_root.propose(_plan(charter, secretary_key, witness_key, root_threshold), now=datetime.now(UTC))
    _show_root(board_root.drafted(), folder, as_json=as_json)


def _plan(charter: Path, secretary_key: str, witness_key: str, threshold: int | None) -> "RootPlan":
    from policies.board.keys import read_public  # noqa: PLC0415
    from policies.charter import Charter  # noqa: PLC0415
    from policies.documents import load_yaml_file  # noqa: PLC0415
    from policies.trust.root import RootPlan  # noqa: PLC0415

    found = load_yaml_file(Charter, charter)
    return RootPlan(found, threshold or found.threshold, read_public(secretary_key), read_public(witness_key))


def sign_root(folder: Path, signer: "Callable[[], Signer]", *, yes: bool, as_json: bool) -> None:
    """Show the drafted charter to a member and add the member's signature."""
    from policies.trust.root import BoardRoot  # noqa: PLC0415

    board_root = BoardRoot(folder)
    charter = board_root.drafted_charter()
    if not as_json:
        say(f"Charter of {charter.title} ({charter.board})")
        roles = ", ".join(charter.required_roles) or "any"
        say(
            f"  {charter.threshold} of {len(charter.members)} members sign a policy; roles among them: {roles}"
        )
        for member in charter.members:
            say(f"  {member.role}: {member.name}, {member.organisation}, {member.key}")
        for key in charter.development_keys:
            say(f"  alone, for public and synthetic data: {key}")
    confirm("Sign this charter and its keys?", yes=yes)
    _show_root(board_root.sign(signer()), folder, as_json=as_json)


def _show_root(found: "RootSignatures | None", folder: Path, *, as_json: bool) -> None:
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
            {"in_force": False, "version": found.version, "signed": found.signed, "needed": found.needed}
        )
    else:
        say(f"Root {found.version}: {found.signed} of {found.needed} signatures.")
        say(f"Members sign with: pht-board sign --root {folder} --key KEY")


def publish(
    repository: RepositoryOption,
    key: KeyOption,
    documents: Annotated[
        list[Path] | None, typer.Argument(help="Signed files to add: *.dsse.json, or the YAML beside them.")
    ] = None,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    renew: Annotated[bool, typer.Option("--renew", help="Publish though nothing changed.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Put signed policies and registers into force (secretary). They count once the witness has vouched."""
    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.board.signing_desk import envelope_path, payload_type_of  # noqa: PLC0415
    from policies.charter import POLICY_PAYLOAD_TYPE  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    board = BoardRepository(repository)
    envelopes = [
        read_file(path if path.name.endswith(".dsse.json") else envelope_path(path))
        for path in documents or []
    ]
    for envelope in envelopes:
        if payload_type_of(envelope) == POLICY_PAYLOAD_TYPE:
            board.add_policy(envelope)
        else:
            board.set_register(envelope)
    signer = _open(key, passphrase_file, passphrase)
    done = board.publish(signer, now=datetime.now(UTC), renew=renew)
    sent = _send(repository, to, token_file, ca)
    if as_json:
        echo_json({"publication": done, "sent": sent})
        return
    if not done.changed:
        say(f"Nothing to publish: version {done.version} stands.")
    else:
        say(f"Published version {done.version}.")
    for path in done.added:
        say(f"  + {path}")
    for path in done.removed:
        say(f"  - {path}")
    if to is not None:
        say(f"Sent {len(sent)} files to the mirror.")
    if done.changed:
        say("It counts when the witness has vouched for it: `pht-board witness`.")


def revoke(
    policy_id: Annotated[str, typer.Argument(help="The policy's id.")],
    version: Annotated[int, typer.Argument(help="Its version.")],
    reason: Annotated[str, typer.Option(help="Why, in a sentence that may be read by anyone.")],
    repository: RepositoryOption,
    key: KeyOption,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a policy and publish that (secretary). Stations stop within the timestamp's lifetime."""
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    board = BoardRepository(repository)
    signer = _open(key, passphrase_file, passphrase)
    now = datetime.now(UTC)
    board.revoke(policy_id, version, reason, now=now)
    done = board.publish(signer, now=now)
    sent = _send(repository, to, token_file, ca)
    if as_json:
        echo_json({"publication": done, "sent": sent})
        return
    say(f"Withdrew {policy_id} version {version}: published version {done.version}.")
    say("Stations stop as soon as they see the witness's next timestamp.")


def status(repository: RepositoryOption, as_json: JsonOption = False) -> None:
    """Show what is in force, what waits, and what lapses when."""
    from policies.board.status import status_of  # noqa: PLC0415
    from policies.documents import format_moment  # noqa: PLC0415

    found = status_of(repository, datetime.now(UTC))
    if as_json:
        echo_json(found)
        return
    say(f"{found.title} ({found.board})")
    lifetimes = [(role.role, role.version, format_moment(role.expires), role.left) for role in found.roles]
    say_table("Lifetimes", ("role", "version", "expires", "left"), lifetimes)
    rows = [
        (p.policy_id, p.version, p.title, ", ".join(p.signers), p.refusal or "in force")
        for p in found.policies
    ]
    say()
    say_table("Policies", ("id", "version", "title", "signed by", "state"), rows)
    say()
    stations = ", ".join(found.stations) or "none"
    say(f"Register of stations: version {found.register_version}: {stations}")
    for warning in found.warnings:
        say(f"! {warning}")


def witness(
    repository: RepositoryOption,
    key: KeyOption,
    every: Annotated[float, typer.Option(help="Seconds between signatures.")] = 900.0,
    lifetime: Annotated[int, typer.Option(help="Seconds that a signature counts.")] = 3600,
    publish_to: Annotated[
        str | None,
        typer.Option("--publish-to", help="Bring each timestamp to this mirror: https, or a folder."),
    ] = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    once: Annotated[bool, typer.Option("--once", help="Sign once and end.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Vouch for the newest publication again and again (the freshness witness)."""
    import logging  # noqa: PLC0415

    from policies.documents import format_moment  # noqa: PLC0415
    from policies.trust.mirror import push_timestamp  # noqa: PLC0415
    from policies.trust.witness import Witness  # noqa: PLC0415

    if not once and every >= lifetime:
        raise UsageError(
            "--every must be below --lifetime", hint="A quarter of the lifetime leaves room for a failure."
        )
    target, token = _target(publish_to), _token(token_file)
    daemon = Witness(repository, _open(key, passphrase_file, passphrase), lifetime)

    def send() -> None:
        if target is not None:
            push_timestamp(repository, target, token=token, ca=ca)

    if once:
        vouched = daemon.sign_once(datetime.now(UTC))
        send()
        if as_json:
            echo_json(vouched)
        else:
            say(f"Vouched for publication {vouched.snapshot_version} until {format_moment(vouched.expires)}.")
        return
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    daemon.run(every, stop, lambda: datetime.now(UTC), send)


def verify(
    mirror: Annotated[str, typer.Argument(help="A mirror: https address or folder.")],
    root_file: Annotated[Path, typer.Option("--root", help="The board's first root, as you received it.")],
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a mirror as a station would, and show what is in force there."""
    import tempfile  # noqa: PLC0415

    from policies.board.documents_in import read_file  # noqa: PLC0415
    from policies.documents import format_moment  # noqa: PLC0415
    from policies.refusal_texts import text_of  # noqa: PLC0415
    from policies.refusals import Refused  # noqa: PLC0415
    from policies.trust.client import PolicyClient  # noqa: PLC0415

    target = _target(mirror) or Path()
    with tempfile.TemporaryDirectory(prefix="pht-verify-") as scratch:
        PolicyClient.pin(Path(scratch), read_file(root_file))
        result = PolicyClient(Path(scratch), target, ca=ca).refresh(datetime.now(UTC))
    if isinstance(result, Refused):
        text = text_of(result.code)
        detail = result.reasons[0].detail
        raise RefusedError(result.code, f"{text.means}{f' ({detail})' if detail else ''}", hint=text.do)
    found = result.value
    if as_json:
        policies = [
            {"id": key[0], "version": key[1], "digest": p.digest} for key, p in found.policies.items()
        ]
        stations = [station.name for station in found.register.stations] if found.register else []
        echo_json({"state": found.state, "policies": policies, "stations": stations})
        return
    say(f"Verified: {found.charter.title}, fresh until {format_moment(found.state.expires)}.")
    for key, policy in found.policies.items():
        say(f"  {key[0]} version {key[1]}: {policy.policy.title}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask for a typed yes.

    Raises:
        UsageError: nobody is there to ask.
        Abort: the answer is another one.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a yes", hint="Give --yes once you have read what is signed."
        )
    if input(f"{question} Type yes: ").strip().lower() != "yes":
        raise typer.Abort


def policy_in_force(repository: Path, policy_id: str) -> "Policy | None":
    """Return the listed version of a policy, or None."""
    from policies.charter import POLICY_PAYLOAD_TYPE  # noqa: PLC0415
    from policies.documents import load_yaml  # noqa: PLC0415
    from policies.policy import Policy  # noqa: PLC0415
    from policies.signing import unsafe_payload  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415
    from policies.trust.verification import parse_policy_target  # noqa: PLC0415

    for path, data in BoardRepository(repository).listed().items():
        key = parse_policy_target(path)
        if key is not None and key[0] == policy_id:
            return load_yaml(Policy, unsafe_payload(data, POLICY_PAYLOAD_TYPE), what=path)
    return None


def _open(key: Path, passphrase_file: Path | None, passphrase: str | None) -> "Signer":
    from policies.board.keys import open_key, read_passphrase  # noqa: PLC0415

    return open_key(key, read_passphrase(passphrase_file, passphrase))


def _target(to: str | None) -> str | Path | None:
    return to if to is None or "://" in to else Path(to)


def _token(file: Path | None) -> str | None:
    from policies.board.documents_in import read_file  # noqa: PLC0415

    return None if file is None else read_file(file).decode("utf-8", "replace").strip()


def _send(repository: Path, to: str | None, token_file: Path | None, ca: Path | None) -> tuple[str, ...]:
    from policies.trust.mirror import push  # noqa: PLC0415

    target = _target(to)
    return () if target is None else push(repository, target, token=_token(token_file), ca=ca)
