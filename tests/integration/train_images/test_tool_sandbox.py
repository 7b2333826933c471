"""`pht-train` with a real engine: build, pack, the dry run in the real sandbox and through the real guard, initial weights."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tool_kit import Tool, make_policy, with_layer, write_weights
from trains_kit import remove_images

from policies.board.contents.packages import Origin
from policies.board.contents.report import open_bundle, read_contents
from policies.board.documents.documents_in import read_train
from policies.documents import digest_of
from policies.errors import ExitCode
from train_images.tool.folders import PackedTrain, read_bundle

pytestmark = pytest.mark.docker

TINY = Path(__file__).resolve().parents[2] / "e2e" / "trains" / "tiny"
CODE = "opt/train/lib/python3.11/site-packages/tiny_train.py"
PREFIX = f"pht-test-{os.getpid()}-tool"


class Workbench:
    """The tiny train, built and packed once, and variants of it, each a layer more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tags: list[str] = []

    def packed(self, tool: Tool) -> PackedTrain:
        """The tiny train."""
        out, tag = self.folder / "bundle", f"{PREFIX}-tiny:1"
        if not out.exists():
            source = self.source("tiny")
            tool("build", source, "--tag", tag)
            tool("pack", source, out, "--tag", tag)
        return read_bundle(out)

    def variant(
        self,
        tool: Tool,
        name: str,
        *,
        code: str = "",
        description: Mapping[str, str] | None = None,
        manifest: bytes | None = None,
    ) -> PackedTrain:
        """The tiny train with code added to its own, another description of itself, or another manifest."""
        files = {CODE: (TINY / "tiny_train.py").read_bytes() + f"\n{code}".encode()}
        if description is not None:
            files["opt/pht/train.json"] = json.dumps({"interface": "flower", **description}).encode()
        return with_layer(self.packed(tool), self.folder / f"{name}-bundle", files, manifest)

    def source(self, name: str, *, dockerfile: str = "") -> Path:
        """A copy of the tiny train's folder, with something added to its Dockerfile."""
        source = self.folder / name
        shutil.copytree(TINY, source)
        self.tags.append(f"{PREFIX}-{name}:1")
        with (source / "Dockerfile").open("a") as opened:
            opened.write(f"\n{dockerfile}")
        return source


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    made = Workbench(tmp_path_factory.mktemp("trains"))
    yield made
    remove_images(made.tags)


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


def checked(tool: Tool, train: PackedTrain, *extra: object) -> Any:
    """The report of a dry run that ends with exit code 4."""
    code = tool.refused("check", train.path, *extra)
    report = json.loads(tool.out)
    assert report["messages"][-1]["reasons"][0]["code"] == code
    return report


def test_a_train_is_built_packed_and_passes_its_dry_run(workbench: Workbench, tool: Tool) -> None:
    train = workbench.packed(tool)
    report = tool.json("check", train.path, "--rounds", 2, "--set", "local_epochs=3")
    assert report["outcome"] == "released"
    assert [(each["round"], each["stage"]) for each in report["messages"]] == [
        (1, "train"), (1, "evaluate"), (2, "train"), (2, "evaluate"),
    ]  # fmt: skip
    assert all(set(each["metrics"]) == {"loss"} for each in report["messages"])
    assert report["messages"][0]["arrays_bytes"] > 65 * 4
    assert report["hyperparameters"] == {"learning_rate": 0.5, "local_epochs": 3, "least_seconds": 0.0}
    assert sum(report["patients"].values()) >= 30
    assert "trained on" in report["log"]


def test_the_board_reads_what_is_in_a_real_image(workbench: Workbench, tool: Tool) -> None:
    found = read_contents(open_bundle(workbench.packed(tool).path))
    packages = {(each.ecosystem, each.name) for each in found.packages}
    assert {("python", "flwr"), ("python", "numpy"), ("debian", "bash"), ("debian", "libc6")} <= packages
    assert not found.oddities
    own = {Path(each.path).name: each for each in found.files if each.origin is Origin.OWN}
    assert own["tiny_train.py"].digest == digest_of((TINY / "tiny_train.py").read_bytes())
    installed = sum(each.origin is Origin.PYTHON for each in found.files)
    altered = [each.path for each in found.files if each.origin is Origin.ALTERED]
    assert (installed > 1000, altered) == (True, [])


def test_a_dry_run_again_is_the_same_dry_run(workbench: Workbench, tool: Tool) -> None:
    train = workbench.packed(tool)
    first, second = (tool.json("check", train.path)["messages"] for _ in range(2))
    assert [each["metrics"] for each in first] == [each["metrics"] for each in second]


