"""What changed between two versions of a policy or of a manifest, field by field, and whether it widens or narrows.

"Widens" means: permits, asks for or lets out more than before. The tables below say so for every limit; a field without a limit
(a title, a reference) just changes. Pure: documents in, changes out.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue

from policies.documents import StrictModel

Direction = Literal["widens", "narrows", "changes"]
Verdict = Callable[[JsonValue, JsonValue], Direction]

_KEYS: Final = {
    "outputs.metrics": ("stage", "key"),
    "outputs.aggregates": ("key",),
    "outputs.rows.columns": ("name",),
    "outputs.predictions": ("name",),
    "outputs.tensors.listed": ("name",),
    "images": ("variant",),
    "elsi": ("question",),
}
"""Lists of mappings whose items are told apart by these keys."""

_GROUPS: Final = re.compile(
    r"^((?:outputs\.(?:metrics|aggregates|predictions|rows\.columns|tensors\.listed)|images|elsi)\[[^\]]*\]|runs\.hyperparameters\.[\w-]+|hyperparameters\.[\w-]+|runs\.strategy_parameters\.\w+\.\w+)"
)
"""What is added or removed as a whole."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that is another than before.

    Attributes:
        field: its path in the document.
        before: as text; "not set" where it was not.
        after: as text; "not set" where it is not.
        direction: whether it permits more or less.
    """

    field: str
    before: str
    after: str
    direction: Direction

    def __str__(self) -> str:
        direction = "" if self.direction == "changes" else self.direction
        told = ": ".join(text for text in (direction, meaning_of(self.field)) if text)
        return f"{self.field}: {self.before} -> {self.after}" + (f" ({told})" if told else "")


def _more(unset: float | None = None) -> Verdict:
    """More is wider; `unset` is what a missing limit counts as."""

    def verdict(before: JsonValue, after: JsonValue) -> Direction:
        old, new = _number(before, unset), _number(after, unset)
        if old is None or new is None:
            return "changes"
        return "widens" if new > old else "narrows"

    return verdict


def _less(unset: float | None = None) -> Verdict:
    opposite = _more(unset)
    return lambda before, after: opposite(after, before)


def _longer(before: JsonValue, after: JsonValue) -> Direction:
    """A list that grants: what is added widens, what is taken away narrows, both together change."""
    old, new = _items(before), _items(after)
    if old < new:
        return "widens"
    return "narrows" if new < old else "changes"


def _shorter(before: JsonValue, after: JsonValue) -> Direction:
    return _longer(after, before)


def _empty_is_all(before: JsonValue, after: JsonValue) -> Direction:
    if not before or not after:
        return "narrows" if after else "widens"
    return _longer(before, after)


def _ranked(*values: JsonValue) -> Verdict:
    """Values from the narrowest to the widest."""

    def verdict(before: JsonValue, after: JsonValue) -> Direction:
        if before not in values or after not in values:
            return "changes"
        return "widens" if values.index(after) > values.index(before) else "narrows"

    return verdict


def _later(before: JsonValue, after: JsonValue) -> Direction:
    # ISO 8601 in one form sorts as text.
    return "widens" if str(after) > str(before) else "narrows"


def _earlier(before: JsonValue, after: JsonValue) -> Direction:
    return _later(after, before)


_INFINITE: Final = float("inf")
_RULES: Final[tuple[tuple[str, Verdict], ...]] = (
    (r"image_config_digests|data\.(collections|consent_modes|modalities|clinical_fields|acquisition_fields|masks|representations)", _longer),
    (r"release\.(metrics|tables|error_codes)|runs\.strategies|error_codes", _longer),
    # A patient must have agreed to each of them.
    (r"data\.consent_purposes", _shorter),
    (r"data\.view_positions", _empty_is_all),
    (r"data\.minimum_patients|runs\.minimum_stations|release\.minimum_cell_count", _less()),
    (r"release\.(minimum_patients_per_metric|timing_quantum_s|count_rounding)", _less()),
    (r"runs\.failed_patients_share|release\.(dominance\.share|review_hours)", _more()),
    (r"release\.dominance\.(largest|p_percent)", _less()),
    (r"release\.(membership_limit|metric_decimals)", _more(_INFINITE)),
    (r"release\.differential_privacy\.noise_multiplier", _less(0.0)),
    (r"release\.differential_privacy\.(epsilon|delta)|release\.tensors\.clipping_norm", _more(_INFINITE)),
    (r"release\.(maximum_bytes|tensors\.maximum_absolute)|runs\.(runs|rounds|releases)", _more()),
    (r"resources\.(memory_mib|cpus|run_hours|pids|scratch_mib|message_timeout_s)", _more()),
    (r"resources\.gpu", _ranked("none", "optional", "required")),
    (r"resources\.gpu_memory_mib", _more()),
    (r"resources\.(gpu|cpu_fallback)|commercial_use_approved|release\.(station_results|local_predictions)", _ranked(False, True)),
    (r"release\.(secure_aggregation|human_review)", _ranked(True, False)),
    (r"release\.tensors\.(float_buffers|integer_buffers)", _ranked("withhold", "release")),
    (r"release\.tensors\.precision", _ranked("bfloat16", "float16", "float32")),
    (r"requester\.requester_class", _ranked("participant", "non-profit", "commercial")),
    (r"role", _ranked("development", "board")),
    (r"valid_until|legal\.agreement\.expires", _later),
    (r"valid_from", _earlier),
    (r"(runs\.)?hyperparameters\.[\w-]+\.maximum|runs\.strategy_parameters\.\w+\.\w+\.maximum", _more()),
    (r"(runs\.)?hyperparameters\.[\w-]+\.minimum|runs\.strategy_parameters\.\w+\.\w+\.minimum", _less()),
    (r"outputs\.(metrics|aggregates)\[.*\]\.(maximum|decimals)", _more()),
    (r"outputs\.(metrics|aggregates)\[.*\]\.(minimum|minimum_cell_count)", _less()),
    (r"outputs\.aggregates\[.*\]\.(edges|probabilities)", _longer),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern), verdict) for pattern, verdict in _RULES)


_MEANINGS: Final = (
    (r"image_config_digests|images\[.*\]\.config_digest", "the images that may run"),
    (r"manifest_digest", "which train this is"),
    (r"requester\.key", "who may order runs"),
    (r"requester\.requester_class", "what kind of requester it is"),
    (r"commercial_use_approved", "commercial use"),
    (r"data\.collections", "the collections it may see"),
    (r"data\.consent_purposes", "what a patient must have agreed to, all of it"),
    (r"data\.consent_modes", "how patients may have been asked"),
    (r"data\.modalities", "the kinds of images it sees"),
    (r"data\.clinical_fields", "the clinical fields it sees"),
    (r"data\.acquisition_fields", "what it sees of how images were acquired"),
    (r"data\.masks", "the segmentations it sees"),
    (r"data\.representations?", "in which form it sees images"),
    (r"data\.minimum_patients", "patients it takes at each station"),
    (r"runs\.minimum_stations", "stations that a run takes"),
    (r"runs\.runs", "runs in all"),
    (r"runs\.rounds", "rounds of each run"),
    (r"runs\.releases", "times that something leaves a station"),
    (r"runs\.strategies", "how updates may be combined"),
    (r"runs\.failed_patients_share", "patients for whom a train may fail before nothing leaves"),
    (r"release\.metrics|outputs\.metrics\[[^]]*\]", "numbers that leave"),
    (r"release\.tables|outputs\.aggregates\[[^]]*\]", "tables that leave"),
    (
        r"outputs\.aggregates\[[^]]*\]\.(edges|probabilities|decimals|by|column|measure)",
        "what a table tells, and how finely",
    ),
    (r"outputs\.rows\..+", "what a train may say of one patient"),
    (r"release\.station_results", "whether the requester sees what single stations released"),
    (r"release\.local_predictions", "whether hospitals may keep what the train marks in their images"),
    (r"outputs\.predictions.*", "what it marks and measures in images, for the hospital alone"),
    (r"release\.error_codes", "ways of failing that are told by name"),
    (r"release\.count_rounding", "how finely counts are told"),
    (
        r"release\.minimum_cell_count|outputs\.aggregates\[.*\]\.minimum_cell_count",
        "patients behind each cell of a table",
    ),
    (r"release\.minimum_patients_per_metric", "patients behind each number"),
    (r"release\.dominance\.\w+", "how much of a sum few patients may make up"),
    (r"release\.membership_limit", "how well an update may tell who it was trained on"),
    (r"release\.maximum_bytes", "bytes of one release"),
    (r"release\.timing_quantum_s", "how coarsely durations are told"),
    (r"release\.human_review", "whether a person looks at each release"),
    (r"release\.review_hours", "hours in which a person may let a release go"),
    (r"release\.secure_aggregation", "whether single updates stay unseen"),
    (r"release\.trust_statement", "whom the release rules leave to trust"),
    (r"release\.tensors\.clipping_norm", "how far one update may move the model"),
    (r"release\.tensors\.precision", "how finely weights are told"),
    (r"release\.tensors\.\w+_buffers", "whether running statistics leave"),
    (r"release\.tensors\.maximum_absolute", "the largest weight that leaves"),
    (r"release\.differential_privacy\.\w+", "the noise on what leaves"),
    (r"outputs\.metrics\[.*\]\.decimals|release\.metric_decimals", "how finely a number is told"),
    (r"runs\.strategy_parameters\.\w+\.\w+(\.\w+)?", "what an order may choose of a strategy"),
    (r"(runs\.)?hyperparameters\.[\w-]+(\.\w+)?", "what an order may choose"),
    (r"resources\.(\w+)", "what it may use at a station"),
    (r"valid_(from|until)", "when it may run"),
    (r"legal\.agreement\.expires", "how long the agreement holds"),
    (r"source_commit", "which source was built"),
)
_COMPILED_MEANINGS: Final = tuple((re.compile(pattern), meaning) for pattern, meaning in _MEANINGS)


def meaning_of(field: str) -> str:
    """Say in words what a field is about; empty for one whose name says it."""
    return next((meaning for pattern, meaning in _COMPILED_MEANINGS if pattern.fullmatch(field)), "")


def changes_between(before: StrictModel, after: StrictModel) -> tuple[FieldChange, ...]:
    """List every field that differs, by path; what is added or removed as a whole is one change."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    groups = {match[1] for path in old.keys() ^ new.keys() if (match := _GROUPS.match(path))}
    found: dict[str, FieldChange] = {}
    for group in groups:
        was, comes = _has(old, group), _has(new, group)
        if was != comes:
            grants = not group.startswith("elsi")
            direction: Direction = ("widens" if comes else "narrows") if grants else "changes"
            found[group] = FieldChange(
                group, "there" if was else "not there", "there" if comes else "not there", direction
            )
    for path in old.keys() | new.keys():
        match = _GROUPS.match(path)
        if old.get(path) != new.get(path) and not (match and match[1] in found):
            direction = _direction(path, old.get(path), new.get(path))
            found[path] = FieldChange(path, *_texts(old.get(path), new.get(path)), direction)
    return tuple(found[path] for path in sorted(found))


