"""`pht-train`: what a researcher types, from a train's folder to the result of a run.

Parses, calls one use case of `train_images.tool`, renders. Exit codes: `policies.errors.ExitCode`. Commands that work on
this machine are here, those that speak to an orchestrator in `train_images.registry_cli`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from policies.board.commands.options import PassphraseEnvironment, PassphraseFile
from policies.console import JsonOption, echo_json, new_app, program, say, say_table
from policies.errors import RefusedError
from policies.manifest import Modality
from train_images.coefficients_cli import add_coefficients
from train_images.lock_cli import add_lock
from train_images.registry_cli import add_commands, progress
from train_images.request_cli import request_app
from train_images.storage_cli import storage_app
from train_images.told_cli import add_told_commands

app = new_app("Write, try, pack and submit a train; order runs; watch them; fetch results.")
key_app = new_app("Your own key, which signs run orders.")

FolderArgument = Annotated[Path, typer.Argument(help="The train's folder: Dockerfile and train.yaml.")]
BundleArgument = Annotated[Path, typer.Argument(help="A packed bundle's folder.")]
PixelsOption = Annotated[
    int | None,
    typer.Option("--pixels", min=32, max=4096, help="Rows and columns of the images; without it small ones."),
]
SlicesOption = Annotated[
    int | None, typer.Option("--slices", min=5, max=4096, help="Slices of a CT; without it few.")
]
TagOption = Annotated[
    str | None,
    typer.Option(
        "--tag",
        help="The image's name; without it pht-NAME:VERSION of train.yaml, and -cuda after it for that variant.",
    ),
]


class Variant(StrEnum):
    """What an image is built for."""

    CPU = "cpu"
    CUDA = "cuda"


class Kind(StrEnum):
    """How a station speaks to a train."""

    FLOWER = "flower"
    MAP = "map"
    COMMAND = "command"


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="The train's folder: new, or empty.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="flower: an ordinary Flower ClientApp with MONAI; map: a program that sees one patient at a time; "
            "command: a program in any language."
        ),
    ] = Kind.FLOWER,
    modality: Annotated[Modality, typer.Option(help="Of the images.")] = Modality.DX,
    name: Annotated[
        str | None, typer.Option(help="The train's name; without it the folder's, for example lung-nodules.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="The minimal-dataset profile; `pht-board profile list` names them.")
    ] = "thorax-1@1",
    label: Annotated[
        str | None,
        typer.Option(
            help="flower: the profile's field that is learnt; it answers yes or no. Without it pneumonia."
        ),
    ] = None,
    author: Annotated[str, typer.Option(help="Who answers questions about the train.")] = "Your Name",
    organisation: Annotated[str, typer.Option(help="Whose train it is.")] = "Your Organisation",
    email: Annotated[str, typer.Option(help="Where questions go.")] = "you@example.org",
    as_json: JsonOption = False,
) -> None:
    """Write a new train's folder: code, Dockerfile, train.yaml, a test and a page, which build and pass `check` as they are."""
    from train_images.tool.scaffolding import NewTrain, train_name, write_train  # noqa: PLC0415

    wanted = NewTrain(
        kind=kind.value,
        modality=modality,
        name=name or train_name(folder),
        profile=profile,
        label=label,
        author=author,
        organisation=organisation,
        email=email,
    )
    written = write_train(folder, wanted)
    if as_json:
        echo_json(written)
        return
    say(f"Wrote the train {written.name} in {folder}:")
    for each in written.files:
        say(f"  {each}")
    say(f"Next: pht-train build {folder}")
    say(f"      or first its own test, without a container: cd {folder} && python -m pytest")


