"""What in a policy cannot hold together: refused when it is written, a sentence for each. Pure.

One table, `_RULES`, read from top to bottom: a rule holds a policy against itself and gives a sentence for each thing that is wrong.
"""

from collections.abc import Callable, Iterator
from typing import Final

from policies.manifest import TrainKind
from policies.policy import (
    MINIMUM_TRAINING_STATIONS,
    ConsentMode,
    ConsentPurpose,
    DifferentialPrivacy,
    Policy,
    RequesterClass,
)
from policies.privacy.accounting import Spent, spendable
from policies.strategies import STRATEGIES, fewest_kept, grant_problems
from policies.withheld import MINIMUM_POOLED

_Rule = Callable[[Policy], Iterator[str]]


def contradictions(policy: Policy) -> list[str]:
    """Return what in a policy cannot hold together; each is one sentence for the person who writes it."""
    return [sentence for rule in _RULES for sentence in rule(policy)]


def _rule(wrong: Callable[[Policy], bool], sentence: str) -> _Rule:
    """Make the rule that gives `sentence` of a policy that is `wrong`."""

    def say(policy: Policy) -> Iterator[str]:
        if wrong(policy):
            yield sentence

    return say


def _noise_rule(wrong: Callable[[Policy, DifferentialPrivacy], bool], sentence: str) -> _Rule:
    """Make a rule that asks nothing of a policy without noise."""

    def say(policy: Policy) -> Iterator[str]:
        noise = policy.release.differential_privacy
        if noise is not None and wrong(policy, noise):
            yield sentence

    return say


def _trains(policy: Policy) -> bool:
    return policy.kind is TrainKind.TRAINING


def _is_commercial(policy: Policy) -> bool:
    return policy.requester.requester_class is RequesterClass.COMMERCIAL


def _has_noise(policy: Policy) -> bool:
    return policy.release.differential_privacy is not None


def _takes_opt_out_under(ground: str) -> Callable[[Policy], bool]:
    def wrong(policy: Policy) -> bool:
        grounds = (policy.legal.gdpr_article_6, policy.legal.gdpr_article_9)
        return ground in grounds and ConsentMode.OPT_OUT in policy.data.consent_modes

    return wrong


def _releases_buffers(policy: Policy, _: DifferentialPrivacy) -> bool:
    tensors = policy.release.tensors
    return tensors is not None and "release" in {tensors.float_buffers, tensors.integer_buffers}


def _queries(policy: Policy) -> int:
    # At least these: a table of sums is three queries. The train's manifest tells the rest (`policies.rules.privacy_rules`).
    release = policy.release
    return (release.tensors is not None) + len(release.metrics) + len(release.tables)


def _costs_more(policy: Policy, noise: DifferentialPrivacy) -> bool:
    queries = _queries(policy) * policy.runs.rounds
    return Spent.of(noise.noise_multiplier, queries) > spendable(noise.epsilon, noise.delta)


def _waits_longer_than_it_may_run(policy: Policy) -> bool:
    # A container runs while its answers wait, and its hello waits once.
    stages = ("train", "evaluate") if _trains(policy) else ("evaluate",)
    quanta = 1 + policy.runs.rounds * sum(policy.release.quanta_of(stage) for stage in stages)
    return quanta * policy.release.timing_quantum_s > policy.resources.run_hours * 3600


def _needs_what_secure_aggregation_hides(policy: Policy) -> Iterator[str]:
    for name in policy.runs.strategies:
        if policy.release.secure_aggregation and STRATEGIES[name].needs_single_updates:
            yield f"secure_aggregation adds up what nobody sees singly, and the strategy '{name}' needs it singly"


def _hands_on_too_few(policy: Policy) -> Iterator[str]:
    runs = policy.runs
    for name in runs.strategies:
        kept = fewest_kept(name, runs.strategy_parameters.get(name, {}))
        if kept is not None and not policy.release.station_results and kept < MINIMUM_POOLED:
            yield f"{name} may hand on the updates of {kept} of the stations alone: grant num_nodes_to_select from {MINIMUM_POOLED} on, or say release.station_results: true"


def _grants_what_a_strategy_does_not_take(policy: Policy) -> Iterator[str]:
    runs = policy.runs
    yield from grant_problems(
        runs.strategies, runs.strategy_parameters, runs.minimum_stations, runs.hyperparameters
    )


