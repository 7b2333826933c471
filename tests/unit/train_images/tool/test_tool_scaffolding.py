"""`pht-train new`: what it writes, and what it refuses to write."""

import ast
import json
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from tool_kit import Tool

import train_images
from policies.errors import ExitCode
from policies.profiles import load_profile
from train_images.outside import declared_columns, declared_metrics, default_settings, make_cohort
from train_images.tool.folders import read_folder

KINDS = [
    ("flower", "DX"),
    ("flower", "CR"),
    ("flower", "CT"),
    ("map", "DX"),
    ("map", "CT"),
    ("command", "CT"),
]
TEMPLATES = Path(train_images.__file__).parent / "templates"


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


@pytest.mark.parametrize(("kind", "modality"), KINDS)
def test_what_is_written_is_a_train_and_clean(kind: str, modality: str, tmp_path: Path, tool: Tool) -> None:
    folder = tmp_path / "lung-nodules"
    written = tool.json("new", folder, "--kind", kind, "--modality", modality)
    train = read_folder(folder).manifest
    assert (train.name, train.interface, [*train.data.modalities]) == ("lung-nodules", kind, [modality])
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(
        written["files"]
    )
    found = "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "my_train" not in found
    assert "$" not in found.replace("${TORCH}", "").replace(
        (folder / "analyse.sh").read_text() if kind == "command" else "\0", ""
    )
    for name in ("check", "format"):
        arguments = ["--check"] if name == "format" else []
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", name, "--no-cache", *arguments, folder],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout
    description = json.loads((folder / "train.json").read_text())
    assert description["interface"] == kind
    if kind == "flower":
        # The network that is named is the one that is built.
        built = ast.parse((folder / "lung_nodules" / "model.py").read_text())
        (call,) = [
            node
            for node in ast.walk(built)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "DenseNet"
        ]
        said = {word.arg: word.value for word in call.keywords}
        assert train.network is not None
        assert set(said) == set(train.network.arguments)
        for name, value in said.items():
            if name != "spatial_dims":
                wanted = train.network.arguments[name]
                assert ast.literal_eval(value) == (tuple(wanted) if isinstance(wanted, tuple) else wanted)
        images = (folder / "lung_nodules" / "images.py").read_text()
        assert f"SPATIAL_DIMS = {train.network.arguments['spatial_dims']}\n" in images
        assert train.network.input is not None
        assert f"SHAPE = {tuple(train.network.input.spatial_shape)}\n" in images


