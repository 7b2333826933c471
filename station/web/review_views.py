"""What the operator sees of releases that wait for a person. Nothing here leaves the hospital."""

from typing import Annotated, Protocol

from pydantic import Field

from policies.documents import Moment, StrictModel
from station.egress.review.distributions import ArraysView, DifferenceView
from station.egress.review.reviews import MAX_REASON

Actor = Annotated[str, Field(min_length=1, max_length=100)]


class SpokenView(StrictModel):
    """What one person said."""

    operator: str
    word: str
    reason: str
    said: Moment


class ReviewView(StrictModel):
    """One release that was parked.

    Attributes:
        people: how many different people have to release it.
        code: why it did not leave.
        arrays_bytes: of the file beside the numbers; 0 without one.
    """

    number: int
    order: str
    policy: str
    version: int
    requester: str | None
    round: int
    stage: str
    state: str
    code: str | None
    people: int
    words: list[SpokenView]
    parked: Moment
    until: Moment
    ended: Moment | None
    arrays_bytes: int


class SuppressedView(StrictModel):
    """A declared output that a rule left out."""

    key: str
    code: str


class PayloadView(StrictModel):
    """What would leave, whole.

    Attributes:
        patients: whose data it rests on, as a number; it does not leave.
        capacity_bits: the most that it could carry.
        difference: to the release of the round before; None where there is none, or of other tensors.
    """

    metrics: dict[str, int | float]
    tables: dict[str, list[list[int | float]]]
    suppressed: list[SuppressedView]
    num_examples: int
    patients: int | None
    capacity_bits: int
    rules_digest: str
    document_digest: str
    arrays_digest: str | None
    arrays: ArraysView | None
    difference: DifferenceView | None


class ReviewDetailView(StrictModel):
    """A review and what would leave; without the latter where it waits no longer."""

    review: ReviewView
    payload: PayloadView | None


class ReleaseWord(StrictModel):
    """A person lets it leave."""

    actor: Actor


class WithholdWord(StrictModel):
    """A person keeps it here, and says why; the reason stays inside."""

    actor: Actor
    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)]


class ReviewUses(Protocol):
    """The use cases; `station.runs.review_desk` implements them."""

    def reviews(self, *, everything: bool) -> list[ReviewView]:
        """Return what waits, oldest first; with what was decided before, where asked."""

    def show(self, number: int, actor: str) -> ReviewDetailView:
        """Return one review with what would leave; audited first.

        Raises:
            NotFoundError: no such review.
            StateError: what waits is not what was parked.
        """

    def release(self, number: int, actor: str) -> ReviewView:
        """Take a person's word that it may leave; raises what `station.runs.reviewing.Reviewing.release` does."""

    def withhold(self, number: int, actor: str, reason: str) -> ReviewView:
        """Take a person's word that it must not leave; raises what `station.runs.reviewing.Reviewing.withhold` does."""
