"""What manifest and policy may say of membership scores, and where they contradict each other."""

import pytest
from admission_facts import policy as admission_policy
from egress_documents import manifest, policy

from policies.errors import DocumentError
from policies.refusals import RefusalCode
from station.egress.contract import ReleaseContract

CODES = [RefusalCode.RELEASE_UNSCORED]


def test_only_training_has_an_update_to_score() -> None:
    assert manifest(membership_scores=True).outputs.membership_scores
    with pytest.raises(DocumentError, match="only a training train returns one"):
        manifest("evaluation", metrics=[], membership_scores=True)
    assert policy(membership_limit=0.6).release.membership_limit == 0.6
    with pytest.raises(DocumentError, match="only training returns one"):
        policy("evaluation", membership_limit=0.6)


@pytest.mark.parametrize("limit", [0.49, 1.01, -1.0, float("nan")])
def test_a_limit_is_an_area(limit: float) -> None:
    with pytest.raises((DocumentError, ValueError)):
        policy(membership_limit=limit)


def test_a_limit_without_a_train_that_scores_releases_nothing() -> None:
    limited = policy(membership_limit=0.6)
    assert [reason.code for reason in ReleaseContract.build(manifest(), limited, None).problems] == CODES
    answers = manifest(membership_scores=True)
    assert ReleaseContract.build(answers, limited, None).problems == ()
    assert ReleaseContract.build(answers, policy(), None).problems == ()
    assert admission_policy().release.membership_limit is None
