"""The review of a train or a policy: what people who decide read, with the points to look at.

Puts together what `policy_words`, `train_words` and `attention` say. Describes; decides nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.board.comparing.documents import changes_between, widest_first
from policies.board.documents.documents_in import Train
from policies.board.reviewing.attention import (
    code_attention,
    mismatches,
    policy_attention,
    size_attention,
)
from policies.board.reviewing.metric_words import metric_attention
from policies.board.reviewing.policy_words import policy_sections
from policies.board.reviewing.section import Section
from policies.board.reviewing.train_words import train_sections
from policies.policy import Policy
from policies.rules.capacity import Capacity, capacity
from policies.rules.privacy_words import noise_attention
from policies.wire.arrays import TensorShape

if TYPE_CHECKING:
    from policies.board.contents.report import ImageContents


@dataclass(frozen=True, slots=True)
class Review:
    """What a person reads before deciding.

    Attributes:
        subject: of what this is the review, with its digest.
        sections: in the order to read them.
        attention: points that a member should look at.
        capacity: the upper bound, where a policy was given.
        contents: what is in the image, where a bundle was given and read.
    """

    subject: str
    sections: tuple[Section, ...]
    attention: tuple[str, ...]
    capacity: Capacity | None
    contents: "ImageContents | None" = None


def review_train(train: Train) -> Review:
    """Describe what a train asks for, without a policy."""
    manifest = train.manifest
    attention = [] if train.image_digests else ["The manifest names no image yet: it is not packed."]
    attention += [*code_attention(train), *metric_attention(train.manifest)]
    return Review(
        f"train {manifest.name} {manifest.version}, {train.digest}",
        train_sections(train),
        tuple(attention),
        None,
    )


def review_policy(
    policy: Policy,
    data: bytes,
    digest: str,
    *,
    train: Train | None,
    weights: tuple[TensorShape, ...] | None,
    previous: Policy | None,
) -> Review:
    """Describe what a policy permits.

    Args:
        policy: the parsed file.
        data: its bytes.
        digest: of its bytes.
        train: the train it permits, to compare with.
        weights: the tensors that training starts from, where they are at hand.
        previous: the version in force now, to show what changes.
    """
    found = capacity(policy, train.manifest if train else None, weights)
    sections = [*policy_sections(policy, found, train)]
    if train is not None:
        sections += train_sections(train)
    if previous is not None:
        sections.append(_changes(previous, policy))
    attention = [
        *policy_attention(policy, data),
        *noise_attention(policy, train.manifest if train else None),
        *((*mismatches(policy, train), *code_attention(train)) if train else ()),
        *size_attention(policy, train.manifest if train else None, weights),
        *(metric_attention(train.manifest, policy.release) if train else ()),
    ]
    if previous is not None:
        attention += [
            f"Wider than version {previous.version}: {change}."
            for change in changes_between(previous, policy)
            if change.direction == "widens"
        ]
    if train is None:
        attention.append("Give --train to compare the policy with the train's own manifest.")
    subject = f"policy {policy.id}, version {policy.version}, {digest}"
    return Review(subject, tuple(sections), tuple(attention), found)


def _changes(before: Policy, after: Policy) -> Section:
    lines = [str(change) for change in widest_first(changes_between(before, after))]
    return Section(f"What changes against version {before.version}", tuple(lines) or ("Nothing.",))
