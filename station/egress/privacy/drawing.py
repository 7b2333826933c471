"""The right to draw noise: one draw for each query that was charged, and none before.

    queries of the documents -> charge (durable) -> ChargedNoise -> one sampler per query, once

Holding a `ChargedNoise` proves that everybody was charged: only `charged_noise` makes one.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

from policies.errors import StateError
from policies.policy import DifferentialPrivacy
from policies.privacy import Query
from policies.refusals import Refused
from station.egress.privacy.noise import DiscreteGaussian
from station.egress.privacy.randomness import RandomBits

Charge = Callable[[tuple[Query, ...]], Refused | None]
"""Charges patients for queries, durably, and returns None; or charges nobody and says why."""


class ChargedNoise:
    """Noise for queries that were charged; made by `charged_noise` alone.

    Args:
        multiplier: of every query.
        queries: that were charged.
    """

    def __init__(self, multiplier: Fraction, queries: Sequence[Query]) -> None:
        self._multiplier = multiplier
        self._undrawn = list(queries)

    def sampler(self, query: Query, sensitivity_squared: Fraction | int) -> DiscreteGaussian:
        """Return where the noise of one query comes from; each query has it once.

        Args:
            query: that was charged.
            sensitivity_squared: the square of its L2 sensitivity under replace-one, in steps of the grid that the noise is on.

        Raises:
            StateError: the query was not charged, or its noise was given out before.
        """
        if query not in self._undrawn:
            raise StateError("noise for a query that was not charged, or was drawn before")
        self._undrawn.remove(query)
        return DiscreteGaussian(self._multiplier**2 * sensitivity_squared, RandomBits())


def charged_noise(
    privacy: DifferentialPrivacy, queries: Sequence[Query], charge: Charge
) -> ChargedNoise | Refused:
    """Charge patients for all queries of one release, and return the right to draw their noise.

    Args:
        privacy: the policy's.
        queries: every one that the release answers (`policies.privacy.queries_of_stage`).
        charge: returns once the charge is durable.

    Raises:
        StorageError: the charge could not be recorded; nothing may be drawn.
    """
    asked = tuple(queries)
    refused = charge(asked)
    return ChargedNoise(Fraction(privacy.noise_multiplier), asked) if refused is None else refused
