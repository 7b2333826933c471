"""Which consents a purpose needs: a table that the board's members sign as they sign a policy.

A policy names the consents its patients must have given; this table says which that takes at least, for each purpose and
each class of requester. What the table does not name, nobody may do. It is a target of the repository, so it changes
only by the members' signatures, and never goes back.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.documents import Name, Sequence, StrictModel
from policies.policy import ConsentPurpose, PurposeCode, RequesterClass

PURPOSES_TARGET = "purposes.dsse.json"
PURPOSES_PAYLOAD_TYPE = "application/vnd.pht.purpose-table+yaml"


class PurposeRule(StrictModel):
    """For one purpose and class of requester: every consent that a patient must have given."""

    purpose: PurposeCode
    requester_class: RequesterClass
    consents: Sequence[ConsentPurpose] = Field(min_length=1)


class PurposeTable(StrictModel):
    """All pairs of purpose and requester class that the board permits at all."""

    schema_version: Literal[1]
    board: Name
    version: Annotated[int, Field(ge=1)]
    rules: Sequence[PurposeRule] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _consistent(self) -> "PurposeTable":
        pairs = [(rule.purpose, rule.requester_class) for rule in self.rules]
        if len(set(pairs)) != len(pairs):
            raise ValueError("names a pair of purpose and requester class twice")
        return self

    def consents_for(
        self, purpose: PurposeCode, requester_class: RequesterClass
    ) -> frozenset[ConsentPurpose] | None:
        """Return the consents that it takes, or None where the board permits it to nobody."""
        for rule in self.rules:
            if (rule.purpose, rule.requester_class) == (purpose, requester_class):
                return frozenset(rule.consents)
        return None
