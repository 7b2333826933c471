"""Drafting a policy file: an example or the skeleton, with what the train's manifest says filled in.

What the draft says about data, outputs, hyperparameters and resources is what the train asks for; the board may narrow
all of it. A range that the example has narrowed already stays so: its summary speaks of it. What is the board's own (`placeholders`) is left to it. The result is YAML for a person to read and change.

How large an update is, a manifest that returns the tensors it is given does not say. The weights do; drafted without them, the file says that
its ceiling on bytes is nobody's answer to that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files

import yaml
from pydantic import JsonValue, ValidationError

from policies.board.documents.documents_in import Train
from policies.board.documents.placeholders import BOARDS_OWN, placeholder
from policies.documents import MAX_DOCUMENT_BYTES, format_moment, load_yaml
from policies.errors import DocumentError, UsageError
from policies.manifest import HyperparameterSpec, TrainKind, TrainManifest
from policies.policy import Policy, ReleaseRules
from policies.rules.capacity import tensors_released
from policies.wire.arrays import TensorShape
from policies.wire.releases import update_bytes

VALIDITY = timedelta(days=365)
_NO_TRAINS = frozenset({"skeleton", "purposes"})
"""Examples that are no train's policy."""

_HEADER = """\
# Policy {id}, version {version}: a draft for the train {train} {train_version}.
# Read every line: what stands here is permitted, and nothing else. `pht-board review` says it in words;
# `pht-board sign` signs exactly these bytes.
"""

_UNSIZED = """\
# release.maximum_bytes is not worked out for this train: how large its update is follows from its weights, which this draft was
# made without. A station refuses to train for a larger one. `pht-board draft --weights` takes it from the initial weights.
"""
_CEILING = "release.maximum_bytes"
_MIB = 1 << 20
_ROOM_FOR_NUMBERS = 1 << 16
"""Bytes beside an update: a message's metrics as text, some hundreds of them."""

_Document = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class DraftOptions:
    """What the drafter knows beyond the train.

    Attributes:
        now: the policy is valid from today.
        requester_key: the public key, hex, of whoever will order runs.
        board: the board's name.
        answers: values by dotted path, such as the board's own names and references.
        settings: further values by dotted path, as YAML text (``runs.rounds`` -> ``5``); they come last.
        weights: the tensors that training starts from, where they are at hand.
    """

    now: datetime
    requester_key: str | None = None
    board: str | None = None
    answers: Mapping[str, JsonValue] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    weights: Sequence[TensorShape] | None = None


def draft_policy(train: Train, options: DraftOptions) -> bytes:
    """Return a policy file that fits a train.

    Raises:
        UsageError: a setting names nothing in a policy, the manifest names no image yet, or the weights are not the train's.
        DocumentError: the result contradicts itself.
    """
    if not train.image_digests:
        raise UsageError("the manifest names no image yet", hint="Draft from what `pht-train pack` made.")
    manifest = train.manifest
    document = _starting_point(manifest.name)
    _fill_from_manifest(document, train)
    _fill_dates(document, options.now)
    if options.requester_key is not None:
        _set(document, "requester.key", options.requester_key)
    if options.board is not None:
        _set(document, "board", options.board)
    for path, value in options.answers.items():
        _set(document, path, value)
    for path, text in options.settings.items():
        _set(document, path, _parse_value(path, text))
    header = _HEADER.format(
        id=document["id"], version=document["version"], train=manifest.name, train_version=manifest.version
    )
    data = _written(header, document)
    policy = load_yaml(Policy, data, what="the draft")
    if policy.release.tensors is None or _CEILING in {*options.answers, *options.settings}:
        return data
    update = _update_bytes(policy.release, manifest, options.weights)
    if update is None:
        return data if manifest.name in example_names() else _written(header + _UNSIZED, document)
    _raise_to(document, _CEILING, _MIB * math.ceil((update + _ROOM_FOR_NUMBERS) / _MIB))
    return _written(header, document)


def _update_bytes(
    rules: ReleaseRules, manifest: TrainManifest, weights: Sequence[TensorShape] | None
) -> int | None:
    """Return how large the file of an update is; None where nobody says which tensors it has."""
    tensors = tensors_released(rules, manifest, weights)
    if tensors == ():
        raise UsageError(
            "the weights do not hold the tensors that the train's manifest lists",
            hint="Give the weights that this train starts from.",
        )
    return None if tensors is None else update_bytes(tensors)


def _written(header: str, document: _Document) -> bytes:
    text = yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=100)
    return (header + text).encode()


