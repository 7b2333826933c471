"""The commands of `pht-train` that speak to an orchestrator: submit, order, watch, results.

Parses, calls one use case of `train_images.tool`, renders.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.board.commands.options import PassphraseEnvironment, PassphraseFile
from policies.console import JsonOption, echo_json, new_app, say, say_table
from policies.errors import RefusedError
from train_images.connection_options import CaOption, ProfileOption, TokenOption, ToOption, open_registry

if TYPE_CHECKING:
    from train_images.tool.ordering import SignedOrder

DigestArgument = Annotated[str, typer.Argument(help="The order's digest, as `order send` prints it.")]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="Initial weights (safetensors).")]


class Form(StrEnum):
    """A form that others load."""

    TORCH = "torch"
    MONAI_BUNDLE = "monai-bundle"


order_app = new_app("Write, sign and send run orders.")


def add_commands(app: typer.Typer) -> None:
    """Add these commands to `pht-train`."""
    app.command()(submit)
    app.command()(push)
    app.add_typer(order_app, name="order")
    app.command()(watch)
    app.command()(results)
    app.command()(export)
    app.command()(runs)
    app.command()(stop)
    app.command()(resume)


def progress(line: str) -> None:
    """Say what happens, beside the result, so that what a script reads stays clean."""
    sys.stderr.write(f"{line}\n")


def submit(
    bundle: Annotated[Path, typer.Argument(help="A packed bundle's folder.")],
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a bundle to the orchestrator's registry; only what is missing there moves."""
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.submitting import submit as send_bundle  # noqa: PLC0415

    train = read_bundle(bundle)
    with open_registry(to, token_file, ca, profile) as registry:
        sent = send_bundle(train, registry, progress)
    if as_json:
        echo_json(sent)
        return
    say(
        f"Submitted {train.manifest.name} {train.manifest.version}: {sent.moved_bytes} of {sent.bytes} bytes "
        f"moved, {sent.moved_blobs} of {sent.blobs} blobs."
    )


