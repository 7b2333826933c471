"""What an image's config asks of a container, and the steps that made it. A station overrides nearly all of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

_MAX_TEXT: Final = 400
_MAX_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The image's own wishes, as text.

    Attributes:
        environment: names only: a value may be somebody's secret, and stations set their own.
        others: keys that have something to say (health checks, volumes, ports, triggers), by name.
    """

    created: str
    platform: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    folder: str
    environment: tuple[str, ...]
    labels: tuple[str, ...]
    others: tuple[str, ...]


def settings_of(config: JsonValue) -> ImageSettings:
    """Read them out of an image config, whatever it holds."""
    top = config if isinstance(config, dict) else {}
    found = top.get("config")
    asked: Mapping[str, JsonValue] = found if isinstance(found, dict) else {}
    labels = asked.get("Labels")
    others = ("Healthcheck", "Volumes", "ExposedPorts", "OnBuild", "StopSignal", "Shell")
    return ImageSettings(
        created=_text(top.get("created")),
        platform=f"{_text(top.get('os')) or '?'}/{_text(top.get('architecture')) or '?'}",
        entrypoint=_texts(asked.get("Entrypoint")),
        command=_texts(asked.get("Cmd")),
        user=_text(asked.get("User")),
        folder=_text(asked.get("WorkingDir")),
        environment=tuple(sorted(text.partition("=")[0] for text in _texts(asked.get("Env")))),
        labels=tuple(sorted(f"{name}={_text(value)}"[:_MAX_TEXT] for name, value in labels.items()))[
            :_MAX_ITEMS
        ]
        if isinstance(labels, dict)
        else (),
        others=tuple(f"{name}: {_text(asked[name])}" for name in others if asked.get(name)),
    )


def steps_of(config: JsonValue, layers: int) -> list[str]:
    """Return the step that made each layer, as the history claims; empty texts where the two do not fit."""
    history = config.get("history") if isinstance(config, dict) else None
    steps = [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    made = [
        _text(step.get("created_by")) or _text(step.get("comment"))
        for step in steps
        if not step.get("empty_layer")
    ]
    return made if len(made) == layers else [""] * layers


def _text(value: JsonValue) -> str:
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return " ".join(text.split())[:_MAX_TEXT]


def _texts(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    return tuple(_text(item) for item in value[:_MAX_ITEMS]) if isinstance(value, list) else ()
