"""The page of clinical data against the code: every key of the mapping file, every fault."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policies.profiles import ValueFault
from station.intake.clinical.labels.faults import SAYS, LabelFault
from station.intake.clinical.mapping import ExportMapping
from station.intake.clinical.report import RowFault

README = (Path(__file__).parents[4] / "station/intake/clinical/README.md").read_text("utf-8")
MAPPING = README.split("## The mapping file")[1].split("\n## ")[0]
MASKS = README.split("## Masks")[1].split("\n## ")[0]


def keys(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    options = [node, *node.get("anyOf", ()), *node.get("oneOf", ())]
    models = [schema["$defs"][found["$ref"].split("/")[-1]] for found in options if "$ref" in found]
    nested = [model for model in models if "properties" in model]
    free = next(iter(node.get("patternProperties", {}).values()), None)
    if free is not None:
        nested, prefix = [schema["$defs"][free["$ref"].split("/")[-1]]], f"{prefix}<field>."
    if not nested:
        yield prefix.rstrip(".")
    for model in nested:
        for name, inner in model["properties"].items():
            yield from keys(schema, inner, f"{prefix}{name}.")


def documented(text: str) -> set[str]:
    return {
        word
        for line in text.splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`([^`]+)`", line)
    }


def test_every_key_of_the_mapping_file_is_on_the_page() -> None:
    schema = ExportMapping.model_json_schema()
    found = {key for name, node in schema["properties"].items() for key in keys(schema, node, f"{name}.")}
    assert "fields.<field>.times" in found
    assert "study.days_after" in found
    assert found - documented(MAPPING) == set()


def test_every_fault_is_on_the_page_and_has_words() -> None:
    for fault in (*RowFault, *ValueFault):
        assert f"`{fault.value}`" in MAPPING
    for label_fault in LabelFault:
        assert f"`{label_fault.value}`" in MASKS
    assert set(SAYS) == set(LabelFault)
