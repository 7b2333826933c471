"""The table of attacks in this folder's README against the files and the catalogue of refusals."""

from pathlib import Path

import pytest

from policies.refusals import RefusalCode

FOLDER = Path(__file__).parent
ROWS = [
    [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
    for line in (FOLDER / "README.md").read_text("utf-8").split("## Attacks on the sandbox")[0].splitlines()
    if line.startswith("| ") and "`test_" in line
]
# What the attack is, apart from what it is tried on.
ISSUE = (
    "rollback of the timestamp", "rollback of the snapshot", "rollback of the list of targets",
    "rollback of the register", "rollback of the table of purposes", "freeze", "mix-and-match", "hidden revocation",
    "root below the threshold", "policy below the threshold", "register or a table of purposes below the threshold",
    "missing role", "secretary's replaced key", "witness's replaced key", "member's replaced key", "expired root",
    "expired timestamp", "expired snapshot", "expired targets", "expired policy", "expired agreement", "expired order",
    "root that skips a version", "bytes changed in place: metadata", "bytes changed in place: a document",
    "bytes changed in place: an order", "policy of another board", "member who is the requester",
    "stolen key of the secretary", "stolen key of the witness", "replayed order", "altered order", "over-long run",
    "over-many orders", "inbound hyperparameters",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_file_and_a_code_that_it_expects(row: list[str]) -> None:
    _attack, file, code = row
    text = (FOLDER / file).read_text("utf-8")
    if code != "the witness does not sign":
        assert code in set(RefusalCode)
        assert code in text or file == "test_trust_duplicate_signatures.py"


def test_every_attack_file_stands_in_the_table() -> None:
    listed = {row[1] for row in ROWS}
    here = {path.name for path in FOLDER.glob("test_attack_*.py")}
    assert here - listed == {"test_attack_nothing_runs.py", "test_attack_table.py"}


@pytest.mark.parametrize("attack", ISSUE)
def test_every_attack_that_must_be_tried_is_one_row(attack: str) -> None:
    assert any(attack in row[0] for row in ROWS)
