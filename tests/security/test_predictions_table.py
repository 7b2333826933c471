"""The table of attacks on predictions in this folder's README against the files."""

from pathlib import Path

FOLDER = Path(__file__).parent
SECTION = (FOLDER / "README.md").read_text("utf-8").split("## Attacks on predictions")[1].split("\n## ")[0]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| ") and "`test_" in line
]


def test_every_file_stands_in_the_table_once_with_what_stops_it() -> None:
    here = {path.name for path in FOLDER.glob("test_predictions_*.py")} - {Path(__file__).name}
    assert sorted(file for _attack, file, _by in ROWS) == sorted(here)
    assert all(attack and by for attack, _file, by in ROWS)
