import json

import pytest
import yaml
from board_kit import EXAMPLE

from policies.board.documents.schemas import DOCUMENTS, schema_folder, schema_text, write_schemas


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_schema_beside_the_model_is_current(name: str) -> None:
    path = schema_folder() / f"{name}.json"
    assert path.read_bytes() == schema_text(name), "run `pht-board schema`"


def test_no_schema_is_left_over() -> None:
    assert {path.stem for path in schema_folder().glob("*.json")} == set(DOCUMENTS)


def test_writing_again_changes_nothing(tmp_path: object) -> None:
    assert write_schemas(schema_folder()) == []


def test_a_schema_names_every_key_of_the_example() -> None:
    schema = json.loads(schema_text("policy"))
    assert set(yaml.safe_load(EXAMPLE.read_text("utf-8"))) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
