"""TOML as text: where a key stands, how a value is written, and the settings file with a comment for each key.

Python reads TOML and does not write it; what is here writes the few forms that settings need.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from policies.documents import StrictModel

if TYPE_CHECKING:
    from station.settings import StationSettings

_TABLE = re.compile(r"^\s*\[([A-Za-z0-9_-]+)\]\s*(?:#.*)?$")
_TABLE_OF_LIST = re.compile(r"^\s*\[\[([A-Za-z0-9_-]+)\]\]\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")
_WIDTH = 100


def key_lines(text: str) -> dict[tuple[int | str, ...], int]:
    r"""Return the line of each table and key, for error messages.

    Knows tables, lists of tables and plain keys: the forms our own files use. A key written otherwise is reported
    without its line.

    >>> key_lines('name = "a"\n[[collections]]\nname = "b"\n')
    {('name',): 1, ('collections', 0): 2, ('collections', 0, 'name'): 3}
    """
    lines: dict[tuple[int | str, ...], int] = {}
    table: tuple[int | str, ...] = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.match(line):
            table = (match[1],)
            lines[table] = number
        elif match := _TABLE_OF_LIST.match(line):
            counts[match[1]] = counts.get(match[1], -1) + 1
            table = (match[1], counts[match[1]])
            lines[table] = number
        elif match := _KEY.match(line):
            lines[*table, match[1]] = number
    return lines


def literal(text: str) -> object:
    """Read a value as TOML writes it; what is no TOML value is text.

    >>> literal("3"), literal("0.5"), literal("https://a")
    (3, 0.5, 'https://a')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def render(settings: "StationSettings") -> str:
    """Write settings as TOML, each key under its description; `parse_settings` reads the same settings back."""
    lines = [
        "# Settings of one station. Unknown keys are errors. A key in the form `# key = ...` is optional and unset.",
        "",
    ]
    lines += _keys(
        settings, names=[name for name in type(settings).model_fields if _is_plain(getattr(settings, name))]
    )
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, StrictModel):
            lines += ["", *_comment(type(value).__doc__ or ""), f"[{name}]", *_keys(value)]
        elif isinstance(value, tuple):
            for item in value:
                lines += ["", *_comment(type(item).__doc__ or ""), f"[[{name}]]", *_keys(item)]
    return "\n".join(lines) + "\n"


def _is_plain(value: object) -> bool:
    return not isinstance(value, StrictModel | tuple)


def _keys(model: StrictModel, names: list[str] | None = None) -> list[str]:
    lines = []
    for name, info in type(model).model_fields.items():
        if names is not None and name not in names:
            continue
        value = getattr(model, name)
        lines += _comment(info.description or "")
        lines.append(f"# {name} = ..." if value is None else f"{name} = {_value(value)}")
    return lines


def _comment(text: str) -> list[str]:
    words, lines = text.split(), ["#"]
    for word in words:
        if len(lines[-1]) + len(word) >= _WIDTH:
            lines.append("#")
        lines[-1] += f" {word}"
    return lines if words else []


def _value(value: Any) -> str:  # noqa: ANN401 - any value of a settings model
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _value(value.value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the delete character, which settings do not hold.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    raise TypeError(f"no TOML form for {type(value).__name__}")
