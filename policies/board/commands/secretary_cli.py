"""The commands of `pht-board` that are the secretary's: publish, revoke, decide."""

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
    ToOption,
    mirror_target,
    mirror_token,
    opened,
)
from policies.console import JsonOption, echo_json, new_app, say
from policies.errors import UsageError

if TYPE_CHECKING:
    from policies.decisions import RefusedRequest, RunOutcome
    from policies.trust.repository import BoardRepository

decide_app = new_app("What the public is told besides the policies: refused requests, and what came of runs.")

DutchOption = Annotated[str, typer.Option("--nl", help="In Dutch, for the public register.")]
EnglishOption = Annotated[str, typer.Option("--en", help="In English, for the public register.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (publish, revoke):
        app.command()(command)
    app.add_typer(decide_app, name="decide")


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
    from policies.board.publishing.staging import stage  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    board = BoardRepository(repository)
    for document in documents or []:
        stage(board, document)
    signer = opened(key, passphrase_file, passphrase, public)
    done = board.publish(signer, now=datetime.now(UTC), renew=renew)
    sent = _sent(repository, to, token_file, ca)
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
    reason: Annotated[str, typer.Option(help="Why, in a sentence that may be read by anyone.")],
    repository: RepositoryOption,
    key: KeyOption,
    policy_id: Annotated[str | None, typer.Argument(help="The policy's id.")] = None,
    version: Annotated[int | None, typer.Argument(help="Its version.")] = None,
    requester: Annotated[
        str | None,
        typer.Option(help="Instead of a policy: a requester's public key, which orders nothing any more."),
    ] = None,
    station: Annotated[
        str | None, typer.Option(help="Instead of a policy: a station, which takes part in nothing any more.")
    ] = None,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    public: PublicOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a policy, a requester or a station, and publish that (secretary). Stations stop within the timestamp's life."""
    from policies.trust.repository import BoardRepository  # noqa: PLC0415 - each command loads what it needs

    board = BoardRepository(repository)
    now = datetime.now(UTC)
    what = _withdraw(board, (policy_id, version), requester, station, (reason, now))
    signer = opened(key, passphrase_file, passphrase, public)
    done = board.publish(signer, now=now)
    sent = _sent(repository, to, token_file, ca)
    if as_json:
        echo_json({"publication": done, "sent": sent})
        return
    say(f"Withdrew {what}: published version {done.version}.")
    say("Stations stop as soon as they see the witness's next timestamp.")


def _withdraw(
    board: "BoardRepository",
    policy: tuple[str | None, int | None],
    requester: str | None,
    station: str | None,
    why: tuple[str, datetime],
) -> str:
    """Stage one withdrawal and return it in words."""
    from policies.board.signing.keys import read_public  # noqa: PLC0415

    reason, now = why
    match policy, requester, station:
        case (str() as policy_id, int() as version), None, None:
            board.revoke(policy_id, version, reason, now=now)
            return f"{policy_id} version {version}"
        case (None, None), str(), None:
            named = board.revoke_requester(read_public(requester), reason, now=now)
            return f"the requester of {', '.join(named) or 'no policy that is listed'}"
        case (None, None), None, str():
            board.revoke_station(station, reason, now=now)
            return f"the station {station}"
        case _:
            raise UsageError(
                "name what is withdrawn: a policy and its version, --requester, or --station, and only one of them"
            )


@decide_app.command("refused")
def decide_refused(
    title: Annotated[str, typer.Option(help="What was asked for.")],
    organisation: Annotated[str, typer.Option(help="Who asked.")],
    dutch: DutchOption,
    english: EnglishOption,
    repository: RepositoryOption,
    as_json: JsonOption = False,
) -> None:
    """Tell the public of a request that the board refused, and why; the secretary publishes it."""
    from policies.decisions import RefusedRequest  # noqa: PLC0415

    _announce(
        repository,
        RefusedRequest,
        {"title": title, "organisation": organisation, "reason": {"nl": dutch, "en": english}},
        as_json=as_json,
    )


@decide_app.command("outcome")
def decide_outcome(
    policy_id: Annotated[str, typer.Argument(help="The policy's id.")],
    version: Annotated[int, typer.Argument(help="Its version.")],
    dutch: DutchOption,
    english: EnglishOption,
    repository: RepositoryOption,
    reference: Annotated[
        str | None, typer.Option(help="Where to read more: an https address, such as a DOI's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the public what came of a policy's runs; the secretary publishes it."""
    from policies.decisions import RunOutcome  # noqa: PLC0415

    value = {"policy_id": policy_id, "version": version, "summary": {"nl": dutch, "en": english}}
    if reference is not None:
        value["reference"] = reference
    _announce(repository, RunOutcome, value, as_json=as_json)


def _announce(
    repository: Path, model: "type[RefusedRequest | RunOutcome]", value: dict[str, object], *, as_json: bool
) -> None:
    from policies.documents import canonical_json, format_moment, load_json  # noqa: PLC0415
    from policies.trust.repository import BoardRepository  # noqa: PLC0415

    dated = value | {"when": format_moment(datetime.now(UTC))}
    decision = load_json(model, canonical_json(dated), what="the decision")
    found = BoardRepository(repository).announce(decision)
    if as_json:
        echo_json(found)
    else:
        say("Staged for the public register: `pht-board publish` brings it out.")


def _sent(repository: Path, to: str | None, token_file: Path | None, ca: Path | None) -> tuple[str, ...]:
    from policies.trust.mirror import push  # noqa: PLC0415

    target = mirror_target(to)
    return () if target is None else push(repository, target, token=mirror_token(token_file), ca=ca)
