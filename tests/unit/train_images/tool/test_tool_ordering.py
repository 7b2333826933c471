"""Run orders: written, held to every rule, signed; real keys and the program as people type it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tool_kit import Tool, make_bundle, make_policy, write_weights

from policies.documents import digest_of, digest_of_file, load_yaml
from policies.errors import ExitCode, RefusedError
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import Policy
from policies.refusals import Permitted, RefusalCode
from policies.rules.order_rules import order_reasons, verified_order
from policies.signing import generate_key, load_signer, verify_envelope
from train_images.tool.folders import PackedTrain
from train_images.tool.ordering import OrderChoice, make_order, read_order

STATIONS = ("amstel", "berkel", "dommel")
ANALYSIS = """\
schema_version: 1
name: looker
version: 1.0.0
title: Looks
kind: analysis
interface: flower
data: {modalities: [DX], profile: thorax-1@1}
outputs: {metrics: [{key: mean, stage: analyse, minimum: 0, maximum: 1, split: training}]}
resources: {memory_mib: 256, cpus: 1}
contact: {name: A Person, organisation: A Hospital, email: a@b.nl}
licence: Apache-2.0
source_commit: unversioned
"""


class Desk:
    """A researcher's folder: bundle, policy, key, weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train: PackedTrain = make_bundle(folder / "bundle")
        self.key = folder / "researcher.pem"
        self.public = generate_key(self.key)
        self.policy = make_policy(self.train, folder / "policy.yaml", self.public)
        self.weights = write_weights(folder / "w.safetensors")
        self.out = folder / "order.json"

    def new(self, *extra: object, stations: str = ",".join(STATIONS)) -> tuple[object, ...]:
        return (
            "order", "new", self.out, "--policy", self.policy, "--bundle", self.train.path, "--stations", stations,
            "--key", self.key, "--weights", self.weights, *extra,
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


def test_an_order_says_everything_and_is_signed(desk: Desk, tool: Tool) -> None:
    said = tool.json(*desk.new("--rounds", 3, "--set", "step=2", "--expires-hours", 2))
    envelope = desk.out.read_bytes()
    payload = verify_envelope(envelope, PAYLOAD_TYPE, [desk.public], 1).payload
    order = RunOrder.model_validate_json(payload)
    assert said["digest"] == digest_of(payload)
    assert order.hyperparameters == {"step": 2.0, "times": 2, "flip": False}
    assert order.stages == ("train", "evaluate")
    assert order.stations == STATIONS
    assert order.minimum_stations == 3
    assert order.strategy.name == "FedAvg"
    assert order.policy_digest == digest_of(desk.policy.read_bytes())
    assert order.initial_weights is not None
    assert order.initial_weights.digest == digest_of_file(desk.weights)
    assert order.initial_weights.size == desk.weights.stat().st_size
    assert timedelta(hours=1.9) < order.expires - datetime.now(UTC) < timedelta(hours=2)


def test_what_was_signed_is_what_stations_accept(desk: Desk, tool: Tool) -> None:
    tool(*desk.new())
    policy = load_yaml(Policy, desk.policy.read_bytes(), what="policy")
    verified = verified_order(desk.out.read_bytes(), policy)
    assert isinstance(verified, Permitted)
    assert order_reasons(verified.value, policy, digest_of(desk.policy.read_bytes()), datetime.now(UTC)) == []


def test_a_strategy_is_chosen_within_what_the_policy_grants(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    ranges = {"FedAdam": {"eta": {"minimum": 0.01, "maximum": 0.5}}}
    desk.policy = make_policy(
        desk.train,
        tmp_path / "granted.yaml",
        desk.public,
        runs__strategies=["FedAvg", "FedAdam"],
        runs__strategy_parameters=ranges,
    )
    assert tool.json(*desk.new())["order"]["strategy"] == {"name": "FedAvg", "parameters": {}}
    order = tool.json(*desk.new("--strategy", "FedAdam", "--strategy-set", "eta=0.3"))["order"]
    # Every parameter is written out: what was signed is what runs.
    every = {"eta": 0.3, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001}
    assert order["strategy"] == {"name": "FedAdam", "parameters": every}
    assert "FedAdam (beta_1=0.9, beta_2=0.99, eta=0.3, tau=0.001)" in tool("order", "show", desk.out)
    desk.out.unlink()
    fedadam = ("--strategy", "FedAdam", "--strategy-set")
    assert tool.refused(*desk.new(*fedadam, "eta=0.6")) == "ORDER_BEYOND_POLICY"
    # Flower's own spelling of options in a pyproject.toml does as well.
    assert tool.refused(*desk.new(*fedadam, "beta-1=0.5")) == "ORDER_BEYOND_POLICY"
    assert tool.refused(*desk.new("--strategy", "FedMedian")) == "ORDER_BEYOND_POLICY"
    for wrong in ("eta_l=0.1", "eta", "eta=fast", "eta=true"):
        tool.error(ExitCode.USAGE, *desk.new(*fedadam, wrong))
    assert "FedYogi" in tool.error(ExitCode.USAGE, *desk.new("--strategy", "FedSGD"))
    assert not desk.out.exists()


def test_two_orders_are_two_runs(desk: Desk, tool: Tool) -> None:
    assert tool.json(*desk.new())["digest"] != tool.json(*desk.new())["digest"]


def test_an_order_can_be_shown(desk: Desk, tool: Tool) -> None:
    made = tool.json(*desk.new())
    assert tool.json("order", "show", desk.out) == made
    assert "amstel, berkel, dommel (at least 3)" in tool("order", "show", desk.out)


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--rounds", 4), "ORDER_BEYOND_POLICY"),
        (("--minimum-stations", 2), "ORDER_BEYOND_POLICY"),
        (("--expires-hours", 24 * 400), "ORDER_BEYOND_POLICY"),
        (("--set", "step=99"), "ORDER_CONFIG"),
        (("--set", "speed=1"), "ORDER_CONFIG"),
        (("--stages", "evaluate"), "ORDER_KIND"),
    ],
)
def test_what_a_station_would_refuse_is_not_signed(
    desk: Desk, tool: Tool, extra: tuple[object, ...], code: str
) -> None:
    assert tool.refused(*desk.new(*extra)) == code
    assert not desk.out.exists()


