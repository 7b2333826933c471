"""The lung train as a researcher tries it: its own wheels, a container per made-up patient, the real guard."""

import pytest
from tool_kit import Tool
from trains_kit import Yard

pytestmark = pytest.mark.docker


def test_lungs_are_measured_in_the_sandbox_and_only_tables_leave(tool: Tool, yard: Yard) -> None:
    report = tool.json("check", yard.packed(tool, "ct-lung-involvement").path, "--patients", 22)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    assert message["metrics"] == {}
    (answered, *others) = message["tables"]["how_it_ended"]
    assert answered == [report["patients"]["training"]]
    assert not any(cell for line in others for cell in line)
    for cell in (line[0] for line in message["tables"]["coverage"]):
        assert cell <= 0 or cell >= 10