def push(
    bundle: Annotated[Path, typer.Argument(help="A packed bundle's folder.")],
    registry: Annotated[str, typer.Option("--registry", help="The registry: https://host:port.")],
    repository: Annotated[str, typer.Option("--repository", help="The repository in it, as in pht/trains.")],
    credentials_file: Annotated[
        Path | None,
        typer.Option("--credentials-file", help="File with one line, user:password or a token; mode 0600."),
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Authority behind its certificate (PEM).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a bundle to an OCI registry from which stations fetch; only what is missing there moves."""
    from policies.wire.oci_auth import Credentials  # noqa: PLC0415
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.pushing import RegistryPush  # noqa: PLC0415

    train = read_bundle(bundle)
    credentials = (
        None if credentials_file is None else Credentials.read(credentials_file, "--credentials-file")
    )
    there = RegistryPush(registry, repository, ca=ca, credentials=credentials)
    try:
        sent = there.push(train, progress)
    finally:
        there.close()
    if as_json:
        echo_json(sent)
        return
    say(
        f"Pushed {train.manifest.name} {train.manifest.version} as {sent.tag}: {sent.moved_bytes} bytes moved."
    )


@order_app.command("new")
def order_new(
    out: Annotated[Path, typer.Argument(help="The order's file to write.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy file as the board signed it.")],
    bundle: Annotated[Path, typer.Option("--bundle", help="The packed bundle's folder.")],
    stations: Annotated[str, typer.Option("--stations", help="Who takes part: names with commas.")],
    key: Annotated[Path, typer.Option("--key", "-k", help="Your key: the one that the policy names.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many rounds.")] = 1,
    stages: Annotated[
        str | None, typer.Option("--stages", help="What each round asks, such as train,evaluate.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Set a hyperparameter; the others get their default."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="How updates are combined, by Flower's name; without it the policy's first."
        ),
    ] = None,
    strategy_settings: Annotated[
        list[str] | None,
        typer.Option("--strategy-set", metavar="NAME=VALUE", help="Set one of its parameters."),
    ] = None,
    weights: WeightsOption = None,
    minimum_stations: Annotated[
        int | None, typer.Option(min=1, help="With fewer a round does not count; without it the policy's.")
    ] = None,
    expires_hours: Annotated[
        float | None, typer.Option(min=0.01, help="How long the order holds; without it a day.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run order, hold it to policy and manifest, and sign it."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from policies.board.signing.keys import open_key, read_passphrase  # noqa: PLC0415
    from policies.files import write_atomically  # noqa: PLC0415
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.ordering import OrderChoice, make_order  # noqa: PLC0415

    choice = OrderChoice(
        stations=_names(stations),
        rounds=rounds,
        stages=None if stages is None else _names(stages),
        settings=tuple(settings or ()),
        weights=weights,
        minimum_stations=minimum_stations,
        hours=expires_hours,
        unchecked=unchecked,
        strategy=strategy,
        strategy_settings=tuple(strategy_settings or ()),
    )
    train = read_bundle(bundle)
    signer = open_key(key, read_passphrase(passphrase_file, passphrase))
    signed = make_order(train, policy, choice, signer, datetime.now(UTC))
    write_atomically(out, signed.envelope)
    _show_order(signed, as_json=as_json)
    if not as_json:
        say(f"Next: pht-train order send {out}" + ("" if weights is None else f" --weights {weights}"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _show_order(signed: "SignedOrder", *, as_json: bool) -> None:
    order = signed.order
    if as_json:
        echo_json({"digest": signed.digest, "order": order})
        return
    say(f"Order {signed.digest}")
    say(f"  policy:          {order.policy_id} version {order.policy_version}")
    say(f"  stations:        {', '.join(order.stations)} (at least {order.minimum_stations})")
    say(f"  rounds:          {order.rounds} of {', '.join(order.stages)}")
    parameters = ", ".join(f"{name}={value:g}" for name, value in order.strategy.parameters.items())
    say(f"  combined with:   {order.strategy.name}" + (f" ({parameters})" if parameters else ""))
    if order.hyperparameters:
        chosen = ", ".join(f"{name}={value}" for name, value in order.hyperparameters.items())
        say(f"  hyperparameters: {chosen}")
    if order.initial_weights is not None:
        say(f"  initial weights: {order.initial_weights.digest}")
    say(f"  expires:         {order.expires:%Y-%m-%d %H:%M} UTC")


@order_app.command("show")
def order_show(
    order: Annotated[Path, typer.Argument(help="The order's file.")], as_json: JsonOption = False
) -> None:
    """Show what an order says; its signature is for the orchestrator and the stations to check."""
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from train_images.tool.ordering import read_order  # noqa: PLC0415

    _show_order(read_order(read_file(order)), as_json=as_json)


@order_app.command("send")
def order_send(
    order: Annotated[Path, typer.Argument(help="The order's file.")],
    weights: WeightsOption = None,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an order, with its initial weights; prints the digest that names the run."""
    from policies.board.documents.documents_in import read_file  # noqa: PLC0415
    from train_images.tool.ordering import read_order, send_order  # noqa: PLC0415

    signed = read_order(read_file(order))
    with open_registry(to, token_file, ca, profile) as registry:
        digest = send_order(signed, weights, registry)
    if as_json:
        echo_json({"digest": digest})
    else:
        say(digest)


def watch(
    digest: DigestArgument,
    hours: Annotated[
        float, typer.Option("--hours", min=0, help="Give up after this; the run goes on.")
    ] = 168,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a run to its end: who takes part, and what each round released; goes on when the orchestrator was away.

    Ends with exit code 0 when it finished, and 4 with the run's code when it did not.
    """
    from train_images.tool.watching import why  # noqa: PLC0415
    from train_images.watch_view import PlainView, TableView  # noqa: PLC0415

    view = TableView() if sys.stdout.isatty() and not as_json else PlainView(quiet=as_json)
    with open_registry(to, token_file, ca, profile) as registry, view:
        status = registry.wait_run(digest, hours * 3600, view.show, view.silence)
    if as_json:
        echo_json(status)
    if status.progress.state != "finished":
        code, message, hint = why(status)
        raise RefusedError(code, message, hint=hint)
    if not as_json:
        say(f"Next: pht-train results {digest} OUT")


def results(
    digest: DigestArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the result's files; made when missing.")],
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what a run gives: model, released numbers, model card, provenance; goes on where it was broken off.

    A run that failed or was stopped gives what it has, marked as incomplete.
    """
    from train_images.tool.results import fetch_result, outcome_of  # noqa: PLC0415

    with open_registry(to, token_file, ca, profile) as registry:
        files = fetch_result(registry, digest, out)
    if as_json:
        echo_json(files)
        return
    say_table(f"Result in {out}", ("file", "bytes"), [(file.name, file.size) for file in files])
    complete, words = outcome_of(out)
    if not complete:
        say(words)


def export(
    result: Annotated[Path, typer.Argument(help="The folder that `results` filled.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    form: Annotated[Form, typer.Option("--to", help="What to make of it.")] = Form.MONAI_BUNDLE,
    as_json: JsonOption = False,
) -> None:
    """Write a fetched model as a torch checkpoint or as a MONAI bundle; needs the extra `algorithms`."""
    from train_images.tool.exporting import export as write  # noqa: PLC0415

    files = write(result, out, form.value)
    if as_json:
        echo_json(files)
        return
    for name in files:
        say(str(out / name))


def runs(
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List your runs, the newest first."""
    with open_registry(to, token_file, ca, profile) as registry:
        found = registry.runs()
    if as_json:
        echo_json(found)
        return
    for run in found:
        # A line and not a table: a digest that is folded cannot be copied.
        say(
            f"{run.digest}  {run.accepted}  {run.policy_id} v{run.policy_version}  {run.progress.state}"
            + (f", round {run.progress.round} of {run.progress.rounds}" if run.progress.round else "")
        )
    if not found:
        say("You have ordered no run.")


def resume(
    digest: DigestArgument,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a run that failed or was stopped go on from its last finished round; stations decide again."""
    with open_registry(to, token_file, ca, profile) as registry:
        registry.resume_run(digest)
    if as_json:
        echo_json({"digest": digest, "asked": True})
    else:
        say(f"The run is queued again. Next: pht-train watch {digest}")


def stop(
    digest: DigestArgument,
    to: ToOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask that a run stops: its stations are told to finish."""
    with open_registry(to, token_file, ca, profile) as registry:
        registry.stop_run(digest)
    if as_json:
        echo_json({"digest": digest, "asked": True})
    else:
        say("The run is asked to stop.")
