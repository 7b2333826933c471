"""What the documents say is what the programs do: exit codes, make targets, links."""

import re
from pathlib import Path

import pytest

from policies.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for path in ROOT.rglob("README.md")
    if not {".venv", "demo-output", "node_modules"} & set(path.relative_to(ROOT).parts)
)


def test_the_table_of_exit_codes_is_the_programs_own() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| .+ \|$", README, re.MULTILINE)
    assert {int(number): name for number, name in rows} == {int(code): code.name for code in ExitCode}


def test_the_make_targets_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.relative_to(ROOT)} names {named - targets}"
    assert {"demo", "test", "setup", "bench-round"} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{target} is not there"


def test_every_package_has_a_page() -> None:
    packages = {"policies", "station", "orchestrator", "algorithms", "train_images", "tests"}
    assert packages <= {page.parent.name for page in PAGES if page.parent.parent == ROOT}


def test_the_four_programs_are_named_with_what_installs_them() -> None:
    for program in ("pht-board", "pht-station", "pht-train", "pht-orchestrator"):
        assert program in README