@app.command()
def cohort(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients to make up.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal cohorts.")] = 1,
    pixels: PixelsOption = None,
    slices: SlicesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make up the cohort that a train asks for, as it would find it under /train/data, for trying its code by hand.

    Set PHT_DATA to the folder, and start the code without a container. Nobody in it exists.
    """
    from train_images.tool.folders import read_folder  # noqa: PLC0415
    from train_images.tool.lone_cohort import lay_cohort  # noqa: PLC0415

    laid = lay_cohort(read_folder(folder), out, patients=patients, seed=seed, pixels=pixels, slices=slices)
    if as_json:
        echo_json(laid)
        return
    split = ", ".join(f"{count} {name}" for name, count in laid.patients.items() if count)
    say(f"Laid out a cohort in {out}: {split} patients, {sum(laid.images.values())} images.")
    say(f"Next: PHT_DATA={out} python ...")


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="Folder to make the hospitals in.")],
    hospitals: Annotated[int, typer.Option(help="How many hospitals, 1 to 26.")] = 3,
    patients: Annotated[int, typer.Option(help="Patients per hospital.")] = 60,
    seed: Annotated[int | None, typer.Option(min=0, help="Equal seeds give equal hospitals.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate made-up hospitals: chest radiographs (DICOM), an eCRF export and a consent list each."""
    from train_images.phantoms.hospitals import DEFAULT_SEED, generate_hospitals  # noqa: PLC0415

    made = generate_hospitals(
        out, hospitals=hospitals, patients=patients, seed=DEFAULT_SEED if seed is None else seed
    )
    if as_json:
        echo_json(made)
        return
    say_table(
        f"Made-up hospitals in {out}",
        ("hospital", "patients", "studies", "with pneumonia", "objections"),
        [(each.name, each.patients, each.studies, each.positive_studies, each.objections) for each in made],
    )
    say("Nobody in these files exists.")


@app.command()
def build(
    folder: FolderArgument,
    tag: TagOption = None,
    variant: Annotated[
        Variant, typer.Option(help="The machines that it is for: cuda needs ARG TORCH in the Dockerfile.")
    ] = Variant.CPU,
    as_json: JsonOption = False,
) -> None:
    """Build a train's image, and the base images where they are missing."""
    from train_images.tool.building import build as build_image  # noqa: PLC0415
    from train_images.tool.folders import read_folder  # noqa: PLC0415

    train = read_folder(folder)
    built = build_image(train, tag or train.tag_of(variant.value), progress, variant.value)
    if as_json:
        echo_json(built)
        return
    say(f"Built {built.tag} in {built.seconds:.0f} s, {built.size_bytes / 1e6:.0f} MB with its base.")
    for_variant = "" if variant is Variant.CPU else f" --variant {variant.value}"
    say(f"Next: pht-train pack {folder} OUT{for_variant}")


@app.command()
def pack(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(help="The bundle's folder: new, empty, or an earlier bundle.")],
    tag: TagOption = None,
    variant: Annotated[Variant, typer.Option(help="What the image is built for.")] = Variant.CPU,
    as_json: JsonOption = False,
) -> None:
    """Pack a built train into a bundle: its image by digest, and train.yaml with that digest filled in."""
    from train_images.tool.folders import read_folder  # noqa: PLC0415
    from train_images.tool.packing import pack as pack_train  # noqa: PLC0415

    train = read_folder(folder)
    packed = pack_train(train, tag or train.tag_of(variant.value), out, variant.value).train
    digests = {"image": packed.index.config.digest, "manifest": packed.index.manifest.digest}
    if as_json:
        found = {"bundle": out, **digests, "layers": len(packed.index.layers), "bytes": packed.size}
        echo_json({"name": packed.manifest.name, "version": packed.manifest.version, **found})
        return
    layers = len(packed.index.layers)
    say(
        f"Packed {packed.manifest.name} {packed.manifest.version}: {packed.size / 1e6:.1f} MB in {layers} layers."
    )
    say(f"Image:    {digests['image']}")
    say(f"Manifest: {digests['manifest']}")
    say(f"Next: pht-train check {out}")


