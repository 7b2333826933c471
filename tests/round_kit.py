"""One federated training round through every part that touches numbers: a train's answer, the guard, the orchestrator's FedAvg."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from orchestrator.federation.aggregation import Inbound, Update, aggregate, make_strategy
from orchestrator.federation.strategies import StateFiles
from policies.manifest import TrainManifest
from policies.order import StrategyChoice
from policies.policy import Policy
from policies.splits import Split
from policies.wire.arrays import read_layout
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.privacy.blurring import everybody_pays
from station.egress.release import Release

ORDER = "sha256:" + "5" * 64

Weights = dict[str, NDArray[Any]]


@dataclass
class Round:
    """A round of one train.

    Attributes:
        folder: a new one, for what is sent.
        hospitals: each one's cohort, laid out as a station does; a case is a patient.
        manifest, policy: by which each hospital's guard releases.
        answer: of the train at a hospital, to these weights with these settings.
    """

    folder: Path
    hospitals: Mapping[str, Path]
    manifest: TrainManifest
    policy: Policy
    answer: Callable[[Path, Weights, Mapping[str, float]], RecordDict]

    def run(self, start: Weights, **settings: float) -> Weights:
        """The common weights afterwards."""
        self.folder.mkdir()
        inbound = self.folder / "inbound"
        save_file(start, inbound)
        updates = []
        for name, cohort in self.hospitals.items():
            release = self._guarded(name, cohort, inbound, settings)
            assert isinstance(release, Release), release
            assert release.arrays is not None
            updates.append(Update(name, release.arrays.path, release.num_examples))
        outputs = self.manifest.outputs.tensors
        assert outputs is not None
        buffers = frozenset(name for name in start if outputs.role_of(name) == "buffer")
        strategy = make_strategy(StrategyChoice(name="FedAvg"))
        found = aggregate(
            strategy, 1, Inbound(inbound, buffers, {}), updates, StateFiles(self.folder / "moments")
        )
        return dict(load_file(self.folder / found.weights.digest.removeprefix("sha256:")))

    def _guarded(self, name: str, cohort: Path, inbound: Path, settings: Mapping[str, float]) -> Any:
        listed = json.loads((cohort / "datalist.json").read_text())
        counts = CohortCounts({split: SplitCounts(len(listed[split]), len(listed[split])) for split in Split})
        content = self.answer(cohort, dict(load_file(inbound)), settings)
        reply = self.folder / f"reply-{name}"
        save_file({key: each.numpy() for key, each in content["arrays"].items()}, reply)
        head = {"type": "reply", "id": 1, "metrics": dict(content["metrics"]), "rows": {}, "error": None}
        contract = ReleaseContract.build(self.manifest, self.policy, read_layout(inbound))
        request = GuardRequest(ORDER, 1, "train", inbound, self.folder / f"release-{name}")
        return Guard(contract, counts, charge=everybody_pays).check(request, head, reply)


def policy_with(policy: Policy, tensors: Mapping[str, Any] | None = None, **release: Any) -> Policy:
    """The policy with other rules on what leaves."""
    document = policy.model_dump(mode="json")
    document["release"]["tensors"] |= tensors or {}
    document["release"] |= release
    return Policy.model_validate_json(json.dumps(document))