@pytest.mark.parametrize("modality", ["DX", "CT"])
def test_a_written_map_train_answers_rows_that_fit_its_manifest(
    modality: str, tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"written-{modality.lower()}"
    tool("new", folder, "--kind", "map", "--modality", modality)
    cohort = make_cohort(folder, tmp_path / "cohort", patients=6)
    monkeypatch.syspath_prepend(str(folder))
    measure = __import__(f"written_{modality.lower()}.measure", fromlist=["row"])
    rows = [measure.row([path], default_settings(folder)) for path in (cohort / "images").iterdir()]
    columns = declared_columns(folder)
    assert len(rows) > 3
    for row in rows:
        assert set(row) == set(columns)
        assert all(columns[name].accepts(value) for name, value in row.items())
    blank = tmp_path / "blank.nii"
    data = bytearray(next((cohort / "images").iterdir()).read_bytes())
    data[352:] = (b"\0\0" if modality == "DX" else (-1024).to_bytes(2, "little", signed=True)) * (
        (len(data) - 352) // 2
    )
    blank.write_bytes(data)
    assert measure.row([blank], default_settings(folder)) == {
        "error": read_folder(folder).manifest.error_codes[0]
    }


def test_a_written_command_train_answers_what_it_declares(tmp_path: Path, tool: Tool) -> None:
    folder = tmp_path / "shell"
    tool("new", folder, "--kind", "command")
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "basetemp", folder,
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert declared_metrics(folder, "analyse") == ({"images_per_patient"}, set())


def test_a_folder_that_holds_anything_is_left_as_it_is(tmp_path: Path, tool: Tool) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert "holds something already" in tool.error(ExitCode.USAGE, "new", folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert "holds something already" in tool.error(ExitCode.USAGE, "new", folder / "notes.txt")
    (folder / "notes.txt").unlink()
    tool("new", folder)
    assert (folder / "train.yaml").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch", "is in the image"),
        ("json", "is in the image"),
        ("cryptography", "is in the image"),
        ("typing-extensions", "is in the image"),
        ("networkx", "is in the image"),
        ("yaml", "is in the image"),
        ("train-images", "in the test"),
        ("pytest", "in the test"),
        ("class", "no name of a Python package"),
        ("3d-unet", "no name of a Python package"),
        ("Lung", "no name of a train"),
        ("a" * 65, "no name of a train"),
        ("../x", "no name of a train"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(
    name: str, words: str, tmp_path: Path, tool: Tool
) -> None:
    assert words in tool.error(ExitCode.USAGE, "new", tmp_path / "new", "--name", name)
    assert not (tmp_path / "new").exists()


def test_the_folder_gives_the_name(tmp_path: Path, tool: Tool) -> None:
    assert tool.json("new", tmp_path / "Lung nodules_2")["name"] == "lung-nodules-2"
    assert "--name" in tool.error(ExitCode.USAGE, "new", tmp_path / "___")


def test_another_profile_and_label(tmp_path: Path, tool: Tool) -> None:
    covid = ("--profile", "ncif-covid-1@1")
    said = tool.error(ExitCode.USAGE, "new", tmp_path / "x", *covid)
    assert "pneumonia is no field of ncif-covid-1@1" in said
    assert "icu_admission" in said
    assert "outcome_30d" not in said
    assert "does not answer yes or no" in tool.error(
        ExitCode.USAGE, "new", tmp_path / "x", *covid, "--label", "age_years"
    )
    tool.error(ExitCode.NOT_FOUND, "new", tmp_path / "x", "--profile", "none-1@1")
    assert "learns no label" in tool.error(
        ExitCode.USAGE, "new", tmp_path / "x", "--kind", "map", "--label", "icu_admission"
    )
    tool("new", tmp_path / "x", *covid, "--label", "icu_admission")
    train = read_folder(tmp_path / "x").manifest
    assert (train.data.profile, train.data.label) == ("ncif-covid-1@1", "icu_admission")
    assert load_profile(train.data.profile).field("icu_admission").kind == "flag"


def test_a_contact_is_text_whatever_stands_in_it(tmp_path: Path, tool: Tool) -> None:
    name = 'Zoë "Z" O\'Neill: {x}\n$package # not a comment'
    tool("new", tmp_path / "x", "--author", name, "--organisation", "a: b", "--email", "z@example.org")
    contact = read_folder(tmp_path / "x").manifest.contact
    assert (contact.name, contact.organisation, contact.email) == (name, "a: b", "z@example.org")
    assert "email" in tool.error(ExitCode.DOCUMENT, "new", tmp_path / "y", "--email", "none")
    for broken in ("\udcff", "a\x7fb", "a\x1b[31mb"):
        assert "no text" in tool.error(ExitCode.USAGE, "new", tmp_path / "y", "--author", broken)
    assert not (tmp_path / "y").exists()


def test_every_template_is_in_the_installed_package() -> None:
    """Modules travel as such; whatever else there is must be named."""
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    parts = [
        path for layer in TEMPLATES.iterdir() if layer.is_dir() for path in layer.rglob("*") if path.is_file()
    ]
    others = [path.name for path in parts if path.suffix not in {".py", ".pyc"}]
    assert others
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_a_folder_that_was_not_packed_says_the_way(tmp_path: Path, tool: Tool) -> None:
    tool("new", tmp_path / "mine")
    assert f"Next: pht-train build {tmp_path / 'mine'}" in tool.out
    said = tool.error(ExitCode.NOT_FOUND, "check", tmp_path / "mine")
    assert f"pht-train build {tmp_path / 'mine'}, then pht-train pack {tmp_path / 'mine'} OUT" in said


def test_a_cohort_is_laid_out_for_trying_by_hand(tmp_path: Path, tool: Tool) -> None:
    tool("new", tmp_path / "mine", "--modality", "CT")
    out = tmp_path / "cohort"
    made = tool.json("cohort", tmp_path / "mine", out, "--patients", 8, "--pixels", 32, "--slices", 6)
    cases = json.loads((out / "datalist.json").read_text())
    assert {split: len({case["patient"] for case in cases[split]}) for split in made["patients"]} == made[
        "patients"
    ]
    assert made["patients"]["training"] > 0 < made["patients"]["validation"]
    assert sum(made["images"].values()) == len(list((out / "images").iterdir()))
    assert "is there already" in tool.error(ExitCode.USAGE, "cohort", tmp_path / "mine", out)
    assert "--patients" in tool.error(
        ExitCode.USAGE, "cohort", tmp_path / "mine", tmp_path / "one", "--patients", 1
    )
    assert "--seed" in tool.error(ExitCode.USAGE, "cohort", tmp_path / "mine", tmp_path / "one", "--seed", -1)
    assert not (tmp_path / "one").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
