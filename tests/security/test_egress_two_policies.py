"""Attack: the second half of a subtraction is asked under another policy, a newer version, or the organisation's new name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from differences_kit import COUNTED, by_illness, finds, ordered, refused, told
from map_runs import map_kit
from station_kit import StationKit, as_yaml

from policies.documents import digest_of
from policies.wire.instructions import StationReply

VICTIM = COUNTED[3]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = map_kit(tmp_path, monkeypatch)
    finds(made, by_illness)
    yield made
    made.close()


def under(
    kit: StationKit,
    *,
    name: str,
    version: int = 1,
    signer: str = "requester",
    organisation: str | None = None,
) -> StationReply:
    """The same order under another policy of the same train, which the board signed too."""
    document = as_yaml(kit.policy)
    document["id"], document["version"] = name, version
    document["requester"]["key"] = kit.board.keys[signer].public_hex
    if organisation is not None:
        document["requester"]["organisation"] = organisation
    policy = yaml.safe_dump(document).encode()
    kit.board.publish(kit.board.signed(policy), now=kit.clock())
    kit.clock.forward(seconds=2)
    return ordered(
        kit, signer=signer, policy_id=name, policy_version=version, policy_digest=digest_of(policy)
    )


def test_the_requester_is_known_again(kit: StationKit) -> None:
    everyone = told(ordered(kit))
    organisation = as_yaml(kit.policy)["requester"]["organisation"]
    assert told(under(kit, name="second")) == everyone, "the same figures, under another policy"
    # The same key under a new name, and then nobody but the new name: over both, the first is the same requester.
    assert told(under(kit, name="third", organisation="Another Name")) == everyone

    kit.intake.consent(**{f"p{VICTIM}": "objection"})
    kit.catalogue.sync()
    assert refused(under(kit, name="fourth"))
    assert refused(under(kit, name="second", version=2))
    assert refused(under(kit, name="fifth", signer="stranger", organisation=f"{organisation.upper()}."))
    assert refused(under(kit, name="sixth", signer="stranger", organisation="another name"))
    # Somebody else's is their own; two requesters who tell each other are told apart by nobody, and the page says so.
    told(under(kit, name="seventh", signer="stranger", organisation="Somebody Else"))
