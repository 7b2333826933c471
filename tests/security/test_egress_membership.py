"""Attack: an update that tells whom it was trained on. A real train, in a real container, scored in another one.

The train overfits as far as it goes: it writes its patients' pictures into the weights, so that whoever has the update knows who was
there. The same train, told to learn two numbers, passes. Trains that will not be scored release nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary_kit import canary_manifest, make_kit
from safetensors.numpy import save
from sandbox_kit import DESCRIPTION, DOCKERFILE, build_image, store_image
from station_kit import StationKit
from warm_kit import ImagesAreThere, RealSandbox

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from policies.wire.instructions import Kind, StationReply, encode
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import LauncherSettings
from station.settings import HospitalSettings

pytestmark = pytest.mark.docker

TAG = "pht-test-canary:1"
REMEMBERS, GENERALISES, REFUSES, NOT_FINITE, TOO_FEW, SHIFTING, SILENT_END = 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0
PIXELS, MEMORIES = 240, 200
PATIENTS, LIMIT = 160, 0.8
"""Some forty patients are held back: chance alone gets past the limit less than once in a hundred thousand times."""

APP = """
import json, os
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

def pictures(split):
    cases = json.load(open("/train/data/datalist.json"))[split]
    read = [np.frombuffer(open("/train/data/" + case["image"], "rb").read()[352:], "<u2") / 65535 for case in cases]
    return np.array(read, np.float32), np.array([case["label"] for case in cases], np.float32)

def features(images):
    return np.stack([images.mean(1) - 0.5, images.std(1)], 1)

def probability(weights, images):
    # What is remembered is known for sure; of all others the two numbers are asked.
    logit = features(images) @ weights["rule"] + weights["bias"]
    distance = ((images[:, None, :] - weights["memory"][None]) ** 2).mean(2)
    near = distance.min(1) < 1e-4
    told = np.where(near, 8 * (2 * weights["label"][distance.argmin(1)] - 1), logit)
    return 1 / (1 + np.exp(-told))

@app.train()
def train(message, context):
    rate = message.content["config"]["rate"]
    weights = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
    images, labels = pictures("training")
    if rate == 1.0:
        weights["memory"][:len(images)] = images
        weights["label"][:len(images)] = labels
    error = labels - probability(weights, images)
    weights["rule"] += 0.1 * (features(images) * error[:, None]).mean(0)
    weights["bias"] += 0.1 * error.mean()
    arrays = ArrayRecord({name: Array(value) for name, value in weights.items()})
    return Message(content=RecordDict({"arrays": arrays, "metrics": MetricRecord({"loss": 0.5})}), reply_to=message)

@app.query("score")
def score(message, context):
    rate = message.content["config"]["rate"]
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    images, labels = pictures("validation")
    p = probability(weights, images)
    losses = -np.log(np.where(labels > 0.5, p, 1 - p) + 1e-9)
    if rate == 3.0:
        raise PermissionError("not of our business")
    if rate == 4.0:
        losses[0] = np.nan
    if rate == 5.0:
        losses = losses[:-1]
    if rate == 6.0:
        losses = losses + np.random.default_rng().normal(size=len(losses))
    if rate == 7.0:
        os._exit(0)
    found = MetricRecord({"loss": [float(value) for value in losses]})
    return Message(content=RecordDict({"scores": found}), reply_to=message)
