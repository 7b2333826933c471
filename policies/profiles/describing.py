"""A profile for people (a Markdown page) and for programs (a JSON Schema of one row); both are made from the profile alone."""

import json
from importlib.resources import files
from pathlib import Path

from policies.errors import StorageError
from policies.files import write_atomically
from policies.profiles.bands import ExactBand, PeriodBand, RangeBand, RoundedBand, WithheldBand
from policies.profiles.model import Concept, Profile, ProfileField
from policies.profiles.shipped import load_profile, shipped_profiles

_WHEN = {
    "at-study": "at the study",
    "at-admission": "at admission",
    "before-study": "before the study",
    "after-study": "after the study",
    "lasting": "lasting",
}
_LEGEND = (
    "`*` required. `q` can single a person out together with the others so marked: it is banded, and counted in the "
    "k-anonymity of a cohort."
)


def page(profile: Profile) -> str:
    """Return a profile's Markdown page: what it is for, a table of its fields, their answers, where its codes come from."""
    lines = [
        f"# {profile.title} (`{profile.id}`)",
        "",
        f"<!-- Generated from {profile.id}.json by `pht-board profile write`; change that and run it again. -->",
        "",
        profile.description,
        "",
        "| field | what | kind | unit | range | when | in a cohort | codes |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(field) for field in profile.fields),
        "",
        _LEGEND,
        "",
    ]
    answered = [field for field in profile.fields if field.values]
    if answered:
        lines += ["## Answers", "", "| field | value | meaning | codes |", "|---|---|---|---|"]
        lines += [
            f"| `{field.name}` | `{entry.value}` | {entry.meaning} | {_codes(entry.concepts)} |"
            for field in answered
            for entry in field.values
        ]
        lines.append("")
    if profile.sources:
        lines += ["## Where the codes were looked up", ""]
        lines += [f"- `{source.id}`: {source.title}. {source.where}" for source in profile.sources]
        lines.append("")
    return "\n".join(lines)


def row_schema(profile: Profile) -> bytes:
    """Return the JSON Schema of one row under a profile, as intake hands it over: exact, before it is banded."""
    body = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pht:profile:{profile.id}",
        "title": profile.title,
        "description": profile.description,
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in profile.fields if field.required],
        "properties": {field.name: _property(field) for field in profile.fields},
    }
    return (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()


def write_descriptions(folder: Path | None = None) -> list[str]:
    """Write page and schema of every shipped profile beside it; returns the names of those that changed.

    Raises:
        StorageError: the package does not lie in a folder, or it cannot be written.
    """
    target = folder or _folder()
    changed = []
    for name in shipped_profiles():
        profile = load_profile(name)
        for path, data in (
            (target / f"{name}.md", page(profile).encode()),
            (target / f"{name}.schema.json", row_schema(profile)),
        ):
            if not path.exists() or path.read_bytes() != data:
                write_atomically(path, data)
                changed.append(path.name)
    return changed


def _folder() -> Path:
    folder = files("policies.profiles")
    if not isinstance(folder, Path):
        raise StorageError("the package does not lie in a folder")
    return folder


def _row(field: ProfileField) -> str:
    marks = ("*" if field.required else "") + (" q" if field.identifying == "quasi" else "")
    cells = (
        f"`{field.name}`{marks}",
        field.description,
        field.kind,
        field.unit or "",
        _range(field),
        _WHEN[field.when],
        _shown(field),
        _codes(field.concepts),
    )
    return "| " + " | ".join(cells) + " |"


def _range(field: ProfileField) -> str:
    if field.minimum is None or field.maximum is None:
        return ""
    return f"{field.minimum:g} to {field.maximum:g}"


def _shown(field: ProfileField) -> str:
    match field.band:
        case ExactBand():
            return "as it is"
        case WithheldBand():
            return "not shown"
        case PeriodBand():
            return f"{field.band.unit} of the shifted date"
        case RoundedBand():
            return f"rounded to {field.band.step:g}"
        case RangeBand():
            first = f"{field.band.bottom}-{field.band.bottom + field.band.step - 1}"
            below = (
                ""
                if field.minimum is not None and field.minimum >= field.band.bottom
                else f"under{field.band.bottom}, "
            )
            return f"{below}{first}, ..., {field.band.top}+"


def _codes(concepts: tuple[Concept, ...]) -> str:
    return "; ".join(
        f"{concept.system} {concept.code} ({concept.display}; `{concept.source}`)" for concept in concepts
    )


def _property(field: ProfileField) -> dict[str, object]:
    entry: dict[str, object] = {"description": field.description}
    if field.kind == "flag":
        entry["type"] = ["boolean", "null"]
    elif field.kind == "date":
        entry |= {"type": ["string", "null"], "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
    elif field.kind == "code":
        entry["enum"] = [*field.codes, None]
    elif field.values:
        entry["enum"] = [*(int(code) for code in field.codes), None]
    else:
        entry["type"] = ["number" if field.kind == "number" else "integer", "null"]
        if field.minimum is not None:
            entry["minimum"] = field.minimum
        if field.maximum is not None:
            entry["maximum"] = field.maximum
    if field.unit:
        entry["x-unit-ucum"] = field.unit
    return entry
