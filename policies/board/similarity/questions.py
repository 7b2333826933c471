"""Research questions that a board approved before, in the order of how much they look like another one.

Looks at words (title, summaries, purpose, requester) and at what is asked for (collections, fields, modalities, purpose, kind).
Points out; decides nothing, and an answer of "nothing alike" proves nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from policies.board.similarity.words import Collection, Text
from policies.manifest import TrainManifest
from policies.policy import Policy

THRESHOLD: Final = 0.28
_WORDS_WEIGHT: Final = 0.75


@dataclass(frozen=True, slots=True)
class ResearchQuestion:
    """What is compared.

    Attributes:
        name: ``id@version``.
        organisation: who asks; empty where a train alone was given.
        asked: what is asked for, by kind.
        in_force: whether its time has come and is not over.
    """

    name: str
    policy_id: str
    title: str
    organisation: str
    text: str
    asked: dict[str, frozenset[str]]
    in_force: bool


@dataclass(frozen=True, slots=True)
class Alike:
    """A question that was approved before.

    Attributes:
        score: 0 to 1.
        words: how alike the words are.
        asked: how alike what is asked for is.
        shared_words: those that count most.
        shared_asked: what both ask for.
        same_requester: whether the same organisation asked.
    """

    name: str
    title: str
    organisation: str
    score: float
    words: float
    asked: float
    shared_words: tuple[str, ...]
    shared_asked: tuple[str, ...]
    same_requester: bool
    in_force: bool


def question_of(policy: Policy, now: datetime) -> ResearchQuestion:
    """Return the question that a policy is about."""
    # Title and statement say what the question is; a summary says much else besides.
    weighted = (
        (policy.title, 3),
        (policy.purpose.statement, 2),
        (policy.summary.nl, 1),
        (policy.summary.en, 1),
    )
    asked = {
        "requester": (_spoken(policy.requester.organisation),),
        "collection": policy.data.collections,
        "field": (*policy.data.clinical_fields, *policy.data.acquisition_fields),
        "mask": policy.data.masks,
        "modality": policy.data.modalities,
        "purpose": (policy.purpose.code,),
        "kind": (policy.kind,),
    }
    return ResearchQuestion(
        f"{policy.id}@{policy.version}",
        policy.id,
        policy.title,
        policy.requester.organisation,
        "\n".join(text for text, times in weighted for _ in range(times)),
        {kind: frozenset(map(str, values)) for kind, values in asked.items()},
        policy.valid_from <= now < policy.valid_until,
    )


def question_of_train(manifest: TrainManifest) -> ResearchQuestion:
    """Return the question that a train is about, as far as its manifest tells."""
    label = (manifest.data.label,) if manifest.data.label else ()
    asked = {
        "requester": (_spoken(manifest.contact.organisation),),
        "field": (*manifest.data.clinical_fields, *manifest.data.acquisition_fields, *label),
        "mask": manifest.data.masks,
        "modality": manifest.data.modalities,
        "kind": (manifest.kind,),
    }
    return ResearchQuestion(
        f"{manifest.name} {manifest.version}",
        "",
        manifest.title,
        manifest.contact.organisation,
        manifest.title,
        {kind: frozenset(map(str, values)) for kind, values in asked.items()},
        in_force=False,
    )


def rank(question: ResearchQuestion, approved: Iterable[ResearchQuestion]) -> tuple[Alike, ...]:
    """Order approved questions by how much they look like this one; other versions of its own policy are left out."""
    others = [each for each in approved if each.policy_id != question.policy_id]
    text, texts = Text(question.text), [Text(each.text) for each in others]
    collection = Collection([text, *texts])
    found = [_alike(question, text, *pair, collection) for pair in zip(others, texts, strict=True)]
    return tuple(sorted(found, key=lambda each: (-each.score, each.name)))


def _alike(
    question: ResearchQuestion, text: Text, other: ResearchQuestion, other_text: Text, collection: Collection
) -> Alike:
    words = collection.likeness(text, other_text)
    kinds = [kind for kind in question.asked if question.asked[kind] or other.asked.get(kind)]
    overlaps = [_overlap(question.asked[kind], other.asked.get(kind, frozenset())) for kind in kinds]
    asked = sum(overlaps) / len(overlaps) if overlaps else 0.0
    shared = tuple(
        f"{kind} {name}"
        for kind in kinds
        for name in sorted(question.asked[kind] & other.asked.get(kind, frozenset()))
    )
    return Alike(
        other.name,
        other.title,
        other.organisation,
        round(_WORDS_WEIGHT * words + (1 - _WORDS_WEIGHT) * asked, 3),
        round(words, 3),
        round(asked, 3),
        collection.shared(text, other_text),
        shared,
        _spoken(question.organisation) == _spoken(other.organisation),
        other.in_force,
    )


def _spoken(name: str) -> str:
    """Return an organisation's name as it sounds, however it is written."""
    return " ".join(name.casefold().split())


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share that two sets have in common (Jaccard)."""
    return len(one & other) / len(one | other)


def attention_of(alike: Iterable[Alike], threshold: float = THRESHOLD) -> tuple[str, ...]:
    """Point out questions in force that look alike and that another requester asked."""
    return tuple(
        f"{each.name} of {each.organisation} looks alike ({each.score:.2f}): {each.title} "
        f"Shared: {', '.join((*each.shared_words, *each.shared_asked)) or 'nothing by name'}."
        for each in alike
        if each.score >= threshold and each.in_force and not each.same_requester
    )