_RULES: Final[tuple[_Rule, ...]] = (
    # When.
    _rule(lambda it: it.valid_until <= it.valid_from, "valid_until must come after valid_from"),
    _rule(
        lambda it: it.legal.agreement.expires < it.valid_until.date(),
        "the agreement (legal.agreement.expires) ends before the policy does",
    ),
    # What kind of train.
    _rule(
        lambda it: (
            _trains(it)
            and it.runs.minimum_stations < MINIMUM_TRAINING_STATIONS
            and not _has_noise(it)
            and it.role != "development"
        ),
        f"training with fewer than {MINIMUM_TRAINING_STATIONS} stations needs differential_privacy",
    ),
    _rule(
        lambda it: it.resources.cpu_fallback and not it.resources.gpu,
        "resources.cpu_fallback says what to do without a GPU, and resources.gpu grants none",
    ),
    _rule(
        lambda it: _trains(it) != (it.release.tensors is not None),
        "release.tensors is set for training policies, and for those only",
    ),
    _rule(
        lambda it: not _trains(it) and it.release.membership_limit is not None,
        "release.membership_limit is of updates, and only training returns one",
    ),
    _rule(
        lambda it: _trains(it) and "none" in it.runs.strategies,
        "training needs an aggregation strategy, not 'none'",
    ),
    _rule(
        lambda it: not _trains(it) and it.runs.strategies != ("none",),
        "evaluation and analysis take the strategy 'none'",
    ),
    # Who asks.
    _rule(
        lambda it: _is_commercial(it) and not it.commercial_use_approved,
        "a commercial requester needs commercial_use_approved: true",
    ),
    _rule(
        lambda it: _is_commercial(it) and ConsentPurpose.RESEARCH_COMMERCIAL not in it.data.consent_purposes,
        "a commercial requester needs the consent purpose research-commercial",
    ),
    # Whom it leaves to trust, and noise.
    _rule(
        lambda it: (
            _trains(it)
            and not (_has_noise(it) and it.release.secure_aggregation)
            and it.release.trust_statement is None
        ),
        "without secure aggregation and noise, release.trust_statement must say whom that leaves to trust",
    ),
    _noise_rule(
        lambda it, _: it.release.tensors is not None and it.release.tensors.clipping_norm is None,
        "noise needs a clipping_norm",
    ),
    _noise_rule(
        _releases_buffers,
        "differential_privacy keeps buffers at the station: release.tensors.float_buffers and integer_buffers must be withhold",
    ),
    _noise_rule(
        lambda it, _: _queries(it) == 0, "differential_privacy blurs numbers, and release permits none"
    ),
    _noise_rule(
        lambda it, _: it.release.timing_quantum_s == 0,
        "differential_privacy blurs numbers, not moments: release.timing_quantum_s must say how coarsely answers are timed",
    ),
    _noise_rule(
        lambda it, noise: noise.delta * it.data.minimum_patients >= 1,
        "differential_privacy.delta must be below one by data.minimum_patients: at that probability it promises nothing",
    ),
    _noise_rule(
        _costs_more, "differential_privacy.epsilon is smaller than what one run of runs.rounds rounds costs"
    ),
    # How often, and how it is combined.
    _rule(
        _waits_longer_than_it_may_run,
        "release.timing_quantum_s is too long for resources.run_hours: waiting alone takes one run of runs.rounds rounds longer",
    ),
    _rule(
        lambda it: it.runs.releases < it.runs.rounds,
        "runs.releases is smaller than the releases one run makes",
    ),
    _needs_what_secure_aggregation_hides,
    _hands_on_too_few,
    _rule(
        lambda it: (
            _has_noise(it) and it.release.secure_aggregation and it.release.trust_statement is not None
        ),
        "release.trust_statement says what secure aggregation and noise rule out",
    ),
    # On what ground.
    _rule(_takes_opt_out_under("6(1)(a)"), "GDPR 6(1)(a) is consent: data.consent_modes cannot take opt-out"),
    _rule(
        _takes_opt_out_under("9(2)(a)"),
        "GDPR 9(2)(a) is explicit consent: data.consent_modes cannot take opt-out",
    ),
    _grants_what_a_strategy_does_not_take,
)
