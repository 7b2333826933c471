"""Who may import whom (DESIGN section 4), read from the source of every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("policies", "station", "orchestrator", "algorithms", "train_images")
ALLOWED = {
    "policies": {"policies"},
    "station": {"station", "policies"},
    "orchestrator": {"orchestrator", "policies"},
    "train_images": {
        "train_images",
        "policies",
        "station.cohorts",
        "station.sandbox",
        "station.egress",
        "station.predictions.judging",
    },
    "algorithms": {"algorithms"},
}
RUNTIME = "train_images/runtime/"
# What rides in trains beside `algorithms`: an example, and what a new train is written from. Nobody of ours imports it.
IN_TRAINS = ("train_images/templates/", "train_images/example-quickstart/")
# Third parties that only the named places may import.
CONFINED = {
    "docker": ("station/sandbox/engine/",),
    "pynvml": ("station/sandbox/gpu/looking.py",),
    "pydicom": (
        "station/intake/",
        "station/pseudonymisation/",
        "station/cohorts/",
        "station/predictions/objects.py",
        "train_images/phantoms/",
    ),
    "highdicom": (
        "station/intake/",
        "station/pseudonymisation/",
        "station/cohorts/",
        "station/predictions/objects.py",
        "train_images/phantoms/",
    ),
    "pynetdicom": ("station/intake/sources/",),
    "dicomweb_client": ("station/intake/sources/",),
    "hl7": ("station/intake/",),
    "fastapi": ("station/web/", "station/intake/", "orchestrator/portal/", "orchestrator/front/"),
    "torch": ("algorithms/", *IN_TRAINS),
    "monai": ("algorithms/", *IN_TRAINS),
    "flwr": ("station/agent/", "orchestrator/federation/", "algorithms/", RUNTIME, *IN_TRAINS),
}


def modules() -> Iterator[Path]:
    for package in OURS:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(allowed + ".")


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    package = relative.split("/")[0]
    allowed = {"pht_runtime"} if relative.startswith(RUNTIME) else ALLOWED[package]
    if relative.startswith(IN_TRAINS):
        allowed = {"algorithms"}
    for name in imports(path):
        top = name.split(".")[0]
        if top in OURS:
            # `from station import cohorts` names the package too; the names under it are what counts.
            parents = any(under(permitted, name) for permitted in allowed)
            assert parents or any(under(name, permitted) for permitted in allowed), (
                f"{relative} imports {name}"
            )
        if top in CONFINED:
            assert relative.startswith(CONFINED[top]), f"{relative} imports {name}, which is confined"


def private_flower(name: str) -> bool:
    return name.startswith(
        ("flwr.superlink", "flwr.supernode", "flwr.supercore", "flwr.proto", "flwr.server.superlink")
    )


def test_private_flower_modules_stay_in_one_file_per_use() -> None:
    users: dict[str, set[str]] = {}
    for path in modules():
        relative = path.relative_to(ROOT).as_posix()
        if any(private_flower(name) for name in imports(path)):
            users.setdefault("/".join(relative.split("/")[:2]), set()).add(relative)
    assert users, "the agent, the run worker and the runtime use Flower's private modules"
    assert {place: len(files) for place, files in users.items()} == dict.fromkeys(users, 1), users
    assert set(users) <= {"station/agent", "orchestrator/federation", "train_images/runtime"}


def test_a_station_installs_without_torch() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [need for need in extras["station"] if need.startswith(("torch", "monai"))]
