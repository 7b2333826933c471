"""What a board reads about people who look at releases, before it signs."""

import pytest

from policies.board.comparing.documents import meaning_of
from policies.board.reviewing.policy_words import person_in_words
from policies.policy import ReleaseRules


@pytest.mark.parametrize(
    ("asked", "words"), [(True, "a person looks at every release"), (False, "No person has to look")]
)
def test_it_says_whether_a_person_looks_and_what_time_out_means(asked: bool, words: str) -> None:
    said = person_in_words(ReleaseRules(maximum_bytes=1, human_review=asked, review_hours=31))
    assert words in said
    assert "31 hours" in said
    assert "withheld" in said


def test_a_change_of_the_hours_is_said_in_words() -> None:
    assert "hours" in meaning_of("release.review_hours")
