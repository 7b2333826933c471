"""What in a policy cannot hold together: refused when it is written, a sentence for each. Pure."""

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


def contradictions(policy: Policy) -> list[str]:
    """Return what in a policy cannot hold together; each is one sentence for the person who writes it."""
    release, runs = policy.release, policy.runs
    private = release.differential_privacy is not None
    grounds = (policy.legal.gdpr_article_6, policy.legal.gdpr_article_9)
    found: list[tuple[bool, str]] = [
        (policy.valid_until <= policy.valid_from, "valid_until must come after valid_from"),
        (
            policy.legal.agreement.expires < policy.valid_until.date(),
            "the agreement (legal.agreement.expires) ends before the policy does",
        ),
        (
            policy.kind is TrainKind.TRAINING
            and runs.minimum_stations < MINIMUM_TRAINING_STATIONS
            and not private
            and policy.role != "development",
            f"training with fewer than {MINIMUM_TRAINING_STATIONS} stations needs differential_privacy",
        ),
        (
            policy.resources.cpu_fallback and not policy.resources.gpu,
            "resources.cpu_fallback says what to do without a GPU, and resources.gpu grants none",
        ),
        (
            (policy.kind is TrainKind.TRAINING) != (release.tensors is not None),
            "release.tensors is set for training policies, and for those only",
        ),
        (
            policy.kind is not TrainKind.TRAINING and release.membership_limit is not None,
            "release.membership_limit is of updates, and only training returns one",
        ),
        (
            policy.kind is TrainKind.TRAINING and "none" in runs.strategies,
            "training needs an aggregation strategy, not 'none'",
        ),
        (
            policy.kind is not TrainKind.TRAINING and runs.strategies != ("none",),
            "evaluation and analysis take the strategy 'none'",
        ),
        (
            policy.requester.requester_class is RequesterClass.COMMERCIAL
            and not policy.commercial_use_approved,
            "a commercial requester needs commercial_use_approved: true",
        ),
        (
            policy.requester.requester_class is RequesterClass.COMMERCIAL
            and ConsentPurpose.RESEARCH_COMMERCIAL not in policy.data.consent_purposes,
            "a commercial requester needs the consent purpose research-commercial",
        ),
        (
            policy.kind is TrainKind.TRAINING
            and not (private and release.secure_aggregation)
            and release.trust_statement is None,
            "without secure aggregation and noise, release.trust_statement must say whom that leaves to trust",
        ),
        (
            private and release.tensors is not None and release.tensors.clipping_norm is None,
            "noise needs a clipping_norm",
        ),
        (
            private
            and release.tensors is not None
            and "release" in {release.tensors.float_buffers, release.tensors.integer_buffers},
            "differential_privacy keeps buffers at the station: release.tensors.float_buffers and integer_buffers must be withhold",
        ),
        *_noise_contradictions(policy),
        (
            _waits_longer_than_it_may_run(policy),
            "release.timing_quantum_s is too long for resources.run_hours: waiting alone takes one run of runs.rounds rounds longer",
        ),
        (runs.releases < runs.rounds, "runs.releases is smaller than the releases one run makes"),
        *(
            (
                release.secure_aggregation and STRATEGIES[name].needs_single_updates,
                f"secure_aggregation adds up what nobody sees singly, and the strategy '{name}' needs it singly",
            )
            for name in runs.strategies
        ),
        *(
            (
                not release.station_results and kept < MINIMUM_POOLED,
                f"{name} may hand on the updates of {kept} of the stations alone: grant num_nodes_to_select from {MINIMUM_POOLED} on, or say release.station_results: true",
            )
            for name in runs.strategies
            if (kept := fewest_kept(name, runs.strategy_parameters.get(name, {}))) is not None
        ),
        (
            private and release.secure_aggregation and release.trust_statement is not None,
            "release.trust_statement says what secure aggregation and noise rule out",
        ),
        (
            "6(1)(a)" in grounds and ConsentMode.OPT_OUT in policy.data.consent_modes,
            "GDPR 6(1)(a) is consent: data.consent_modes cannot take opt-out",
        ),
        (
            "9(2)(a)" in grounds and ConsentMode.OPT_OUT in policy.data.consent_modes,
            "GDPR 9(2)(a) is explicit consent: data.consent_modes cannot take opt-out",
        ),
    ]
    granted = grant_problems(
        runs.strategies, runs.strategy_parameters, runs.minimum_stations, runs.hyperparameters
    )
    return [sentence for wrong, sentence in found if wrong] + granted


def _noise_contradictions(policy: Policy) -> list[tuple[bool, str]]:
    """What noise cannot hold together with; each is a sentence where it applies."""
    privacy, release = policy.release.differential_privacy, policy.release
    if privacy is None:
        return []
    # At least these: a table of sums is three queries. The train's manifest tells the rest (`policies.rules.privacy_rules`).
    queries = (release.tensors is not None) + len(release.metrics) + len(release.tables)
    return [
        (queries == 0, "differential_privacy blurs numbers, and release permits none"),
        (
            release.timing_quantum_s == 0,
            "differential_privacy blurs numbers, not moments: release.timing_quantum_s must say how coarsely answers are timed",
        ),
        (
            privacy.delta * policy.data.minimum_patients >= 1,
            "differential_privacy.delta must be below one by data.minimum_patients: at that probability it promises nothing",
        ),
        (
            _costs_more(privacy, queries * policy.runs.rounds),
            "differential_privacy.epsilon is smaller than what one run of runs.rounds rounds costs",
        ),
    ]


def _waits_longer_than_it_may_run(policy: Policy) -> bool:
    # A container runs while its answers wait, and its hello waits once.
    stages = ("train", "evaluate") if policy.kind is TrainKind.TRAINING else ("evaluate",)
    quanta = 1 + policy.runs.rounds * sum(policy.release.quanta_of(stage) for stage in stages)
    return quanta * policy.release.timing_quantum_s > policy.resources.run_hours * 3600


def _costs_more(privacy: DifferentialPrivacy, queries: int) -> bool:
    return Spent.of(privacy.noise_multiplier, queries) > spendable(privacy.epsilon, privacy.delta)
