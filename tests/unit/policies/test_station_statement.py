"""What a station's statement may follow: the rule that orchestrator and witness hold alike."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from statement_kit import digest

from policies.documents import canonical_json
from policies.errors import DocumentError, TrustError
from policies.refusals import RefusalCode, Refused
from policies.rules.statement_rules import held_against
from policies.signing import Signer, generate_key, load_signer, sign_envelope
from policies.station_statement import (
    STATEMENT_PAYLOAD_TYPE,
    ChainEnd,
    EntryRange,
    OrderUse,
    PolicyUse,
    Restoration,
    StationStatement,
    TrustVersions,
    open_statement,
    sign_statement,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FORK, ROLLBACK = RefusalCode.STATEMENT_FORK, RefusalCode.STATEMENT_ROLLBACK


def statement(**changes: Any) -> StationStatement:
    fields: dict[str, Any] = {
        "station": "amstel",
        "epoch": 1,
        "sequence": 5,
        "time": NOW,
        "audit": ChainEnd(seq=50, digest=digest(50)),
        "egress": ChainEnd(seq=20, digest=digest(20)),
        "policies": (PolicyUse(policy_id="cxr", runs=2, releases=7),),
        "orders": (OrderUse(order=digest(1), releases=3, finished=True),),
        "trust": TrustVersions(root=1, timestamp=9, targets=4, register_version=2),
        "consent_sequence": 3,
    }
    return StationStatement(**{**fields, **changes})


def restoration(of: StationStatement, **changes: Any) -> Restoration:
    fields: dict[str, Any] = {
        "epoch": of.epoch,
        "sequence": of.sequence,
        "statement": of.digest,
        "lost_audit": EntryRange(first=31, last=50),
        "lost_egress": EntryRange(first=11, last=20),
        "reconciled": NOW,
    }
    return Restoration(**{**fields, **changes})


LATER: dict[str, Any] = {"sequence": 6, "audit": ChainEnd(seq=60, digest=digest(60))}


def test_the_same_again_and_a_later_one_may_follow() -> None:
    assert held_against(statement(), statement()) is None
    assert held_against(statement(), statement(**LATER)) is None
    assert held_against(statement(), statement(**LATER, orders=())) is None, "an order that expired"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"time": datetime(2026, 11, 22, 13, tzinfo=UTC)}, FORK),
        ({"sequence": 6, "audit": ChainEnd(seq=50, digest=digest(51))}, FORK),
        ({"sequence": 6, "egress": ChainEnd(seq=20, digest=digest(21))}, FORK),
        ({"sequence": 4}, ROLLBACK),
        ({"sequence": 6, "audit": ChainEnd(seq=49, digest=digest(49))}, ROLLBACK),
        ({"sequence": 6, "egress": ChainEnd(seq=19, digest=digest(19))}, ROLLBACK),
        ({**LATER, "policies": ()}, ROLLBACK),
        ({**LATER, "policies": (PolicyUse(policy_id="cxr", runs=1, releases=7),)}, ROLLBACK),
        ({**LATER, "policies": (PolicyUse(policy_id="cxr", runs=2, releases=6),)}, ROLLBACK),
        ({**LATER, "orders": (OrderUse(order=digest(1), releases=2, finished=True),)}, ROLLBACK),
        ({**LATER, "orders": (OrderUse(order=digest(1), releases=3, finished=False),)}, ROLLBACK),
        ({**LATER, "trust": TrustVersions(root=1, timestamp=8, targets=4, register_version=2)}, ROLLBACK),
        ({**LATER, "trust": TrustVersions(root=1, timestamp=9, targets=4, register_version=1)}, ROLLBACK),
        ({**LATER, "trust": TrustVersions(root=0, timestamp=9, targets=4, register_version=2)}, ROLLBACK),
        ({**LATER, "trust": TrustVersions(root=1, timestamp=9, targets=3, register_version=2)}, ROLLBACK),
        ({**LATER, "consent_sequence": 2}, ROLLBACK),
    ],
)
def test_what_goes_back_or_forks_is_named(changes: dict[str, Any], code: RefusalCode) -> None:
    refused = held_against(statement(), statement(**changes))
    assert isinstance(refused, Refused)
    assert refused.code is code


def test_what_noise_cost_only_grows_and_is_left_out_where_there_was_none(
    keys: tuple[Signer, Signer],
) -> None:
    def charged(privacy: int, **changes: Any) -> StationStatement:
        return statement(
            policies=(PolicyUse(policy_id="cxr", runs=2, releases=7, privacy=privacy),), **changes
        )

    assert held_against(charged(9), charged(9, **LATER)) is None
    refused = held_against(charged(9), charged(8, **LATER))
    assert isinstance(refused, Refused)
    assert refused.code is ROLLBACK
    # A statement without noise has the bytes it had before there was any: those that stand can be read.
    assert b"privacy" not in canonical_json(charged(0))
    assert b'"privacy":9' in canonical_json(charged(9))
    key = keys[0]
    assert open_statement(sign_statement(charged(0), key), key.public_hex) == statement()
    assert open_statement(sign_statement(charged(9), key), key.public_hex) == charged(9)


def test_a_restoration_names_what_it_was_restored_from() -> None:
    standing = statement()
    short = {"audit": ChainEnd(seq=35, digest=digest(99)), "egress": ChainEnd(seq=11, digest=digest(98))}
    good = statement(epoch=2, sequence=6, restored=restoration(standing), **short)
    assert held_against(standing, good) is None
    later = restoration(standing, sequence=8, statement=digest(8))
    assert held_against(standing, statement(epoch=2, sequence=9, restored=later)) is None, "one we never saw"
    for bad, code in (
        (restoration(standing, sequence=4), FORK),
        (restoration(standing, statement=digest(7)), FORK),
    ):
        refused = held_against(standing, statement(epoch=2, sequence=6, restored=bad))
        assert isinstance(refused, Refused)
        assert refused.code is code
    refused = held_against(
        standing, statement(epoch=2, sequence=6, restored=restoration(standing), policies=())
    )
    assert isinstance(refused, Refused)
    assert refused.code is ROLLBACK, "a budget stays used"
    refused = held_against(good, statement(sequence=7))
    assert isinstance(refused, Refused)
    assert refused.code is ROLLBACK, "the other copy goes on in the epoch before"


def test_an_epoch_without_its_restoration_is_no_statement() -> None:
    with pytest.raises(ValueError, match="restored from"):
        statement(epoch=2)
    with pytest.raises(ValueError, match="restored from"):
        statement(restored=restoration(statement()))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Signer, Signer]:
    for name in ("station", "other"):
        generate_key(tmp_path / f"{name}.pem")
    return load_signer(tmp_path / "station.pem"), load_signer(tmp_path / "other.pem")


def test_a_statement_is_read_with_its_station_s_signature_only(keys: tuple[Signer, Signer]) -> None:
    station, other = keys
    envelope = sign_statement(statement(), station)
    assert open_statement(envelope, station.public_hex) == statement()
    with pytest.raises(TrustError):
        open_statement(envelope, other.public_hex)
    loose = canonical_json(statement()).replace(b'"epoch":1', b'"epoch": 1')
    with pytest.raises(DocumentError, match="canonical"):
        open_statement(sign_envelope(loose, STATEMENT_PAYLOAD_TYPE, station), station.public_hex)
