"""Writes a new train's folder from the templates: real files that are tried as they are shipped.

    train_images/templates/<interface>/             radiographs, or whatever the images are
    train_images/templates/<interface>-CT/          what is otherwise for CT, in the place of the file of the same name

A file whose name ends in `.template` is filled in (`string.Template`) and loses the ending; every other is copied as it is. `my_train` in
a name is the train's own package. What is written builds, packs and passes its dry run unchanged.
"""

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from policies.documents import Name, load_yaml
from policies.errors import StorageError, UsageError
from policies.manifest import Modality, TrainManifest
from policies.profiles import DEFAULT_PROFILE, Profile, ProfileField, load_profile
from train_images.base.lock import BASE_LIST, HERE, TORCH_LISTS, versions

Kind = Literal["flower", "map", "command"]

DEFAULT_LABEL: Final = "pneumonia"
_TEMPLATES: Final = "templates"
_PACKAGE: Final = "my_train"
_ENDING: Final = ".template"
_LEFT_BEHIND: Final = frozenset({"__pycache__", ".ruff_cache", ".pytest_cache", ".mypy_cache"})
_OTHERWISE_CALLED: Final = frozenset(
    {"functorch", "google", "grpc", "grpc_health", "markdown_it", "nvidia", "pip", "torchgen", "yaml"}
)
"""What wheels of the base images bring under another name than their own."""

_OURS: Final = frozenset({"algorithms", "pht_runtime", "policies", "pytest", "station", "train_images"})
"""What lies in an image beside the wheels, and what a train's own test imports."""

_DEPENDENCIES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "flower": ("flwr", "monai", "nibabel", "torch"),
    "map": ("numpy",),
    "command": (),
}
_TEST_PATIENTS: Final = 16


@dataclass(frozen=True, slots=True)
class NewTrain:
    """What to write.

    Attributes:
        kind: the interface.
        modality: of the images.
        name: of the train.
        profile: the minimal-dataset profile.
        label: of the profile's fields, what a flower train learns; None for the usual one.
        author: who answers questions.
        organisation: whose train it is.
        email: likewise.
    """

    kind: Kind
    modality: Modality
    name: str
    profile: str = DEFAULT_PROFILE
    label: str | None = None
    author: str = "Your Name"
    organisation: str = "Your Organisation"
    email: str = "you@example.org"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        folder: the train's.
        name: of the train.
        package: its Python package, or what its test is called by.
        files: relative to the folder, in order.
    """

    folder: Path
    name: str
    package: str
    files: tuple[str, ...]


def train_name(folder: Path) -> str:
    """Return the name that a train has where no other is given: its folder's.

    Raises:
        UsageError: that is no name of a train.
    """
    found = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not found:
        raise UsageError(
            f"{folder}: is no name of a train", hint="Give one with --name, for example lung-nodules."
        )
    return found


def write_train(folder: Path, train: NewTrain) -> Written:
    """Write a new train's folder.

    1. The folder is new or empty, the name is one of a train, its package one of Python that hides no other, and the contact is text.
    2. The label is a field of the profile that answers yes or no.
    3. The files are rendered, and the manifest among them is read as a station would read it, before anything is written.

    Raises:
        UsageError: one of these does not hold.
        NotFoundError: there is no such profile.
        StorageError: the folder cannot be written.
    """
    # 1
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: holds something already", hint="Name a new or an empty folder.")
    package = _package(train.name)
    for text in (train.author, train.organisation, train.email):
        _require_text(text)
    # 2
    values = _values(train, package, load_profile(train.profile))
    # 3
    rendered = dict(_rendered(train, package, values))
    load_yaml(TrainManifest, rendered["train.yaml"], what="train.yaml")
    try:
        for name, content in rendered.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
    return Written(folder, train.name, package, tuple(sorted(rendered)))


def _package(name: str) -> str:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise UsageError(
            f"{name}: is no name of a train",
            hint="Lower-case letters, digits and inner hyphens, at most 64, for example lung-nodules.",
        ) from error
    package = name.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package):
        raise UsageError(f"{name}: is no name of a Python package", hint="Begin it with a letter: --name.")
    if package in _taken() or package in sys.stdlib_module_names:
        raise UsageError(
            f"{name}: a package of this name is in the image, or in the test, already",
            hint="Choose another: --name.",
        )
    return package


def _taken() -> frozenset[str]:
    """Return what a train's own package would lie over, in one of the base images or in its own test."""
    wheels = {name for each in (BASE_LIST, *TORCH_LISTS) for name in versions(HERE / each)}
    return _OURS | _OTHERWISE_CALLED | {name.replace("-", "_") for name in wheels}


def _require_text(value: str) -> None:
    """See that a line of the contact can stand in a YAML file, which takes no control characters and no halves of characters."""
    if any(unicodedata.category(each) in {"Cc", "Cs"} and each not in "\t\n" for each in value):
        raise UsageError(f"{value!a}: holds what is no text", hint="Write it again, in UTF-8.")


