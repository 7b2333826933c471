"""`pht-train` against a real orchestrator over real HTTPS: submit, order, watch, results, stop."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from orchestrator_site import STATIONS, Board, Site, site, station_keys
from sqlalchemy import select
from tool_kit import Tool, make_bundle, make_policy, write_weights

from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.registry.access import Role
from orchestrator.results.write import write_result
from orchestrator.storage import StationRow
from policies.blobs import BlobFolder
from policies.documents import digest_of_file
from policies.errors import ExitCode
from policies.signing import generate_key
from train_images.tool.folders import PackedTrain

ROUND = {
    "round": 1,
    "took_part": list(STATIONS),
    "missing": {},
    "train": {name: {"loss": 0.5} for name in STATIONS},
    "evaluate": {name: {"auc": 0.75} for name in STATIONS},
    "means": {"train": {"loss": 0.5}, "evaluate": {"auc": 0.75}},
    "compute_s": {"train": dict.fromkeys(STATIONS, 1.0), "evaluate": dict.fromkeys(STATIONS, 1.0)},
    "num_examples": dict.fromkeys(STATIONS, 50),
    "heads": {},
    "overhead_s": 0.1,
}


@dataclass
class World:
    place: Site
    train: PackedTrain
    policy: Path
    key: Path
    weights: Path
    folder: Path
    tool: Tool
    where: tuple[object, ...]

    @property
    def order(self) -> Path:
        return self.folder / "order.json"

    def new_order(self, *extra: object) -> str:
        made = self.tool.json(
            "order", "new", self.order, "--policy", self.policy, "--bundle", self.train.path, "--stations",
            ",".join(STATIONS), "--key", self.key, "--weights", self.weights, *extra,
        )  # fmt: skip
        return str(made["digest"])

    def ordered(self) -> str:
        """A run that the orchestrator has accepted."""
        self.tool("submit", self.train.path, *self.where)
        digest = self.new_order()
        self.tool("order", "send", self.order, "--weights", self.weights, *self.where)
        return digest

    def finish(self, digest: str) -> None:
        """What the run worker and the result writer leave when a run is done."""
        queue = FolderQueue(self.place.home.runs)
        folder = queue.folder(digest)
        folder.write_rounds([ROUND])
        weights = digest_of_file(self.weights)
        progress = RunProgress(state=RunState.FINISHED, round=1, rounds=1, accepted=STATIONS, weights=weights)
        folder.write_progress(progress)
        write_result(folder.path, BlobFolder(self.place.home.blobs))


@pytest.fixture
def world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[World]:
    board = Board.found(tmp_path)
    train = make_bundle(tmp_path / "bundle")
    key = tmp_path / "researcher.pem"
    policy = make_policy(
        train,
        tmp_path / "policy.yaml",
        generate_key(key),
        release__station_results=getattr(request, "param", True),
    )
    board.set_register(station_keys())
    board.add_policy(policy.read_bytes())
    with site(tmp_path, board.root) as place:
        token = place.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{place.url}/api/v1/mirror", token, place.ca)
        place.services.stations.sync_quietly()
        # No SuperLink runs behind this site: the node ids it would give are written by hand.
        with place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        (tmp_path / "token").write_text(place.services.access.new_token(Role.RESEARCHER, "alice"))
        where = ("--to", place.url, "--token-file", tmp_path / "token", "--ca", place.ca)
        weights = write_weights(tmp_path / "w.safetensors")
        yield World(place, train, policy, key, weights, tmp_path, Tool(capsys), where)


def test_only_what_is_missing_moves(world: World) -> None:
    first = world.tool.json("submit", world.train.path, *world.where)
    assert first["moved_bytes"] == first["bytes"] == world.train.size
    again = world.tool.json("submit", world.train.path, *world.where)
    assert (again["moved_bytes"], again["moved_blobs"]) == (0, 0)
    assert f"0 of {world.train.size} bytes moved" in world.tool("submit", world.train.path, *world.where)


def test_a_second_train_on_the_same_layers_moves_its_own_bytes_only(world: World) -> None:
    world.tool("submit", world.train.path, *world.where)
    other = make_bundle(
        world.folder / "other",
        manifest=(world.train.path / "train.yaml").read_text().replace("1.0.0", "1.0.1"),
    )
    sent = world.tool.json("submit", other.path, *world.where)
    assert sent["moved_bytes"] == other.index.manifest.size


def test_a_bundle_whose_bytes_changed_is_not_taken(world: World) -> None:
    path = world.train.store.path(world.train.index.layers[0].digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    world.tool("submit", world.train.path, *world.where, code=ExitCode.USAGE)


def test_a_bundle_with_a_blob_missing_is_said_here(world: World) -> None:
    world.train.store.remove(world.train.index.layers[0].digest)
    assert "there is no blob" in world.tool.error(
        ExitCode.NOT_FOUND, "submit", world.train.path, *world.where
    )


def test_an_order_goes_its_way_with_its_weights(world: World) -> None:
    world.tool("submit", world.train.path, *world.where)
    digest = world.new_order("--set", "step=2")
    said = world.tool("order", "send", world.order, "--weights", world.weights, *world.where)
    assert said.strip() == digest
    (run,) = world.tool.json("runs", *world.where)
    assert (run["digest"], run["progress"]["state"], run["requester"]) == (digest, "queued", "alice")
    assert digest in world.tool("runs", *world.where)


def test_weights_that_are_there_need_not_be_given_again(world: World) -> None:
    world.ordered()
    digest = world.new_order()
    assert world.tool.json("order", "send", world.order, *world.where) == {"digest": digest}


def test_what_is_wrong_with_an_order_is_said_before_or_by_the_orchestrator(world: World) -> None:
    world.new_order()
    send = ("order", "send", world.order, *world.where)
    assert "--weights" in world.tool.error(ExitCode.USAGE, *send)
    other = write_weights(world.folder / "other.safetensors")
    other.write_bytes(other.read_bytes()[:-1] + b"\1")
    assert world.tool.refused(*send, "--weights", other) == "ORDER_WEIGHTS"
    assert world.tool.refused(*send, "--weights", world.weights) == "IMAGE_UNAVAILABLE"
    world.tool("submit", world.train.path, *world.where)
    world.tool(*send)
    assert world.tool.refused(*send) == "ORDER_SPENT"
    world.new_order("--rounds", 50, "--unchecked")
    assert world.tool.refused(*send) == "ORDER_BEYOND_POLICY"


def test_the_profile_says_where(world: World) -> None:
    profile = world.folder / "profile.toml"
    profile.write_text(f'to = "{world.place.url}"\ntoken_file = "token"\nca = "{world.place.ca}"\n')
    assert world.tool.json("runs", "--profile", profile) == []


def test_a_finished_run_is_watched_and_its_result_fetched(world: World) -> None:
    digest = world.ordered()
    world.finish(digest)
    said = world.tool("watch", digest, *world.where)
    assert "round 1: train loss mean 0.5 (amstel 0.5, berkel 0.5, dommel 0.5)" in said
    assert "round 1: 3 of 3 took part" in said
    assert "finished" in said
    assert world.tool.json("watch", digest, *world.where)["progress"]["state"] == "finished"
    out = world.folder / "result"
    names = {file["name"] for file in world.tool.json("results", digest, out, *world.where)}
    assert names == {
        "model.safetensors", "metrics.json", "metrics.csv", "metrics.png", "model-card.json", "model-card.md", "provenance.json",
    }  # fmt: skip
    provenance = out / "provenance.json"
    said = json.loads(provenance.read_text())["predicate"]["capacity_bits"]
    assert set(said["per_release"]) == {"train", "evaluate"}
    assert said["per_release"]["train"] > said["per_release"]["evaluate"] > 0
    assert said["of_this_run"] == dict.fromkeys(STATIONS, sum(said["per_release"].values()))
    assert digest_of_file(out / "model.safetensors") == digest_of_file(world.weights)


def test_a_run_that_failed_ends_the_watch_with_its_code(world: World) -> None:
    digest = world.ordered()
    folder = FolderQueue(world.place.home.runs).folder(digest)
    folder.write_progress(
        RunProgress(
            state=RunState.FAILED, missing={"amstel": "CONSENT_STALE"}, code="TOO_FEW_STATIONS_ACCEPTED"
        )
    )
    world.tool("watch", digest, *world.where, code=ExitCode.REFUSED)
    assert "refused (TOO_FEW_STATIONS_ACCEPTED): the run failed; amstel CONSENT_STALE" in world.tool.err
    assert "CONSENT_STALE: " in world.tool.err
    assert world.tool.refused("watch", digest, *world.where) == "TOO_FEW_STATIONS_ACCEPTED"


def test_a_result_that_was_changed_on_its_way_is_found_out(world: World) -> None:
    digest = world.ordered()
    world.finish(digest)
    result = FolderQueue(world.place.home.runs).folder(digest).path / "result"
    metrics = json.loads((result / "metrics.json").read_bytes())
    (result / "metrics.json").write_text(json.dumps(metrics | {"final": {"auc": 0.99}}))
    assert "metrics.json" in world.tool.error(
        ExitCode.TRUST, "results", digest, world.folder / "out", *world.where
    )


def test_a_run_without_a_result_says_how_far_it_is(world: World) -> None:
    digest = world.ordered()
    assert "it is queued" in world.tool.error(
        ExitCode.NOT_FOUND, "results", digest, world.folder / "out", *world.where
    )
    assert "not over" in world.tool.error(
        ExitCode.UNAVAILABLE, "watch", digest, "--hours", 0.0001, *world.where
    )


def test_a_run_is_asked_to_stop(world: World) -> None:
    digest = world.ordered()
    world.tool("stop", digest, *world.where)
    assert FolderQueue(world.place.home.runs).folder(digest).stop_wanted()


def test_a_stranger_sees_and_sends_nothing(world: World) -> None:
    digest = world.ordered()
    stranger = world.folder / "stranger"
    stranger.write_text(world.place.services.access.new_token(Role.RESEARCHER, "mallory"))
    where = ("--to", world.place.url, "--token-file", stranger, "--ca", world.place.ca)
    assert world.tool.json("runs", *where) == []
    world.tool("watch", digest, *where, code=ExitCode.NOT_FOUND)
    stranger.write_text("no token at all")
    world.tool("runs", *where, code=ExitCode.TRUST)
