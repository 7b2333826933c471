"""The table of attacks on the egress guard in this folder's README against the files."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SECTION = (
    (FOLDER / "README.md").read_text("utf-8").split("## Attacks on the egress guard")[1].split("\n## ")[0]
)
ROWS = [
    [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| ") and "`test_" in line
]


def test_every_file_stands_in_the_table_once() -> None:
    listed = [file for _attack, file, _by in ROWS]
    here = {path.name for path in FOLDER.glob("test_egress_*.py")}
    assert here - set(listed) == {"test_egress_table.py"}
    assert set(listed) <= here
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_says_what_is_tried_and_what_stops_it(row: list[str]) -> None:
    attack, _file, by = row
    assert attack
    assert by
