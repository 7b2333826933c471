"""How much privacy noisy releases have cost one patient, as an exact sum; and the epsilon that it stands for.

The neighbouring relation is replace-one: two cohorts of equal size that differ in one patient, all of whose images and
values may differ. A query's noise multiplier z is the standard deviation of its noise over its L2 sensitivity *under that
relation*: for a vector clipped to norm C that is 2C, not C, because the train, which nobody trusts, may turn it round.

Each query with discrete Gaussian noise is rho-zCDP with rho = 1/(2 z^2) (Canonne, Kamath and Steinke 2020), as with
continuous noise; rho adds up over queries chosen with knowledge of earlier answers (Bun and Steinke 2016, lemma 1.7). So the sum of 1/z^2
is the whole state. It is kept in whole units and rounded up, so it can be persisted, added and compared without error.

What dp_accounting 0.6.0 makes of the relation: its PLD accountant reads a `GaussianDpEvent` as "standard deviation over the norm of what
one record adds" and doubles the sensitivity itself under REPLACE_ONE; its RDP accountant does not look at the relation for a
`GaussianDpEvent` at all. With our z, which has the 2 in it, the RDP curve alpha/(2 z^2) is right; it is given to the accountant as
a `ZCDpEvent`, which leaves no room for either reading. A test holds both to each other.

The library takes more than a second to import, so it is imported when an epsilon is first asked for.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Self

UNITS_PER_ONE: Final = 1 << 40
"""Units in 1/z^2 = 1."""
MOST_UNITS: Final = 1 << 60
"""Where the sum stays: a cost so high stands for no privacy at all, whatever is added."""

# Orders of Renyi divergence among which the best is taken; every one of them gives a valid bound, so the grid costs tightness only.
_ORDERS: Final = tuple(1.0 + 2.0 ** (step / 32) for step in range(-192, 641))
# Above the rounding errors of some hundred operations in double precision.
_ROUND_UP: Final = 1.0 + 2.0**-40


@dataclass(frozen=True, slots=True, order=True)
class Spent:
    """What queries have cost, exact: it adds up over rounds, runs and trains.

    Attributes:
        units: sum of 1/z^2 in units of 1/`UNITS_PER_ONE`, each query rounded up.
    """

    units: int

    def __post_init__(self) -> None:
        if self.units < 0:
            raise ValueError("privacy that was spent does not come back")

    @classmethod
    def of(cls, noise_multiplier: float, queries: int = 1) -> Self:
        """Return what queries cost.

        Args:
            noise_multiplier: standard deviation of the noise over the query's sensitivity under replace-one.
            queries: how many.

        Raises:
            ValueError: the multiplier is not a positive number, or the number of queries negative.
        """
        if not (noise_multiplier > 0 and math.isfinite(noise_multiplier)) or queries < 0:
            raise ValueError("noise_multiplier must be positive and finite")
        one = math.ceil(UNITS_PER_ONE / Fraction(noise_multiplier) ** 2)
        return cls(min(one * queries, MOST_UNITS))

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(min(self.units + other.units, MOST_UNITS))

    def times(self, count: int) -> "Spent":
        """Return the cost of doing the same so many times."""
        return Spent(min(self.units * count, MOST_UNITS))

    @property
    def rho(self) -> float:
        """The parameter of zero-concentrated differential privacy, rounded up."""
        return self.units / (2 * UNITS_PER_ONE) * _ROUND_UP


NOTHING: Final = Spent(0)


def epsilon(spent: Spent, delta: float) -> float:
    """Return the epsilon that was spent at this delta, never too small; infinity where the sum is full.

    By dp_accounting's RDP accountant: the least over orders of Renyi divergence (Mironov 2017) with the conversion of
    Canonne, Kamath and Steinke (2020, proposition 12).

    Args:
        spent: the sum of costs.
        delta: the probability that the bound may fail with, above 0 and below 1.

    Raises:
        ValueError: delta is out of its range.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError("delta must be above 0 and below 1")
    if spent.units >= MOST_UNITS:
        return math.inf
    if spent.units == 0:
        return 0.0
    # Imported here: it brings scipy's statistics along, and most commands never ask.
    from dp_accounting import NeighboringRelation, ZCDpEvent  # noqa: PLC0415
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415

    accountant = RdpAccountant(orders=_ORDERS, neighboring_relation=NeighboringRelation.REPLACE_ONE)
    accountant.compose(ZCDpEvent(rho=spent.rho))
    return float(accountant.get_epsilon(delta)) * _ROUND_UP


@lru_cache(maxsize=256)
def spendable(epsilon_limit: float, delta: float) -> Spent:
    """Return the most that may be spent without going over an epsilon: a budget as a whole number.

    Args:
        epsilon_limit: may be reached, not passed.
        delta: as of `epsilon`.

    Raises:
        ValueError: a parameter is out of its range.
    """
    if not epsilon_limit >= 0.0:
        raise ValueError("epsilon must not be negative")
    low, high = 0, MOST_UNITS  # the first is within the limit, the second is not
    if math.isinf(epsilon_limit):
        return Spent(MOST_UNITS - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon(Spent(middle), delta) <= epsilon_limit:
            low = middle
        else:
            high = middle
    return Spent(low)


def releases_within(epsilon_limit: float, delta: float, noise_multiplier: float, queries: int) -> int:
    """Return how many releases of so many queries each a budget allows one patient.

    Args:
        epsilon_limit: the budget.
        delta: as of `epsilon`.
        noise_multiplier: of every query.
        queries: in one release, at least one.

    Raises:
        ValueError: a parameter is out of its range.
    """
    if queries < 1:
        raise ValueError("a release has at least one query")
    return spendable(epsilon_limit, delta).units // Spent.of(noise_multiplier, queries).units