def test_another_key_than_the_policys_signs_nothing(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    generate_key(tmp_path / "mallory.pem")
    desk.key = tmp_path / "mallory.pem"
    assert tool.refused(*desk.new()) == "ORDER_SIGNATURE"


def test_another_bundle_than_the_policys_is_refused(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    desk.train = make_bundle(
        tmp_path / "other", manifest=(desk.train.path / "train.yaml").read_text() + "# changed\n"
    )
    assert tool.refused(*desk.new()) == "MANIFEST_DIGEST"


def test_a_policy_that_is_over_permits_nothing(desk: Desk) -> None:
    signer = load_signer(desk.key)
    choice = OrderChoice(STATIONS, 1, weights=desk.weights)
    later = datetime.now(UTC) + timedelta(days=800)
    with pytest.raises(RefusedError):
        make_order(desk.train, desk.policy, choice, signer, later)


def test_weights_that_do_not_hold_the_listed_tensors_are_refused(
    desk: Desk, tool: Tool, tmp_path: Path
) -> None:
    listed = "{layout: listed, listed: [{name: weight, shape: [4], dtype: float32}]}"
    manifest = (desk.train.path / "train.yaml").read_text().replace("{layout: same-as-input}", listed)
    desk.train = make_bundle(tmp_path / "listed", manifest=manifest)
    desk.policy = make_policy(desk.train, tmp_path / "listed.yaml", desk.public)
    tool(*desk.new())
    write_weights(desk.weights, weight=np.zeros(5, np.float32))
    assert tool.refused(*desk.new()) == "ORDER_WEIGHTS"


def test_mistakes_on_the_command_line_are_said(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    assert "names a station twice" in tool.error(
        ExitCode.DOCUMENT, *desk.new(stations="amstel,amstel,berkel")
    )
    assert "stations" in tool.error(ExitCode.DOCUMENT, *desk.new(stations=""))
    assert "name=value" in tool.error(ExitCode.USAGE, *desk.new("--set", "step"))
    (tmp_path / "not.safetensors").write_text("hello")
    assert "safetensors" in tool.error(
        ExitCode.DOCUMENT, *desk.new("--weights", tmp_path / "not.safetensors")
    )
    without = [each for each in desk.new() if each not in {"--weights", desk.weights}]
    assert "init-weights" in tool.error(ExitCode.USAGE, *without)
    assert not desk.out.exists()


def test_an_analysis_needs_no_weights(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    desk.train = make_bundle(tmp_path / "looker", manifest=ANALYSIS)
    desk.policy = make_policy(desk.train, tmp_path / "looker.yaml", desk.public)
    order = tool.json(*[each for each in desk.new() if each not in {"--weights", desk.weights}])["order"]
    assert order["stages"] == ["analyse"]
    assert order["initial_weights"] is None
    assert order["strategy"]["name"] == "none"


def test_an_unchecked_order_is_refused_by_the_rules_it_broke(desk: Desk, tool: Tool) -> None:
    tool(*desk.new("--rounds", 99, "--unchecked"))
    assert "--unchecked" not in tool("order", "new", "--help")
    order = read_order(desk.out.read_bytes()).order
    policy = load_yaml(Policy, desk.policy.read_bytes(), what="policy")
    reasons = order_reasons(order, policy, order.policy_digest, datetime.now(UTC))
    assert {reason.code for reason in reasons} == {RefusalCode.ORDER_BEYOND_POLICY}


def test_an_encrypted_key_takes_its_passphrase_from_a_file(desk: Desk, tool: Tool, tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    made = tool.json("key", "new", tmp_path / "k.pem", "--passphrase-file", phrase)
    assert (tmp_path / "k.pub").read_text().strip() == made["public_key"]
    assert (tmp_path / "k.pem").stat().st_mode & 0o077 == 0
    desk.key = tmp_path / "k.pem"
    desk.policy = make_policy(desk.train, tmp_path / "p.yaml", made["public_key"])
    assert "encrypted" in tool.error(ExitCode.TRUST, *desk.new())
    tool(*desk.new("--passphrase-file", phrase))


def test_a_key_is_never_overwritten(desk: Desk, tool: Tool) -> None:
    before = desk.key.read_bytes()
    tool.error(ExitCode.USAGE, "key", "new", desk.key, "--no-passphrase")
    assert desk.key.read_bytes() == before


def test_no_key_is_made_without_a_word_on_its_passphrase(tool: Tool, tmp_path: Path) -> None:
    assert "--no-passphrase" in tool.error(ExitCode.USAGE, "key", "new", tmp_path / "k.pem")


def test_a_file_that_is_no_order_is_said(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"order": 1}))
    assert "envelope" in tool.error(ExitCode.TRUST, "order", "show", tmp_path / "x.json")