def _values(train: NewTrain, package: str, profile: Profile) -> dict[str, str]:
    volumes = train.modality is Modality.CT
    images = "chest CT" if volumes else "chest radiographs"
    values = {
        "name": train.name,
        "package": package,
        "modality": train.modality.value,
        "profile": profile.id,
        # A JSON string is a YAML scalar whatever stands in it.
        "author": json.dumps(train.author, ensure_ascii=False),
        "organisation": json.dumps(train.organisation, ensure_ascii=False),
        "email": json.dumps(train.email, ensure_ascii=False),
        "patients": str(_TEST_PATIENTS),
        "dependencies": ", ".join(json.dumps(each) for each in _DEPENDENCIES[train.kind]),
    }
    if train.kind == "flower":
        label = _label(profile, train.label)
        shape = "48, 48, 32" if volumes else "64, 64"
        values |= {
            "label": label,
            "dims": "3" if volumes else "2",
            "shape": shape,
            "title": json.dumps(f"{label} on {images} (small DenseNet, binary)"),
            "what": f"Learns `{label}` from {images} with a small DenseNet of MONAI, by an ordinary Flower `ClientApp`.",
        }
        return values
    if train.label is not None:
        raise UsageError(
            f"a train of kind {train.kind} learns no label", hint="Leave --label out, or take --kind flower."
        )
    if train.kind == "map":
        return values | _measured(profile, images, volumes=volumes)
    return values | {
        "title": json.dumps(f"How many images there are of a patient ({images})"),
        "what": f"Says how many images there are of a patient, of {images}: a shell program as a train.",
    }


def _measured(profile: Profile, images: str, *, volumes: bool) -> dict[str, str]:
    """Return what a map train measures: the names of `measure.py`, for the manifest."""
    if "sex" not in {field.name for field in profile.fields}:
        raise UsageError(
            f"{profile.id} has no field sex, which the template counts",
            hint="Take another --profile, and change the columns afterwards.",
        )
    if volumes:
        return {
            "title": json.dumps(f"How much air there is within the body on {images}"),
            "what": f"Measures on {images}, one patient at a time, how much of the body is air and how dense that is.",
            "hyperparameters": "  air_hu: {type: int, minimum: -1000, maximum: -400, default: -500}\n",
            "columns": "      - {name: air_share, type: float, minimum: 0.0, maximum: 1.0}\n"
            "      - {name: mean_air_hu, type: float, minimum: -1100, maximum: -400, missing: true}",
            "aggregates": "    - {key: air, column: air_share, edges: [0.2, 0.3, 0.43, 0.6], split: training}\n"
            "    - key: air_density\n"
            "      column: mean_air_hu\n"
            "      measure: quantiles   # between which edges the median lies\n"
            "      edges: [-950, -900, -850, -800, -750, -700]\n"
            "      probabilities: [0.5]\n"
            "      split: training",
            "error": "NO_BODY",
            "memory": "512",
        }
    return {
        "title": json.dumps(f"How bright {images} are"),
        "what": f"Measures on {images}, one patient at a time, how much of the film is bright and how much its grey values vary.",
        "hyperparameters": "  threshold: {type: float, minimum: 0.0, maximum: 1.0, default: 0.5}\n",
        "columns": "      - {name: bright_share, type: float, minimum: 0.0, maximum: 1.0}\n"
        "      - {name: contrast, type: float, minimum: 0.0, maximum: 1.0}",
        "aggregates": "    - {key: bright, column: bright_share, edges: [0.2, 0.43, 0.6], split: training}\n"
        "    # Patients, sum and sum of squares: mean and variance over all hospitals follow.\n"
        "    - {key: contrast, column: contrast, measure: sum, decimals: 3, split: training}",
        "error": "BLANK_IMAGE",
        "memory": "512",
    }


def _label(profile: Profile, wanted: str | None) -> str:
    fitting = [field.name for field in profile.fields if _answers_yes_or_no(field)]
    label = wanted or DEFAULT_LABEL
    if label in fitting:
        return label
    known = label in {field.name for field in profile.fields}
    why = "does not answer yes or no" if known else f"is no field of {profile.id}"
    raise UsageError(
        f"the label {label} {why}", hint=f"Choose one with --label: {', '.join(fitting) or 'there is none'}."
    )


def _answers_yes_or_no(field: ProfileField) -> bool:
    return field.kind == "flag" or (field.kind == "integer" and set(field.codes) == {"0", "1"})


def _rendered(train: NewTrain, package: str, values: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    found: dict[str, Path] = {}
    layers = [train.kind, f"{train.kind}-{train.modality.value}"]
    for root in (_templates() / layer for layer in layers):
        inner = ((path.relative_to(root), path) for path in sorted(root.rglob("*")))
        found |= {str(name): path for name, path in inner if path.is_file() and _is_part(name)}
    for name, path in found.items():
        content = path.read_bytes()
        if name.endswith(_ENDING):
            content = Template(content.decode("utf-8")).substitute(values).encode()
        yield name.removesuffix(_ENDING).replace(_PACKAGE, package), content


def _is_part(name: Path) -> bool:
    return name.suffix != ".pyc" and _LEFT_BEHIND.isdisjoint(name.parts)


def _templates() -> Path:
    return Path(str(files("train_images"))) / _TEMPLATES
