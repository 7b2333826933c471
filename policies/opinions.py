"""What a member says of a policy besides a signature: a dissent, or conditions that go with the approval.

Signed by the member over the policy's digest, published beside the policy, shown at review and in the public register.
An opinion never makes a policy binding, and never hinders one: the charter's quorum does.
"""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Digest, Moment, Name, StrictModel, Text

OPINION_PAYLOAD_TYPE = "application/vnd.pht.opinion+json"


def opinion_target(policy_id: str, version: int, member_key: str) -> str:
    """Return the TUF target path of one member's signed opinion on a policy version."""
    return f"opinions/{policy_id}/{version}/{member_key}.dsse.json"


class Opinion(StrictModel):
    """One member's word on one policy version; it counts only with that member's signature over it."""

    schema_version: Literal[1] = 1
    policy_id: Name
    version: Annotated[int, Field(ge=1)]
    policy_digest: Digest
    verdict: Literal["conditions", "dissent"]
    text: Text
    when: Moment
