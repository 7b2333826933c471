"""The table of attacks on the sandbox in this folder's README against the files."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SECTION = (FOLDER / "README.md").read_text("utf-8").split("## Attacks on the sandbox")[1].split("\n## ")[0]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| ") and "`test_" in line
]
# The attacks that a sandbox must be tried with, by a word of each file's name.
ISSUE = (
    "network", "dns", "raw_socket", "abstract_socket", "docker_socket", "launcher_socket", "host_paths", "other_cohorts",
    "other_patients", "proc_host", "sys_files", "keyring", "mounts", "set_user_id", "ptrace", "devices", "cgroup_escape",
    "user_namespaces", "fork_bomb", "memory_bomb", "disk_bomb", "inode_bomb", "log_bomb", "clock", "core_dump",
    "reply_control_socket", "reply_never_ends", "reply_wrong_length", "reply_lying_header", "reply_compression_bomb",
    "reply_million_tensors", "reply_not_finite", "reply_deep_json", "two_replies", "reply_before_request", "gpu_residue",
)  # fmt: skip


def test_every_file_stands_in_the_table_once() -> None:
    listed = [file for _attack, file, _by in ROWS]
    here = {path.name for path in FOLDER.glob("test_sandbox_*.py")}
    assert here - set(listed) == {"test_sandbox_every_option_matters.py", "test_sandbox_table.py"}
    assert set(listed) <= here
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_says_what_is_tried_and_what_stops_it(row: list[str]) -> None:
    attack, _file, by = row
    assert attack
    assert by


@pytest.mark.parametrize("name", ISSUE)
def test_every_attack_that_must_be_tried_has_its_file(name: str) -> None:
    assert (FOLDER / f"test_sandbox_{name}.py").is_file()