def widest_first(changes: Iterable[FieldChange]) -> list[FieldChange]:
    """Sort changes as a member reads them: what widens is what there is to agree to."""
    order = {"widens": 0, "changes": 1, "narrows": 2}
    return sorted(changes, key=lambda each: (order[each.direction], each.field))


def _direction(path: str, before: JsonValue, after: JsonValue) -> Direction:
    for pattern, verdict in _COMPILED:
        if pattern.fullmatch(path) and (direction := verdict(before, after)) != "changes":
            return direction
    return "changes"


def _flat(value: JsonValue, path: str = "") -> dict[str, JsonValue]:
    """Return the leaves of a document by path; a list of plain values is one leaf."""
    if isinstance(value, Mapping):
        inner = [
            _flat(item, f"{path}.{name}" if path else name)
            for name, item in value.items()
            if item is not None
        ]
        return {key: leaf for each in inner for key, leaf in each.items()}
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        keys = _KEYS.get(path, ())
        named = [(_name(item, keys, number), item) for number, item in enumerate(value, 1)]
        return {key: leaf for name, item in named for key, leaf in _flat(item, f"{path}[{name}]").items()}
    return {path: value}


def _name(item: JsonValue, keys: tuple[str, ...], number: int) -> str:
    if not keys or not isinstance(item, Mapping):
        return str(number)
    return "/".join(str(item.get(key)) for key in keys).replace("]", ")")


def _has(document: Mapping[str, JsonValue], group: str) -> bool:
    return any(path.startswith((f"{group}.", f"{group}[")) for path in document)


def _number(value: JsonValue, unset: float | None) -> float | None:
    if value is None:
        return unset
    if isinstance(value, list):
        return float(len(value))
    return float(value) if isinstance(value, int | float) else None


def _items(value: JsonValue) -> frozenset[str]:
    return frozenset(str(item) for item in value) if isinstance(value, list) else frozenset()


def _texts(before: JsonValue, after: JsonValue) -> tuple[str, str]:
    return _text(before), _text(after)


def _text(value: JsonValue) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
