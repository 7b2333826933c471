"""Writes, signs and sends run orders.

An order is held to the policy and the manifest by the same rules as at the orchestrator and the stations, before it is
signed: a researcher hears "no" at the desk. Every hyperparameter is written out, so that what was signed is what runs.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from policies.board.documents.documents_in import read_file
from policies.documents import canonical_json, digest_of, digest_of_file, format_moment, load_json, load_yaml
from policies.errors import NotFoundError, RefusedError, UsageError, WireError
from policies.manifest import TrainKind
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.policy import Policy
from policies.refusals import Reason, RefusalCode
from policies.rules.order_rules import manifest_reasons, order_reasons
from policies.signing import Signer, sign_envelope, unsafe_payload
from policies.wire.registry_client import RegistryClient
from policies.wire.releases import release_tensors
from train_images.tool.folders import PackedTrain
from train_images.tool.hyperparameters import choose, choose_parameters, strategy_named
from train_images.tool.initial_weights import Weights, read_weights
from train_images.tool.stages import stages_of

DEFAULT_HOURS: Final = 24.0
CLOCK_SLACK: Final = timedelta(minutes=1)
"""An order is dated back by this, so that a station whose clock is behind does not take it for one of the future."""


@dataclass(frozen=True, slots=True)
class OrderChoice:
    """What the researcher chose.

    Attributes:
        stations: who takes part.
        rounds: how many rounds.
        stages: what each round asks; without it what the manifest says the train answers.
        settings: hyperparameters, ``name=value`` each.
        weights: the initial weights; none for an analysis.
        minimum_stations: with fewer a round does not count; without it the policy's.
        hours: how long the order holds; without it a day, or until the policy ends.
        unchecked: sign what the rules refuse: to try what others do with it.
        strategy: how updates are combined; without it the policy's first.
        strategy_settings: its parameters, ``name=value`` each.
    """

    stations: Sequence[str]
    rounds: int
    stages: Sequence[str] | None = None
    settings: Sequence[str] = ()
    weights: Path | None = None
    minimum_stations: int | None = None
    hours: float | None = None
    unchecked: bool = False
    strategy: str | None = None
    strategy_settings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """An order and its envelope.

    Attributes:
        digest: of the signed bytes: names the run.
        order: what was signed.
        envelope: DSSE.
    """

    digest: str
    order: RunOrder
    envelope: bytes


def make_order(
    train: PackedTrain, policy_file: Path, choice: OrderChoice, signer: Signer, now: datetime
) -> SignedOrder:
    """Write an order, check it, sign it.

    Args:
        train: packed.
        policy_file: the policy as the board signed it, byte for byte.
        choice: what to run.
        signer: the key that the policy names.
        now: the moment it is.

    Raises:
        RefusedError: the policy or the manifest does not permit it; with the code that stations would give.
        UsageError: something is missing or makes no sense.
        DocumentError: a file is not what it should be.
    """
    data = read_file(policy_file)
    policy = load_yaml(Policy, data, what=policy_file.name)
    weights = None if choice.weights is None else read_weights(choice.weights)
    if weights is None and train.manifest.kind is not TrainKind.ANALYSIS:
        raise UsageError(
            "training and evaluation start from weights, and none are given",
            hint="Give --weights; `pht-train init-weights` makes them.",
        )
    order = _write(train, policy, digest_of(data), choice, weights, now)
    if not choice.unchecked:
        reasons = _reasons(order, train, policy, digest_of(data), signer, now)
        reasons += _weights_reasons(train, policy, weights)
        if reasons:
            raise RefusedError(
                reasons[0].code,
                "; ".join(reason.detail or reason.code.value for reason in reasons),
                hint="The order was not signed.",
            )
    payload = canonical_json(order)
    return SignedOrder(digest_of(payload), order, sign_envelope(payload, PAYLOAD_TYPE, signer))


def _write(
    train: PackedTrain,
    policy: Policy,
    policy_digest: str,
    choice: OrderChoice,
    weights: Weights | None,
    now: datetime,
) -> RunOrder:
    strategy = strategy_named(choice.strategy or policy.runs.strategies[0])
    fields = {
        "schema_version": 1,
        "order_id": secrets.token_hex(16),
        "policy_id": policy.id,
        "policy_version": policy.version,
        "policy_digest": policy_digest,
        "manifest_digest": train.index.manifest.digest,
        "image_config_digest": train.index.config.digest,
        "hyperparameters": choose(train.manifest, choice.settings),
        "initial_weights": None
        if weights is None
        else {"digest": weights.digest, "size": weights.layout.file_bytes},
        "stations": list(choice.stations),
        "rounds": choice.rounds,
        "stages": list(choice.stages or stages_of(train.manifest)),
        "strategy": {"name": strategy, "parameters": choose_parameters(strategy, choice.strategy_settings)},
        "minimum_stations": choice.minimum_stations or policy.runs.minimum_stations,
        "nonce": secrets.token_hex(16),
        "issued": format_moment(now - CLOCK_SLACK),
        "expires": format_moment(_expires(policy, choice, now)),
    }
    return load_json(RunOrder, canonical_json(fields), what="the order")


def _expires(policy: Policy, choice: OrderChoice, now: datetime) -> datetime:
    if choice.hours is not None:
        return now + timedelta(hours=choice.hours)
    return max(min(now + timedelta(hours=DEFAULT_HOURS), policy.valid_until), now)


def _reasons(
    order: RunOrder, train: PackedTrain, policy: Policy, policy_digest: str, signer: Signer, now: datetime
) -> list[Reason]:
    found = order_reasons(order, policy, policy_digest, now)
    found += manifest_reasons(order, train.manifest, policy)
    if signer.public_hex != policy.requester.key:
        found.append(Reason(RefusalCode.ORDER_SIGNATURE, "this is not the key that the policy names"))
    return found


def _weights_reasons(train: PackedTrain, policy: Policy, weights: Weights | None) -> list[Reason]:
    outputs, rules = train.manifest.outputs.tensors, policy.release.tensors
    if weights is None or outputs is None or rules is None:
        return []
    try:
        release_tensors(outputs, rules, weights.layout.tensors)
    except WireError as error:
        return [Reason(RefusalCode.ORDER_WEIGHTS, error.message)]
    return []


def read_order(envelope: bytes) -> SignedOrder:
    """Read an order from its file; its signature is the orchestrator's and the stations' to check.

    Raises:
        TrustError: it is no signed order.
        DocumentError: its content is none.
    """
    payload = unsafe_payload(envelope, PAYLOAD_TYPE)
    return SignedOrder(digest_of(payload), load_json(RunOrder, payload, what="run order"), envelope)


def send_order(signed: SignedOrder, weights: Path | None, registry: RegistryClient) -> str:
    """Send an order, and its initial weights where they are not there yet.

    Args:
        signed: from `make_order` or `read_order`.
        weights: the file of initial weights; may be left out when the registry has them.
        registry: an open connection.

    Returns:
        The digest that names the run.

    Raises:
        RefusedError: the orchestrator refuses, or the weights are not those of the order.
        UsageError: the registry does not have the weights and none are given.
    """
    wanted = signed.order.initial_weights
    if wanted is not None and weights is not None:
        if not weights.is_file():
            raise NotFoundError(f"{weights}: there is no such file")
        if digest_of_file(weights) != wanted.digest:
            raise RefusedError(
                RefusalCode.ORDER_WEIGHTS,
                f"{weights.name} is not the file that the order names",
                hint="Give the weights that the order was made with, or make a new order.",
            )
        registry.put_blob(weights, digest=wanted.digest)
    elif wanted is not None and not registry.has_blob(wanted.digest):
        raise UsageError(
            "the orchestrator does not have the order's initial weights", hint="Give them with --weights."
        )
    return registry.post_order(signed.envelope)
