"""The commands of `pht-board` that look at the repository and keep it fresh: status, witness, verify."""

import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.options import (
    CaOption,
    KeyOption,
    PassphraseEnvironment,
    PassphraseFile,
    PublicOption,
    RepositoryOption,
    TokenOption,
    mirror_target,
    mirror_token,
    opened,
)
from policies.board.documents.wording import opinion_in_words, withdrawals_in_words
from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from policies.trust.policy_set import PolicySet


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (status, witness, verify):
        app.command()(command)


def status(repository: RepositoryOption, as_json: JsonOption = False) -> None:
    """Show what is in force, what waits, and what lapses when."""
    from policies.board.publishing.status import status_of  # noqa: PLC0415
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
    for policy in found.policies:
        for opinion in policy.opinions:
            say(f"{policy.policy_id} version {policy.version}: {opinion}")
    stations = ", ".join(found.stations) or "none"
    say(f"Register of stations: version {found.register_version}: {stations}")
    say(
        f"Table of purposes: version {found.purposes_version}"
        if found.purposes_version
        else "No table of purposes."
    )
    for withdrawn in found.revoked:
        say(f"Withdrawn: {withdrawn}")
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

    from policies.board.publishing.witnessing import is_orchestrator, witness_stations  # noqa: PLC0415
    from policies.documents import format_moment  # noqa: PLC0415
    from policies.trust.mirror import push_timestamp  # noqa: PLC0415
    from policies.trust.witness import Witness  # noqa: PLC0415

    if not once and every >= lifetime:
        raise UsageError(
            "--every must be below --lifetime", hint="A quarter of the lifetime leaves room for a failure."
        )
    target, token = mirror_target(publish_to), mirror_token(token_file)
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

    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from policies.documents import format_moment  # noqa: PLC0415
    from policies.refusal_texts import text_of  # noqa: PLC0415
    from policies.refusals import Refused  # noqa: PLC0415
    from policies.trust.client import PolicyClient  # noqa: PLC0415

    target = mirror_target(mirror) or Path()
    with tempfile.TemporaryDirectory(prefix="pht-verify-") as scratch:
        PolicyClient.pin(Path(scratch), read_file(root_file))
        result = PolicyClient(Path(scratch), target, ca=ca).refresh(datetime.now(UTC))
    if isinstance(result, Refused):
        text = text_of(result.code)
        detail = result.reasons[0].detail
        raise RefusedError(result.code, f"{text.means}{f' ({detail})' if detail else ''}", hint=text.do)
    found = result.value
    if as_json:
        echo_json(_verified(found))
        return
    say(f"Verified: {found.charter.title}, fresh until {format_moment(found.state.expires)}.")
    for key, policy in found.policies.items():
        say(f"  {key[0]} version {key[1]}: {policy.policy.title}")
        for opinion in found.opinions(*key):
            say(f"    {opinion_in_words(opinion)}")
    for withdrawn in withdrawals_in_words(found.revocations):
        say(f"  Withdrawn: {withdrawn}")


def _verified(found: "PolicySet") -> dict[str, object]:
    return {
        "state": found.state,
        "policies": [
            {
                "id": key[0],
                "version": key[1],
                "digest": policy.digest,
                "opinions": [opinion_in_words(opinion) for opinion in found.opinions(*key)],
            }
            for key, policy in found.policies.items()
        ],
        "stations": [station.name for station in found.register.stations] if found.register else [],
        "purposes": found.purposes,
        "revoked": withdrawals_in_words(found.revocations),
    }
