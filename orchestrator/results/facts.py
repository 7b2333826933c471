"""What the orchestrator knows of a run that is over, read once for all files of its result."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.federation.history import read_history
from orchestrator.federation.orders import AcceptedOrder, RunFolder, RunProgress, RunState
from orchestrator.results.shown import shown_rounds
from policies.charter import POLICY_PAYLOAD_TYPE
from policies.documents import Digest, digest_of, load_yaml
from policies.errors import PhtError
from policies.policy import Policy
from policies.signing import unsafe_payload
from policies.wire.arrays import TensorShape

POLICY_FILE = "policy.dsse.json"
"""In a run's folder: the policy as its members signed it, taken when the order was accepted."""

_SOFTWARE = ("pht-radiology", "flwr", "numpy", "safetensors")


@dataclass(frozen=True, slots=True)
class Facts:
    """A run that is over.

    Attributes:
        accepted: the order as it was accepted.
        policy: the very policy that the order names; None where it was not kept (orders of earlier versions).
        progress: how it ended.
        rounds: the finished rounds, as the policy has them shown.
        history: changes of state with their moments.
        weights: the model's digest, of a training run.
        model_round: the round that made it; 0 for the weights the run began with.
        tensors: of the model; filled in once it is written.
        software: versions, by package.
    """

    accepted: AcceptedOrder
    policy: Policy | None
    progress: RunProgress
    rounds: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    weights: Digest | None
    model_round: int
    tensors: tuple[TensorShape, ...]
    software: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether the run did all that was ordered."""
        return self.progress.state is RunState.FINISHED

    @property
    def rounds_done(self) -> int:
        """How many rounds are finished."""
        return len(self.rounds)

    @property
    def ended(self) -> str | None:
        """When it ended, where that is on record."""
        moments = [line["at"] for line in self.history if line.get("state") == self.progress.state]
        return str(moments[-1]) if moments else None


def read_facts(run: RunFolder) -> Facts:
    """Read what is known of a run.

    Raises:
        StateError: its files are damaged.
    """
    accepted, progress = run.read_order(), run.read_progress()
    weights, model_round = _weights(run, accepted, progress)
    return Facts(
        accepted=accepted,
        policy=read_policy(run, accepted.order.policy_digest),
        progress=progress,
        rounds=shown_rounds(accepted, run.read_rounds()),
        history=read_history(run.path),
        weights=weights,
        model_round=model_round,
        tensors=(),
        software=software(),
    )


def read_policy(run: RunFolder, digest: Digest) -> Policy | None:
    """Return the policy that an order names, held to the digest in the order; None where it is not at hand."""
    try:
        payload = unsafe_payload((run.path / POLICY_FILE).read_bytes(), POLICY_PAYLOAD_TYPE)
        return load_yaml(Policy, payload, what="policy") if digest_of(payload) == digest else None
    except (OSError, PhtError):
        return None


def software() -> dict[str, str]:
    """Return which versions run here."""
    found = {"python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _weights(run: RunFolder, accepted: AcceptedOrder, progress: RunProgress) -> tuple[Digest | None, int]:
    if "train" not in accepted.order.stages:
        return None, 0
    if progress.state is RunState.FINISHED:
        return progress.weights, len(run.read_rounds())
    checkpoint = run.read_json("checkpoint.json") or {}
    blob, made = checkpoint.get("weights"), checkpoint.get("round")
    if isinstance(blob, dict) and isinstance(made, int) and made > 0:
        return str(blob.get("digest")), made
    return None, 0
