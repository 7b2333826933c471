"""The operator's view of releases that wait for a person: implements `station.web.review_views.ReviewUses`."""

from dataclasses import dataclass

from policies.errors import StateError
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.egress.records.releases import ReleaseStore
from station.egress.review.distributions import ArraysView, DifferenceView, distance, look_at
from station.egress.review.reviews import Payload, Review, ReviewState, operator_of
from station.runs.reviewing import Reviewing
from station.web.review_views import (
    PayloadView,
    ReviewDetailView,
    ReviewView,
    SpokenView,
    SuppressedView,
)


@dataclass(frozen=True, slots=True)
class ReviewDesk:
    """What the operator can see and say about releases that wait."""

    reviewing: Reviewing
    releases: ReleaseStore
    audit: AuditLog

    def reviews(self, *, everything: bool) -> list[ReviewView]:
        """Return what waits, oldest first; with what was decided before, where asked."""
        states = tuple(ReviewState) if everything else (ReviewState.WAITING,)
        return [_view(review) for review in self.reviewing.queue.list(states)]

    def show(self, number: int, actor: str) -> ReviewDetailView:
        """Return one review with what would leave; audited first.

        Raises:
            NotFoundError: no such review.
            StateError: what waits is not what was parked.
        """
        review = self.reviewing.queue.get(number)
        if review.state is not ReviewState.WAITING:
            return ReviewDetailView(review=_view(review), payload=None)
        payload = self.reviewing.queue.payload(number)
        self.audit.append(
            AuditRecord(
                event=AuditEvent.REVIEW_SHOWN,
                actor=f"operator:{operator_of(actor)}",
                on_behalf_of=review.requester,
                purpose=review.purpose,
                object=review.order_digest,
                numbers={"review": number, "round": review.round},
            )
        )
        return ReviewDetailView(review=_view(review), payload=self._payload(review, payload))

    def release(self, number: int, actor: str) -> ReviewView:
        """Take a person's word that it may leave."""
        return _view(self.reviewing.release(number, actor))

    def withhold(self, number: int, actor: str, reason: str) -> ReviewView:
        """Take a person's word that it must not leave."""
        return _view(self.reviewing.withhold(number, actor, reason))

    def _payload(self, review: Review, payload: Payload) -> PayloadView:
        document = payload.document
        arrays: ArraysView | None = None
        difference: DifferenceView | None = None
        if payload.arrays is not None:
            arrays = look_at(payload.arrays)
            difference = self._difference(review, payload)
        return PayloadView(
            metrics=dict(document.metrics),
            tables={key: [list(row) for row in table] for key, table in document.tables.items()},
            suppressed=[SuppressedView(key=item.key, code=item.code.value) for item in document.suppressed],
            num_examples=document.num_examples,
            patients=None if document.used is None else len(document.used.patients),
            capacity_bits=document.capacity_bits,
            rules_digest=document.rules_digest,
            document_digest=review.document_digest,
            arrays_digest=review.arrays_digest,
            arrays=arrays,
            difference=difference,
        )

    def _difference(self, review: Review, payload: Payload) -> DifferenceView | None:
        if payload.arrays is None or review.round == 1:
            return None
        try:
            earlier = self.releases.find(review.order_digest, review.round - 1, review.stage)
        except StateError:
            # Its arrays are gone, by the hospital's own term or not: there is nothing to compare with.
            return None
        if earlier is None or earlier.arrays is None or not earlier.arrays.is_file():
            return None
        return distance(payload.arrays, earlier.arrays)


def _view(review: Review) -> ReviewView:
    return ReviewView(
        number=review.number,
        order=review.order_digest,
        policy=review.policy_id,
        version=review.policy_version,
        requester=review.requester,
        round=review.round,
        stage=review.stage,
        state=review.state.value,
        code=None if review.code is None else review.code.value,
        people=review.people,
        words=[
            SpokenView(operator=word.operator, word=word.word, reason=word.reason, said=word.said)
            for word in review.words
        ],
        parked=review.parked,
        until=review.until,
        ended=review.ended,
        arrays_bytes=review.arrays_size or 0,
    )
