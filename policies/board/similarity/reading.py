"""Compares a policy or a train with what the board's repository lists."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from policies.board.documents.documents_in import is_policy, read_file, read_train
from policies.board.documents.listed import listed_policies
from policies.board.reviewing.review import Review
from policies.board.similarity.questions import (
    Alike,
    ResearchQuestion,
    attention_of,
    question_of,
    question_of_train,
    rank,
)
from policies.documents import load_yaml
from policies.policy import Policy


def ranked(document: Path, repository: Path, now: datetime) -> tuple[Alike, ...]:
    """Return what is listed, in the order of how much it looks like a document.

    Raises:
        DocumentError: the document is neither a policy nor a train.
    """
    return rank(
        _question(document, now), (question_of(policy, now) for policy in listed_policies(repository))
    )


def with_alike(review: Review, document: Path, repository: Path, now: datetime) -> Review:
    """Return a review that points out what others were approved for and looks alike."""
    return replace(review, attention=(*review.attention, *attention_of(ranked(document, repository, now))))


def _question(document: Path, now: datetime) -> ResearchQuestion:
    if document.is_dir() or not is_policy(data := read_file(document)):
        return question_of_train(read_train(document).manifest)
    return question_of(load_yaml(Policy, data, what=document.name), now)
