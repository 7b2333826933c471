"""What the board itself says of a policy under review: its members' opinions, and its table of purposes."""

from dataclasses import replace
from pathlib import Path

from policies.board.publishing.status import purposes_of
from policies.board.reviewing.review import Review
from policies.board.reviewing.section import Section
from policies.board.signing.opinions_desk import opinions_in_words
from policies.documents import load_yaml
from policies.policy import Policy
from policies.refusal_texts import text_of
from policies.rules.board_rules import purpose_reasons
from policies.trust.repository import BoardRepository


def with_board_words(found: Review, document: Path, data: bytes, repository: Path) -> Review:
    """Add to a policy's review what members say of it, and whether the table of purposes permits it.

    Args:
        found: the review so far.
        document: the policy file; opinions lie beside it.
        data: its bytes.
        repository: the board's, for its charter and table.

    Raises:
        TrustError: the root is not in force yet.
    """
    board = BoardRepository(repository)
    opinions = opinions_in_words(document, data, board.root.charter())
    section = Section("What members say", opinions or ("Nobody has put conditions or dissented.",))
    reasons = purpose_reasons(load_yaml(Policy, data, what=document.name), purposes_of(board))
    attention = (f"{text_of(reason.code).means} {reason.detail}".strip() for reason in reasons)
    return replace(found, sections=(*found.sections, section), attention=(*found.attention, *attention))
