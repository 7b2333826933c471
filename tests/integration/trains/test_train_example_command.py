"""The shell train in the real sandbox and through the real guard."""

import pytest
from tool_kit import Tool
from trains_kit import Yard

pytestmark = pytest.mark.docker


def test_a_shell_program_is_a_train_whose_rows_the_station_counts(yard: Yard, tool: Tool) -> None:
    bundle = yard.packed(tool, "example-command")
    found = tool.json("check", bundle.path, "--patients", 60)
    assert found["outcome"] == "released"
    (message,) = found["messages"]
    training = found["patients"]["training"]
    assert 0 <= message["metrics"]["complete_share"] <= 1
    withheld = {each["key"] for each in message["suppressed"]}
    assert withheld <= {"known"}, "few lack a field, and fewer than ten are hidden"
    assert message["tables"].keys() | withheld == {"spacing", "sizes", "known"}
    # Small made-up radiographs: all below a million pixels.
    assert message["tables"]["sizes"][0] == [training]
    assert sum(count for (count,) in message["tables"]["sizes"]) == training
    assert message["arrays_bytes"] == 0
