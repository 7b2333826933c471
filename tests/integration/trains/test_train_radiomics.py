"""The radiomics train as a researcher tries it: MIRP without the libraries it was made to do without, and the real guard."""

import pytest
from tool_kit import Tool
from trains_kit import Yard

pytestmark = pytest.mark.docker


def test_every_patient_has_a_row_with_or_without_a_lesion_and_only_tables_leave(
    tool: Tool, yard: Yard
) -> None:
    report = tool.json("check", yard.packed(tool, "radiomics").path, "--patients", 22)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    assert message["metrics"] == {}
    (answered, *others) = message["tables"]["how_it_ended"]
    assert answered == [report["patients"]["training"]]
    assert not any(cell for line in others for cell in line)
    for cell in (line[0] for line in message["tables"].get("lesions", [])):
        assert cell <= 0 or cell >= 10