@app.command()
def check(
    bundle: BundleArgument,
    policy: Annotated[
        Path | None, typer.Option(help="Hold it to this policy file; without it to the board's own draft.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Initial weights (safetensors); without them the image makes its own.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a hyperparameter.")
    ] = None,
    patients: Annotated[int | None, typer.Option(min=1, help="How many patients to make up.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How many rounds to run.")] = 1,
    pixels: PixelsOption = None,
    slices: SlicesOption = None,
    log: Annotated[bool, typer.Option("--log", help="Show what the train printed.")] = False,
    engine: Annotated[Path | None, typer.Option(help="The container engine's socket.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try a train: in the real sandbox, on made-up CT or X-ray images, its answers through the real guard.

    Says what would leave, what would be withheld and by which rule, and what it took beside what train.yaml asks for.

    Ends with exit code 4 and the code that a hospital would give when a message would release nothing.
    """
    from train_images.tool import dry_words  # noqa: PLC0415
    from train_images.tool.dry_run import DryChoice, dry_run  # noqa: PLC0415
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.sandbox_home import DEFAULT_ENGINE  # noqa: PLC0415

    choice = DryChoice(
        policy=policy,
        weights=weights,
        settings=tuple(settings or ()),
        patients=patients,
        rounds=rounds,
        pixels=pixels,
        slices=slices,
        engine=engine or DEFAULT_ENGINE,
    )
    report = dry_run(read_bundle(bundle), choice, progress)
    if as_json:
        echo_json(report)
    else:
        for line in dry_words.lines_before(report):
            say(line)
        say_table("", dry_words.COLUMNS, dry_words.rows(report))
        if report.measures:
            say_table("", dry_words.MEASURED_COLUMNS, dry_words.measured_rows(report))
        for line in dry_words.lines_after(report):
            say(line)
        if log:
            say(f"What the train printed:\n{report.log.rstrip()}")
    if report.problem is not None:
        code, message, hint = dry_words.refusal(report.problem)
        raise RefusedError(code, message, hint=hint)
    if not as_json:
        say(f"Next: pht-train submit {bundle}, and ask the board: pht-train request new --help")


@app.command("init-weights")
def init_weights(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Argument(help="The file to write (safetensors).")],
    engine: Annotated[Path | None, typer.Option(help="The container engine's socket.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a train's initial weights with the image's own program, without network.

    The image names the program in /opt/pht/train.json: "initial_weights": "module:function", a function without arguments
    that returns names with arrays (numpy), a torch state_dict, or a module.
    """
    from train_images.tool.folders import read_bundle  # noqa: PLC0415
    from train_images.tool.initial_weights import make_weights  # noqa: PLC0415
    from train_images.tool.sandbox_home import DEFAULT_ENGINE, sandbox_home  # noqa: PLC0415

    train = read_bundle(bundle)
    with sandbox_home(train, engine or DEFAULT_ENGINE) as home:
        made = make_weights(train, home, out)
    tensors, size = len(made.layout.tensors), made.layout.file_bytes
    if as_json:
        echo_json(
            {
                "weights": out,
                "digest": made.digest,
                "bytes": size,
                "tensors": tensors,
                "numbers": made.elements,
            }
        )
        return
    say(f"Wrote {out}: {tensors} tensors, {made.elements} numbers, {size / 1e6:.2f} MB")
    say(f"Digest: {made.digest}")
    say("Next, once the board has signed a policy: pht-train order new --help")


@key_app.command("new")
def key_new(
    key: Annotated[Path, typer.Argument(help="The new key file; its public part goes beside it as .pub.")],
    passphrase_file: PassphraseFile = None,
    passphrase: PassphraseEnvironment = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the file unencrypted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an Ed25519 key. Give the board its public part: the policy names it as the requester's."""
    from policies.board.signing.keys import choose_passphrase, new_key, public_file, read_passphrase  # noqa: PLC0415

    given = None if no_passphrase else read_passphrase(passphrase_file, passphrase) or choose_passphrase()
    public_hex = new_key(key, given)
    if as_json:
        echo_json({"key": str(key), "public_file": str(public_file(key)), "public_key": public_hex})
        return
    say(
        f"Key:        {key} (keep it; {'not encrypted' if given is None else 'encrypted with the passphrase'})"
    )
    say(f"Public key: {public_hex}")
    say(f"            also in {public_file(key)}, to hand to the board")


app.add_typer(key_app, name="key")
app.add_typer(request_app, name="request")
app.add_typer(storage_app, name="storage")
add_commands(app)
add_lock(app)
add_told_commands(app)
add_coefficients(app)

main = program(app)

if __name__ == "__main__":
    main()
