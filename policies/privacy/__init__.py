"""What noisy releases cost a patient: the same arithmetic for boards, researchers and stations.

Differential privacy here is of one patient, replaced by any other; see `policies.privacy.accounting` for the definition.
"""

from policies.privacy.accounting import NOTHING, Spent, epsilon, releases_within, spendable
from policies.privacy.costs import (
    PolicyCost,
    Query,
    QueryKind,
    cost_of,
    cost_of_policy,
    queries_of_stage,
    unbounded_outputs,
)
from policies.privacy.sensitivities import sensitivity_of, spread_of

__all__ = [
    "NOTHING",
    "PolicyCost",
    "Query",
    "QueryKind",
    "Spent",
    "cost_of",
    "cost_of_policy",
    "epsilon",
    "queries_of_stage",
    "releases_within",
    "sensitivity_of",
    "spendable",
    "spread_of",
    "unbounded_outputs",
]
