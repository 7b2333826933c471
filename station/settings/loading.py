"""Reading station.toml, with the environment laid over it; only this module of the station reads the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policies.documents import StrictModel, canonical_json
from policies.errors import NotFoundError, SettingsError
from station.settings.model import StationSettings
from station.settings.text import key_lines, literal

SETTINGS_FILE = "station.toml"
ENVIRONMENT_PREFIX = "PHT_STATION_"


def load_settings(home: Path, environment: Mapping[str, str] | None = None) -> StationSettings:
    """Read the settings of a home.

    Args:
        home: the station's folder.
        environment: for tests; the process's own where not given.

    Raises:
        NotFoundError: the folder holds no settings.
        SettingsError: not TOML, an unknown key, or a value out of range; names the key and the line.
    """
    try:
        text = (home / SETTINGS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no {SETTINGS_FILE} here", hint="Make one with `pht-station init`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{SETTINGS_FILE}: cannot be read as UTF-8 text") from error
    return parse_settings(text, os.environ if environment is None else environment)


def parse_settings(text: str, environment: Mapping[str, str] | None = None) -> StationSettings:
    """Read settings from TOML text.

    Args:
        text: the file's content.
        environment: variables that override plain keys; None for none.

    Raises:
        SettingsError: naming the key and, for what stands in the text, the line.
    """
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise SettingsError(f"{SETTINGS_FILE}: is not valid TOML: {error}") from error
    _override(values, environment or {})
    try:
        # Through JSON: strict models take names of enums from JSON only.
        return StationSettings.model_validate_json(canonical_json(values))
    except ValidationError as error:
        lines = key_lines(text)
        problems = [
            _describe(problem["loc"], problem["type"], problem["msg"], lines)
            for problem in error.errors()[:5]
        ]
        raise SettingsError(
            f"{SETTINGS_FILE}: " + "; ".join(problems),
            hint="Correct the named keys; station/settings/settings.example.toml lists what is allowed.",
        ) from error
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{SETTINGS_FILE}: holds a value that is no text, number, list or table"
        ) from error


def _describe(
    location: tuple[int | str, ...], kind: str, message: str, lines: Mapping[tuple[int | str, ...], int]
) -> str:
    texts = {"extra_forbidden": "is not a known key", "missing": "is missing"}
    message = texts.get(kind, message.removeprefix("Value error, "))
    where = ".".join(map(str, location))
    sentence = f"{where} {message}" if where else message
    for length in range(len(location), 0, -1):
        if line := lines.get(location[:length]):
            return f"line {line}: {sentence}"
    return sentence


def _override(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Lay environment variables over the file's plain keys.

    Raises:
        SettingsError: a variable with our prefix names no setting.
    """
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        place, key = _place(values, variable.removeprefix(ENVIRONMENT_PREFIX).lower(), variable)
        place[key] = literal(text)


def _place(values: dict[str, Any], name: str, variable: str) -> tuple[dict[str, Any], str]:
    if name == "name":
        return values, name
    for section, info in StationSettings.model_fields.items():
        model = info.annotation
        if not (
            isinstance(model, type) and issubclass(model, StrictModel) and name.startswith(f"{section}_")
        ):
            continue
        key = name.removeprefix(f"{section}_")
        part = values.setdefault(section, {})
        if key in model.model_fields and isinstance(part, dict):
            return part, key
    raise SettingsError(
        f"the environment variable {variable} names no setting", hint="Unset it or correct its name."
    )
