"""The commands of `pht-board` about the repository: publish, revoke, status, witness, verify."""

import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from policies.board.options import (
    CaOption,
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    PublicOption,
    RepositoryOption,
    TokenOption,
    ToOption,
    opened,
)
from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import RefusedError, UsageError


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (publish, revoke, status, witness, verify):
        app.command()(command)


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
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Put signed policies, registers and tables into force (secretary). They count once the witness has vouched."""
    from policies.board.publishing import stage  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    board = BoardRepository(repository)
    for document in documents or []:
        stage(board, document)
    signer = opened(key, passphrase_file, passphrase, public)
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
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a policy and publish that (secretary). Stations stop within the timestamp's lifetime."""
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    board = BoardRepository(repository)
    signer = opened(key, passphrase_file, passphrase, public)
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
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Vouch for the newest publication, and for where stations' records stand, again and again (the freshness witness)."""
    import logging  # noqa: PLC0415

    from policies.board.witnessing import is_orchestrator, witness_stations  # noqa: PLC0415
    from policies.documents import format_moment  # noqa: PLC0415
    from policies.trust.mirror import push_timestamp  # noqa: PLC0415
    from policies.trust.witness import Witness  # noqa: PLC0415

    if not once and every >= lifetime:
        raise UsageError(
            "--every must be below --lifetime", hint="A quarter of the lifetime leaves room for a failure."
        )
    target, token = _target(publish_to), _token(token_file)
    signer = opened(key, passphrase_file, passphrase, public)
    daemon = Witness(repository, signer, lifetime)

    def send() -> None:
        if target is not None:
            push_timestamp(repository, target, token=token, ca=ca)
            if ca is not None and is_orchestrator(target):
                witness_stations(repository, signer, str(target), token=token, ca=ca)

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


def _target(to: str | None) -> str | Path | None:
    return to if to is None or "://" in to else Path(to)


def _token(file: Path | None) -> str | None:
    from policies.board.documents_in import read_file  # noqa: PLC0415

    return None if file is None else read_file(file).decode("utf-8", "replace").strip()


def _send(repository: Path, to: str | None, token_file: Path | None, ca: Path | None) -> tuple[str, ...]:
    from policies.trust.mirror import push  # noqa: PLC0415

    target = _target(to)
    return () if target is None else push(repository, target, token=_token(token_file), ca=ca)