def test_a_dry_run_leaves_no_container_and_no_file(
    workbench: Workbench, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = workbench.packed(tool)
    # A folder of its own, by whose mounts its containers are told from another run's; a socket's path there is short enough.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        tool("check", train.path)
        assert "Every message would have been released." in tool.out
        found = subprocess.run(
            ["docker", "ps", "-a", "--no-trunc", "--format={{.Mounts}}", "--filter=label=nl.pht.station=dry-run"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert folder not in found.stdout
        assert list(Path(folder).iterdir()) == []


def test_what_was_packed_is_what_the_board_drafts_from(workbench: Workbench, tool: Tool) -> None:
    train = workbench.packed(tool)
    seen = read_train(train.path)
    assert seen.digest == train.index.manifest.digest
    assert set(seen.image_digests) == {train.index.config.digest}
    assert (train.path / "train.yaml").read_bytes() == train.store.read_bytes(seen.digest, max_bytes=1 << 20)


def test_packing_again_keeps_no_blob_of_the_bundle_before(
    workbench: Workbench, tool: Tool, tmp_path: Path
) -> None:
    workbench.packed(tool)
    source, tag = workbench.folder / "tiny", f"{PREFIX}-tiny:1"
    tool("pack", source, tmp_path / "out", "--tag", tag)
    shutil.copytree(source, tmp_path / "again")
    text = (tmp_path / "again" / "train.yaml").read_text()
    (tmp_path / "again" / "train.yaml").write_text(text.replace("version: 0.1.0", "version: 0.1.1"))
    tool("pack", tmp_path / "again", tmp_path / "out", "--tag", tag)
    train = read_bundle(tmp_path / "out")
    assert train.manifest.version == "0.1.1"
    wanted = {blob.digest for blob in train.index.blobs()}
    assert {f"sha256:{path.name}" for path in (tmp_path / "out" / "blobs" / "sha256").iterdir()} == wanted


SMUGGLER = """
honest, app = train, ClientApp()

@app.train()
def smuggle(message: Message, context: Context) -> Message:
    answer = honest(message, context)
    (record,) = answer.content.array_records.values()
    record["extra"] = Array(np.ones(7, np.float32))
    return answer
"""
CRASHER = """
honest, app = train, ClientApp()
app.train()(honest)

@app.evaluate()
def fail(message: Message, context: Context) -> Message:
    raise RuntimeError("the reader is broken")
"""
PROBE = """
def initial_weights():
    print(os.listdir("/sys/class/net"), os.getuid())
    open("/opt/x", "w")
"""
WEIGHTS = "tiny_train:initial_weights"


def test_an_extra_tensor_is_withheld(workbench: Workbench, tool: Tool) -> None:
    train = workbench.variant(tool, "smuggler", code=SMUGGLER)
    report = checked(tool, train)
    assert report["outcome"] == "withheld"
    assert report["messages"][0]["reasons"][0] == {"code": "RELEASE_TENSOR_EXTRA", "detail": "extra"}
    tool("check", train.path, code=ExitCode.REFUSED)
    assert "RELEASE_TENSOR_EXTRA: extra" in tool.out.splitlines()
    assert "refused (RELEASE_TENSOR_EXTRA): round 1: train would be withheld" in tool.err


def test_a_crash_shows_what_the_train_printed(workbench: Workbench, tool: Tool) -> None:
    train = workbench.variant(tool, "crasher", code=CRASHER)
    report = checked(tool, train)
    assert [each["outcome"] for each in report["messages"]] == ["released", "failed"]
    tool("check", train.path, code=ExitCode.REFUSED)
    assert "the reader is broken" in tool.out
    assert "refused (TRAIN_CRASHED)" in tool.err


def test_a_train_that_does_not_start_says_why(workbench: Workbench, tool: Tool) -> None:
    description = {"clientapp": "tiny_train:application", "initial_weights": WEIGHTS}
    train = workbench.variant(tool, "nameless", description=description)
    report = checked(tool, train)
    assert report["messages"][0]["reasons"][0]["code"] == "TRAIN_CRASHED"
    assert "application" in report["log"]


def test_a_given_policy_narrows(workbench: Workbench, tool: Tool, tmp_path: Path) -> None:
    train = workbench.packed(tool)
    policy = make_policy(
        train, tmp_path / "p.yaml", "ab" * 32, release__metrics=[], data__minimum_patients=10
    )
    report = tool.json("check", train.path, "--policy", policy, "--patients", 60)
    assert {each["suppressed"][0]["code"] for each in report["messages"]} == {"RELEASE_NOT_PERMITTED"}
    assert tool.refused("check", train.path, "--policy", policy, "--patients", 6) == "DATA_TOO_FEW_PATIENTS"
    noisy = make_policy(
        train, tmp_path / "noisy.yaml", "ab" * 32, data__minimum_patients=10,
        release__differential_privacy={"noise_multiplier": 50.0, "epsilon": 8.0, "delta": 1e-5},
        release__tensors__clipping_norm=1.0, release__tensors__float_buffers="withhold",
        release__timing_quantum_s=60.0,
    )  # fmt: skip
    blurred = tool.json("check", train.path, "--policy", noisy)
    assert blurred["outcome"] == "released"
    assert 0 < blurred["privacy"]["per_release"]["train"] < blurred["privacy"]["per_run"] <= 8.0
    assert blurred["messages"][0]["noise"]["noise_norm"] > blurred["messages"][0]["noise"]["norm"] > 0


SCORES = """
@app.query("score")
def score(message: Message, context: Context) -> Message:
    images, labels = cases("validation")
    predicted = np.clip(probabilities(images, *weights_of(message)), 1e-6, 1 - 1e-6)
    losses = -(labels * np.log(predicted) + (1 - labels) * np.log(1 - predicted))
    return Message(content=RecordDict({"scores": MetricRecord({"loss": losses.tolist()})}), reply_to=message)
"""


def test_a_researcher_sees_how_well_an_update_tells_its_members(
    workbench: Workbench, tool: Tool, tmp_path: Path
) -> None:
    manifest = (TINY / "train.yaml").read_bytes()
    scored = manifest.replace(b"  metrics:", b"  membership_scores: true\n  metrics:")
    train = workbench.variant(tool, "scored", code=SCORES, manifest=scored)

    def limited(limit: float) -> Path:
        return make_policy(
            train,
            tmp_path / f"{limit}.yaml",
            "ab" * 32,
            data__minimum_patients=10,
            release__membership_limit=limit,
        )

    # Thirty patients, sixty-four numbers each, and no end of steps: it knows them by heart.
    by_heart = ("--set", "local_epochs=3000", "--set", "learning_rate=10")
    tool("check", train.path, "--policy", limited(1.0), *by_heart)
    assert (
        "Membership, round 1: the update tells its own patients from as many others with an area of"
        in tool.out
    )
    assert "Every message would have been released." in tool.out
    report = checked(tool, train, "--policy", limited(0.5), *by_heart)
    (message,) = report["messages"]
    assert (message["outcome"], message["reasons"][0]["code"]) == ("withheld", "RELEASE_MEMBERSHIP")
    score = message["membership"]
    assert max(score["loss_area"], score["gain_area"]) > 0.5
    assert score["patients"] >= 10


def test_an_image_makes_its_own_initial_weights(workbench: Workbench, tool: Tool, tmp_path: Path) -> None:
    train = workbench.packed(tool)
    made = tool.json("init-weights", train.path, tmp_path / "w.safetensors")
    assert (made["tensors"], made["numbers"]) == (2, 65)
    assert set(load_file(tmp_path / "w.safetensors")) == {"weight", "bias"}


def test_an_image_without_a_program_for_weights_takes_given_ones(
    workbench: Workbench, tool: Tool, tmp_path: Path
) -> None:
    train = workbench.variant(tool, "plain", description={"clientapp": "tiny_train:app"})
    assert "initial_weights" in tool.error(ExitCode.USAGE, "init-weights", train.path, tmp_path / "w")
    assert "--weights" in tool.error(ExitCode.USAGE, "check", train.path)
    other = write_weights(tmp_path / "other.safetensors")
    assert checked(tool, train, "--weights", other)["outcome"] == "failed"


def test_a_program_for_weights_that_fails_is_heard(workbench: Workbench, tool: Tool, tmp_path: Path) -> None:
    description = {"clientapp": "tiny_train:app", "initial_weights": "tiny_train:nothing"}
    train = workbench.variant(tool, "wrong", description=description)
    out = tmp_path / "w.safetensors"
    assert "nothing" in tool.error(ExitCode.FAILURE, "init-weights", train.path, out)
    assert list(tmp_path.iterdir()) == []


def test_a_program_for_weights_has_no_network_and_writes_nowhere(
    workbench: Workbench, tool: Tool, tmp_path: Path
) -> None:
    train = workbench.variant(tool, "probe", code=PROBE)
    said = tool.error(ExitCode.FAILURE, "init-weights", train.path, tmp_path / "w")
    assert "['lo'] 65534" in said
    assert "Read-only file system" in said


def test_what_stations_refuse_in_an_image_is_refused_at_the_desk(workbench: Workbench, tool: Tool) -> None:
    source = workbench.source("loader", dockerfile="ENV LD_PRELOAD=/tmp/x.so\n")
    tool("build", source, "--tag", f"{PREFIX}-loader:1")
    out = workbench.folder / "loader-bundle"
    assert tool.refused("pack", source, out, "--tag", f"{PREFIX}-loader:1") == "IMAGE_CONFIG"
    assert not (out / "bundle.json").exists()


def test_a_build_that_fails_shows_its_last_lines(workbench: Workbench, tool: Tool) -> None:
    source = workbench.source("unbuilt", dockerfile="COPY not-there.py /\n")
    assert "not-there.py" in tool.error(ExitCode.FAILURE, "build", source, "--tag", f"{PREFIX}-unbuilt:1")
    assert "pht-train build" in tool.error(
        ExitCode.NOT_FOUND, "pack", source, workbench.folder / "x", "--tag", f"{PREFIX}-unbuilt:1"
    )
