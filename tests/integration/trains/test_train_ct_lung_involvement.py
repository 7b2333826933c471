"""The lung train as a researcher tries it: its own wheels, a container per made-up patient, the real guard."""

import pytest
from tool_kit import Tool
from trains_kit import Yard

pytestmark = pytest.mark.docker


def test_lungs_are_measured_in_the_sandbox_and_only_tables_leave(tool: Tool, yard: Yard) -> None:
    train = yard.packed(tool, "ct-lung-involvement")
    report = tool.json("check", train.path, "--patients", 22, "--slices", 60)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    assert message["metrics"] == {}
    (answered, *others) = message["tables"]["how_it_ended"]
    assert answered == [report["patients"]["training"]]
    assert not any(cell for line in others for cell in line)
    # All of the phantoms' lungs are on sixty slices of theirs, and none is as sick as a third.
    whole, cut_off = message["tables"]["coverage"]
    assert whole == [report["patients"]["training"]]
    assert cut_off == [0]
    told = [
        cell
        for name, table in message["tables"].items()
        if "quantiles" not in name
        for line in table
        for cell in line
    ]
    assert not [cell for cell in told if 0 < cell < 10]
