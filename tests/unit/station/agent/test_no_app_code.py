"""Invariant I2: no Flower app bundle is fetched, unpacked or run at a station."""

import ast
from pathlib import Path

import pytest

STATION = Path(__file__).resolve().parents[4] / "station"
FORBIDDEN = {
    "GetFab",
    "GetFabRequest",
    "fab_from_proto",
    "install_from_fab",
    "get_fab",
    "load_app",
    "run_clientapp",
}
RUNS_CODE = {"exec", "eval", "compile", "__import__"}


@pytest.mark.parametrize(
    "path", sorted(STATION.rglob("*.py")), ids=lambda path: path.relative_to(STATION).as_posix()
)
def test_no_module_touches_a_bundle_or_runs_text(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in FORBIDDEN
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN
        if isinstance(node, ast.ImportFrom | ast.Import):
            assert not {alias.name for alias in node.names} & FORBIDDEN
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in RUNS_CODE
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            alias.name == "pickle" for alias in node.names
        ):
            pytest.fail("pickle")
