"""How documents are read and written: strict models, YAML with line numbers, canonical JSON, digests.

Does not know any particular document. Invariants: unknown keys are errors that name the key and the line; a
mapping that names a key twice is an error; canonical JSON of equal documents is equal bytes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from policies.errors import DocumentError

MAX_DOCUMENT_BYTES = 1 << 20
MAX_NESTING = 24

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The plain form of RFC 3339 in UTC with whole seconds: one way to write a moment, so signatures over text agree.
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


class StrictModel(BaseModel):
    """Base of all documents: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def is_digest(text: str) -> bool:
    """Whether a text is ``sha256:`` and 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def _check_digest(value: str) -> str:
    if not is_digest(value):
        raise ValueError("is not a digest of the form sha256:<64 lower-case hex digits>")
    return value


def _read_moment(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("needs a time zone; write it as 2026-01-31T12:00:00Z")
        return value.astimezone(UTC).replace(microsecond=0)
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    raise ValueError("is not a moment in UTC; write it as 2026-01-31T12:00:00Z")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Digest = Annotated[str, AfterValidator(_check_digest)]
"""``sha256:`` and 64 lower-case hex digits."""

Moment = Annotated[datetime, BeforeValidator(_read_moment)]
"""A UTC moment in whole seconds."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
"""A lower-case identifier: letters, digits, inner hyphens, at most 64."""

Text = Annotated[str, Field(min_length=1, max_length=4000)]

_T = TypeVar("_T")
Sequence = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]
"""A tuple that YAML and JSON lists may fill, for strict models."""

_Model = TypeVar("_Model", bound=StrictModel)


def digest_of(data: bytes) -> str:
    """Return ``sha256:<hex>`` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return ``sha256:<hex>`` of a file's bytes, read as a stream."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def format_moment(moment: datetime) -> str:
    """Write a moment in the one form our documents use: ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_json(value: object) -> bytes:
    """Encode as JSON with sorted keys, no spaces, UTF-8, and neither NaN nor infinity.

    Args:
        value: a JSON value, or a `StrictModel`.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError("a key stands twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")


def parse_json(data: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> Any:  # noqa: ANN401 - any JSON value
    """Parse untrusted JSON: bounded, each key once, no NaN.

    Raises:
        DocumentError: naming `what`, never quoting the content.
    """
    if len(data) > max_bytes:
        raise DocumentError(f"{what}: {len(data)} bytes; at most {max_bytes} are read")
    if _nesting(data) > MAX_NESTING:
        raise DocumentError(f"{what}: nested more than {MAX_NESTING} levels deep")
    try:
        return json.loads(data, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{what}: not valid JSON") from error


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _nesting(data: bytes) -> int:
    # Counts brackets, those in strings too: an upper bound is all that is asked.
    depth = deepest = 0
    for byte in data.translate(None, _NO_BRACKETS):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def load_json(model: type[_Model], data: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> _Model:
    """Read one JSON document as `model`.

    Raises:
        DocumentError: naming the key that is wrong.
    """
    return _validate(model, parse_json(data, what=what, max_bytes=max_bytes), what, lines={})


def load_canonical_json(
    model: type[_Model], data: bytes, *, what: str, max_bytes: int = MAX_DOCUMENT_BYTES
) -> _Model:
    """Read one JSON document that is written in the one form of `canonical_json`: its digest follows from what it says.

    Raises:
        DocumentError: naming the key that is wrong, or that it is written otherwise.
    """
    document = load_json(model, data, what=what, max_bytes=max_bytes)
    if canonical_json(document) != data:
        raise DocumentError(f"{what}: is not in canonical form")
    return document


class _LineLoader(yaml.SafeLoader):
    """YAML 1.1 safe loader that refuses double keys, aliases and tags, and remembers the line of each key."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._trail: list[str | int] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - PyYAML's own type
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", self._mark())
        if len(self._trail) > MAX_NESTING:
            raise yaml.constructor.ConstructorError(None, None, "nested too deep", self._mark())
        step = index.value if isinstance(index, yaml.ScalarNode) else index
        is_value = index is not None
        if is_value:
            self._trail.append(step)
            mark = index.start_mark if isinstance(index, yaml.ScalarNode) else self._mark()
            self.lines[tuple(self._trail)] = mark.line + 1
        try:
            return super().compose_node(parent, index)
        finally:
            if is_value:
                self._trail.pop()

    def _mark(self) -> yaml.Mark:
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # not in its stubs
        return mark

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


# Dates stay text: a document's own model reads them, in one form.
_LineLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(model: type[_Model], data: bytes, *, what: str) -> _Model:
    """Read one YAML document as `model`.

    Args:
        model: the document's model.
        data: the file's bytes, untrusted.
        what: the name to use in errors, for example the file's name.

    Raises:
        DocumentError: naming the key and the line.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"{what}: {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    try:
        loader = _LineLoader(data.decode("utf-8"))
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise DocumentError(f"{what}: is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(f"{what}, line {line}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DocumentError(f"{what}: is not valid YAML") from error
    return _validate(model, value, what, lines=loader.lines)


def load_yaml_file(model: type[_Model], path: Path) -> _Model:
    """Read one YAML file as `model`.

    Raises:
        DocumentError: naming the file, the key and the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path.name}: cannot be read ({error.strerror})") from error
    return load_yaml(model, data, what=path.name)


def _validate(
    model: type[_Model], value: object, what: str, lines: Mapping[tuple[str | int, ...], int]
) -> _Model:
    if not isinstance(value, dict):
        raise DocumentError(f"{what}: must be a mapping of keys to values")
    try:
        # Through JSON, because strict models take enum values and moments as text from JSON only.
        return model.model_validate_json(canonical_json(value))
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise DocumentError(f"{what}: holds a value that JSON has no form for") from error
        # An unknown key first: it is often a known one misspelt, which is then missing as well.
        found = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        problems = [_describe(problem["loc"], problem["msg"], problem["type"], lines) for problem in found]
        raise DocumentError(
            f"{what}: " + "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else ""),
            hint="Correct the named keys; the JSON Schema beside the model lists what is allowed.",
        ) from error


def _describe(
    location: tuple[int | str, ...], message: str, kind: str, lines: Mapping[tuple[str | int, ...], int]
) -> str:
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = "is not a known key"
    elif kind == "missing":
        message = "is missing"
    for length in range(len(location), 0, -1):
        if line := lines.get(location[:length]):
            return f"line {line}: {'.'.join(map(str, location))} {message}"
    where = ".".join(map(str, location))
    return f"{where} {message}" if where else message