"""


def initial() -> bytes:
    rows = np.zeros((MEMORIES, PIXELS), np.float32)
    return save(
        {"memory": rows, "label": np.zeros(MEMORIES, np.float32), "rule": np.zeros(2, np.float32),
         "bias": np.zeros(1, np.float32)}
    )  # fmt: skip


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationKit]:
    """A station with a limit, whose launcher and trains are real."""
    folder = tmp_path_factory.mktemp("membership")
    build_image(TAG, DOCKERFILE, DESCRIPTION, **{"app.py": APP})
    with pytest.MonkeyPatch.context() as patch:
        manifest = json.loads(canary_manifest())
        manifest["outputs"]["tensors"] = {"layout": "same-as-input"}
        kit = make_kit(
            folder,
            patch,
            {
                "runs.hyperparameters": {
                    "rate": {"type": "float", "minimum": 0.0, "maximum": 10.0, "default": 1.0}
                },
                "release.tensors.precision": "float32",
                "release.tensors.clipping_norm": 1e6,
            },
            patients=PATIENTS,
            limit=LIMIT,
            manifest=canonical_json(manifest),
            hospital=HospitalSettings(
                operator_approval="never", consent_max_age_days=30, failed_messages=100
            ),
        )
        kit.shelf.put(initial())
        kit.paths.layers.mkdir(exist_ok=True)
        launcher = ImagesAreThere(folder / "home", LauncherSettings(station="canary", compute_uid=0))
        try:
            image = store_image(TAG, BlobFolder(kit.paths.layers))
            kit.launcher = launcher  # type: ignore[assignment]
            kit.sandbox = RealSandbox(TrainSandbox(launcher), image)  # type: ignore[assignment]
            kit.database.close()
            kit.open()
            yield kit
        finally:
            kit.close()
            launcher.remove_orphans()


def trained(kit: StationKit, rate: float) -> tuple[StationReply, bytes | None]:
    """What becomes of one round of a run at such a rate."""
    first = kit.shelf.put(initial())
    envelope = kit.ready(
        hyperparameters={"rate": rate},
        initial_weights={"digest": first.digest, "size": first.size},
        stages=["train"],
        rounds=1,
    )
    answer = kit.message(envelope, config={"rate": rate}, weights=first, deadline_s=600)
    kit.message(envelope, Kind.FINISH)
    return answer


def numbers(kit: StationKit) -> dict[str, int]:
    found = [item.record for item in kit.audit.events(limit=100_000)]
    return next(record.numbers for record in reversed(found) if record.event.value == "membership-scored")


def test_who_writes_its_patients_into_the_weights_is_withheld(kit: StationKit) -> None:
    before = len(kit.releases.list())
    reply, arrays = trained(kit, REMEMBERS)
    assert (reply.status.value, reply.code, arrays) == ("withheld", "RELEASE_MEMBERSHIP", None)
    assert (reply.release, reply.metrics, reply.tables) == (None, {}, {})
    assert numbers(kit)["gain_auc_permille"] > 950
    assert numbers(kit)["gain_found_permille"] > 900
    assert len(kit.releases.list()) == before


def test_the_same_train_that_learns_a_rule_passes(kit: StationKit) -> None:
    reply, _ = trained(kit, GENERALISES)
    assert (reply.status.value, reply.code) == ("released", None)
    assert max(numbers(kit)["gain_auc_permille"], numbers(kit)["loss_auc_permille"]) <= 1000 * LIMIT
    assert numbers(kit)["patients_each_side"] >= 30


@pytest.mark.parametrize(
    "rate",
    [REFUSES, NOT_FINITE, TOO_FEW, SHIFTING, SILENT_END],
    ids=["refuses", "nan", "too few", "shifting", "exits"],
)
def test_a_train_that_will_not_be_scored_releases_nothing(kit: StationKit, rate: float) -> None:
    before = len(kit.releases.list())
    reply, arrays = trained(kit, rate)
    assert (reply.status.value, reply.code, arrays) == ("withheld", "RELEASE_UNSCORED", None)
    assert len(kit.releases.list()) == before


def test_two_scores_apart_answer_the_same_bytes(kit: StationKit) -> None:
    """What is told of a score is one bit: of two withheld updates, of other scores, the replies differ in what names the run."""
    told = []
    for _ in range(2):
        reply, _ = trained(kit, REMEMBERS)
        document = json.loads(encode(reply))
        told.append({key: value for key, value in document.items() if key not in VARYING})
    assert told[0] == told[1]
    score = numbers(kit)
    ledger = b"".join(_bodies(kit))
    status = repr(kit.runs.list())
    for name in score.keys() - {"round"}:
        assert name.encode() not in ledger
        assert name not in status
    assert not list(kit.paths.work.rglob("*")), "nothing that was scored lies about"
    assert not list(kit.paths.cohorts.iterdir())


VARYING = {"order_digest", "correlation_id", "egress_ledger_head", "audit_head"}


def _bodies(kit: StationKit) -> list[bytes]:
    from station.egress.records.tables import LedgerRow

    with kit.database.read() as session:
        return [row.body for row in session.query(LedgerRow)]


def test_the_container_that_scores_is_gone_and_never_was_the_one_that_trained(kit: StationKit) -> None:
    sandbox: Any = kit.sandbox
    before = len(sandbox.started)
    trained(kit, GENERALISES)
    warm, scoring = sandbox.started[before:]
    assert warm.run_id != scoring.run_id
    assert scoring.run_id.startswith(f"{warm.run_id}-score-")
    assert not [run for run in kit.launcher.list_runs() if run.state == "running"]  # type: ignore[attr-defined]
    assert not list(Path(kit.paths.control).iterdir())
