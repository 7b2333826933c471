"""What a hostile orchestrator and a hostile secretary can do with what they hold: their own folders, no key of others.

Each act goes around the checks of the party's own program, so that only the stations stand in its way.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from orchestrator.federation.orders import FolderQueue, RunProgress
from policies.blobs import BlobFolder
from policies.charter import policy_target
from policies.documents import digest_of, load_json, load_yaml
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import Policy
from policies.signing import unsafe_payload
from tests.e2e.consortium import Consortium
from tests.e2e.programs import run


def impose_order(
    consortium: Consortium, envelope: Path, train: Path, policy: Path, weights: Path | None = None
) -> str:
    """Hand an order to the run worker without asking the orchestrator's own checks; returns its digest.

    An order that ran before is handed out again as if it were new; its weights are laid where others' are.
    """
    if weights is not None:
        blobs = BlobFolder(consortium.orchestrator / "blobs")
        blobs.put_bytes(weights.read_bytes())
    queue = FolderQueue(consortium.orchestrator / "runs")
    data = envelope.read_bytes()
    payload = unsafe_payload(data, PAYLOAD_TYPE)
    digest = digest_of(payload)
    known = next(queue.folders()).read_order()
    before = consortium.orchestrator / "runs" / digest.removeprefix("sha256:")
    if before.exists():
        shutil.rmtree(before)
    queue.submit(
        known.model_copy(
            update={
                "order_digest": digest,
                "envelope": data.decode(),
                # It does not care for the order's own quorum either, and so waits for every station's answer.
                "order": load_json(RunOrder, payload, what="order").model_copy(
                    update={"minimum_stations": 1}
                ),
                "manifest": load_yaml(TrainManifest, train.read_bytes(), what="train"),
                "release": load_yaml(Policy, policy.read_bytes(), what="policy").release,
            }
        )
    )
    return digest


def outcome(consortium: Consortium, digest: str, timeout_s: float = 600) -> RunProgress:
    """Wait until a run is over and return how it ended."""
    folder = FolderQueue(consortium.orchestrator / "runs").folder(digest)
    deadline = time.monotonic() + timeout_s
    while True:
        progress = folder.read_progress()
        if progress.state.is_over:
            return progress
        if time.monotonic() > deadline:
            raise TimeoutError(f"the run is still {progress.state}")
        time.sleep(0.1)


def await_round(consortium: Consortium, digest: str, number: int, timeout_s: float = 600) -> dict[str, Any]:
    """Wait until a run's round of that number is finished and return what is told of it."""
    folder = FolderQueue(consortium.orchestrator / "runs").folder(digest)
    deadline = time.monotonic() + timeout_s
    while True:
        over = folder.read_progress().state.is_over
        finished = folder.read_rounds()
        if len(finished) >= number:
            return finished[number - 1]
        if over or time.monotonic() > deadline:
            raise TimeoutError(f"round {number} was not finished")
        time.sleep(0.1)


def flip_one_byte(consortium: Consortium, digest: str) -> None:
    """Change one bit of a blob that the orchestrator keeps."""
    path = consortium.orchestrator / "blobs" / "sha256" / digest.removeprefix("sha256:")
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


def publish_unchecked(consortium: Consortium, envelope: Path, policy_id: str, version: int) -> None:
    """As a hostile secretary: list a policy that the board's own program refuses to publish."""
    place = consortium.repository / "staged" / policy_target(policy_id, version)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(envelope.read_bytes())
    run(
        "pht-board", "publish", "--repository", consortium.repository, "--key", consortium.key("secretary"), "--to",
        f"{consortium.url}/api/v1/mirror", "--token-file", consortium.token("board"), "--ca", consortium.ca,
    )  # fmt: skip
    consortium.vouch()
