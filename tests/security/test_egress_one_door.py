"""Attack from inside: code that makes a release of its own. Only the guard may (invariant I1)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("policies", "station", "orchestrator", "train_images", "algorithms")
MADE_IN = {
    "Release": {Path("station/egress/guard.py")},
    "Withheld": {Path("station/egress/guard.py"), Path("station/runs/differing.py")},
    "ReleaseRow": {Path("station/egress/records/releases.py")},
    "LedgerRow": set(),
    "AuditRow": set(),
}


def constructions(name: str) -> set[Path]:
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called = node.func
                label = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
                arguments = {argument.id for argument in node.args if isinstance(argument, ast.Name)}
                if label == name or (label == "replace" and name.lower() in arguments):
                    found.add(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("name", MADE_IN)
def test_it_is_made_in_one_place(name: str) -> None:
    assert constructions(name) == MADE_IN[name]
