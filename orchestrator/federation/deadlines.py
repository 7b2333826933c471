"""How long a station is waited for."""

import math

from orchestrator.federation.orders import AcceptedOrder
from orchestrator.federation.reviews import SLACK_S
from policies.wire.instructions import Kind

_MARGIN_S = 120.0
_SCORER_START_S = 180.0


def answer_s(accepted: AcceptedOrder, kind: Kind) -> float:
    """How long a station may take over one message, by what order and policy say.

    It computes, and scores what was trained where the policy has a limit. With a quantum each of the moments that it waits for
    is rounded up, and a container that is started for the message says hello at one of its own.
    """
    given = accepted.timing.answer_s
    if given is not None:
        return given
    rules, timeout_s = accepted.release, float(accepted.manifest.resources.message_timeout_s)
    scored = rules.membership_limit is not None and kind is Kind.TRAIN
    # Started again once where it fails; asked for both sets of weights.
    steps = [timeout_s, 2 * (_SCORER_START_S + 2 * timeout_s)] if scored else [timeout_s]
    quantum = rules.timing_quantum_s
    if quantum == 0:
        return sum(steps) + _MARGIN_S
    quanta = sum(math.floor(step / quantum) + 1 for step in steps)
    # What follows the last step has one quantum, where that has one of its own; the hello has one.
    quanta += rules.quanta_of(kind.value) - len(steps) + 1
    return quanta * quantum + _MARGIN_S


def review_s(accepted: AcceptedOrder) -> float:
    """How long a person may look at what is to leave."""
    given = accepted.timing.review_s
    return given if given is not None else accepted.release.review_hours * 3600.0 + SLACK_S