def example_names() -> Iterable[str]:
    """Return the trains that the project ships an example policy for."""
    folder = files("policies").joinpath("examples")
    names = (entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return sorted(name for name in names if name not in _NO_TRAINS)


def _starting_point(train: str) -> _Document:
    name = train if train in example_names() else "skeleton"
    text = files("policies").joinpath("examples", f"{name}.yaml").read_text("utf-8")
    document: _Document = yaml.load(text, Loader=_TextDates)  # noqa: S506 - a SafeLoader that leaves dates as text
    if name == "skeleton":
        document["id"] = train
    for path in BOARDS_OWN:
        _set(document, path, placeholder(_get(document, path)))
    return document


def read_answers(data: bytes, name: str) -> Mapping[str, JsonValue]:
    """Read a file of values by dotted path.

    Raises:
        DocumentError: it is no mapping of paths to values.
    """
    found = _parse_value(name, data.decode("utf-8", "replace"))
    if not isinstance(found, dict) or not all(isinstance(path, str) for path in found):
        raise DocumentError(
            f"{name}: must be a mapping of paths to values, such as legal.dpia: DPIA-2026-014"
        )
    return found


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out each time: our documents have no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _TextDates(yaml.SafeLoader):
    """YAML in which a date stays the text that it is."""


_TextDates.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _fill_from_manifest(document: _Document, train: Train) -> None:
    manifest = train.manifest
    label = [] if manifest.data.label is None else [manifest.data.label]
    values: dict[str, JsonValue] = {
        "kind": manifest.kind.value,
        "manifest_digest": train.digest,
        "image_config_digests": list(train.image_digests),
        "data.modalities": [modality.value for modality in manifest.data.modalities],
        "data.clinical_fields": list(dict.fromkeys([*manifest.data.clinical_fields, *label])),
        "data.acquisition_fields": [field.value for field in manifest.data.acquisition_fields],
        "data.masks": list(manifest.data.masks),
        "data.representations": [manifest.data.representation],
        "runs.hyperparameters": {
            name: _narrowed(spec, document, name).model_dump(mode="json", exclude_none=True)
            for name, spec in manifest.hyperparameters.items()
        },
        "release.metrics": list(dict.fromkeys(metric.key for metric in manifest.outputs.metrics)),
        "release.tables": [item.key for item in manifest.outputs.aggregates],
        "release.error_codes": list(manifest.error_codes),
        "resources.gpu": manifest.resources.gpu != "none",
        "resources.cpu_fallback": manifest.resources.gpu == "optional",
    }
    for path, value in values.items():
        _set(document, path, value)
    for name, asked in (("memory_mib", manifest.resources.memory_mib), ("cpus", manifest.resources.cpus)):
        _raise_to(document, f"resources.{name}", asked)
    _fill_kind(document, manifest)


def _narrowed(spec: HyperparameterSpec, document: _Document, name: str) -> HyperparameterSpec:
    """Return a hyperparameter of the manifest within what the example grants of it; as the manifest has it where that leaves no default."""
    found = _get(document, "runs.hyperparameters")
    granted = found.get(name) if isinstance(found, dict) else None
    if granted is None:
        return spec
    example = HyperparameterSpec.model_validate(granted)
    lows = [each for each in (spec.minimum, example.minimum) if each is not None]
    highs = [each for each in (spec.maximum, example.maximum) if each is not None]
    if spec.type != example.type or not lows or not highs:
        return spec
    try:
        return HyperparameterSpec(type=spec.type, minimum=max(lows), maximum=min(highs), default=spec.default)
    except ValidationError:
        return spec


def _fill_kind(document: _Document, manifest: TrainManifest) -> None:
    """Set what the kind of train demands, where the starting point is of another kind."""
    runs, release = document["runs"], document["release"]
    if not isinstance(runs, dict) or not isinstance(release, dict):
        raise UsageError("the starting point is not a policy")
    if manifest.kind is not TrainKind.TRAINING:
        runs["strategies"] = ["none"]
        runs.pop("strategy_parameters", None)
        release.pop("tensors", None)
        return
    if runs["strategies"] == ["none"]:
        runs["strategies"] = ["FedAvg"]
    release.setdefault(
        "tensors", {"precision": "float32", "float_buffers": "release", "integer_buffers": "withhold"}
    )
    release.setdefault("trust_statement", "orchestrator-sees-single-updates")


def _fill_dates(document: _Document, now: datetime) -> None:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    agreement_ends = date.fromisoformat(str(_get(document, "legal.agreement.expires")))
    last = datetime(agreement_ends.year, agreement_ends.month, agreement_ends.day, tzinfo=UTC)
    _set(document, "valid_from", format_moment(today))
    _set(document, "valid_until", format_moment(min(today + VALIDITY, max(last, today))))


def _parse_value(path: str, text: str) -> JsonValue:
    if len(text) > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{path}: the value is too long")
    try:
        value: JsonValue = yaml.load(text, Loader=_TextDates)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: the value is not valid YAML") from error
    return value


def _parent(document: _Document, path: str) -> tuple[dict[str, JsonValue], str]:
    *folders, last = path.split(".")
    place: JsonValue = document
    for name in folders:
        place = place.get(name) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise UsageError(
            f"{path}: a policy has no such key", hint="Name it as in the file, for example runs.rounds."
        )
    return place, last


def _set(document: _Document, path: str, value: JsonValue) -> None:
    place, last = _parent(document, path)
    place[last] = value


def _get(document: _Document, path: str) -> JsonValue:
    place, last = _parent(document, path)
    return place.get(last)


def _raise_to(document: _Document, path: str, asked: float) -> None:
    present = _get(document, path)
    if not isinstance(present, int | float) or present < asked:
        _set(document, path, asked)
