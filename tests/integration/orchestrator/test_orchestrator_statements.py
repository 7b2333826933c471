"""Stations' statements over real TLS: countersigned, held against what came before, witnessed; forks stay as evidence."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import STATIONS, Board, Site, site, station_keys
from statement_kit import digest, statement
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.registry.access import Role
from orchestrator.registry.statements import MAX_FORKS_KEPT, MAX_RESTORATIONS_KEPT
from policies.errors import ExitCode, NotFoundError, RefusedError, TrustError, UsageError
from policies.signing import Signer, generate_key, load_signer
from policies.station_heads import StationHeads, sign_heads
from policies.station_statement import (
    ChainEnd,
    EntryRange,
    PolicyUse,
    Restoration,
    StationStatement,
    open_receipt,
    open_statement,
    sign_statement,
)
from policies.wire.registry_client import RegistryClient


@dataclass
class Place:
    """An orchestrator that knows three stations, and the keys of all."""

    site: Site
    board: Board
    nodes: dict[str, ec.EllipticCurvePrivateKey]
    identities: dict[str, Signer]
    clients: dict[str, RegistryClient] = field(default_factory=dict)

    def client(self, name: str = "amstel") -> RegistryClient:
        if name not in self.clients:
            self.clients[name] = self.site.station(self.nodes[name])
        return self.clients[name]

    def put(self, stated: StationStatement, signer: str = "amstel") -> Any:
        return self.client().put_statement("amstel", sign_statement(stated, self.identities[signer]))

    def refusal(self, stated: StationStatement) -> str:
        with pytest.raises(RefusedError) as caught:
            self.put(stated)
        return caught.value.code


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    board, nodes, identities = Board.found(tmp_path / "board"), station_keys(), {}
    for name in STATIONS:
        generate_key(tmp_path / f"{name}.pem")
        identities[name] = load_signer(tmp_path / f"{name}.pem")
    board.set_register(nodes, identities={name: key.public_hex for name, key in identities.items()})
    with site(tmp_path, board.root) as found:
        board.publish(found.home.mirror)
        found.services.stations.sync_quietly()
        yield Place(found, board, nodes, identities)


def test_a_statement_gets_a_receipt_and_is_found_again(place: Place) -> None:
    first = place.put(statement(1))
    receipt = open_receipt(first.receipt.encode(), first.notary_key)
    assert (receipt.station, receipt.epoch, receipt.sequence) == ("amstel", 1, 1)
    assert receipt.statement == statement(1).digest
    assert place.put(statement(1)) == first, "the same statement has the same receipt"
    later = place.put(statement(3))
    assert place.client().get_statement("amstel") == later
    key = place.identities["amstel"].public_hex
    assert open_statement(later.statement.encode(), key) == statement(3)
    listed = place.site.client(Role.WITNESS, "witness").statements()
    assert [(one.station, one.sequence, one.statement) for one in listed.stations] == [
        ("amstel", 3, statement(3).digest)
    ]


def test_who_may_state_and_read(place: Place) -> None:
    with pytest.raises(UsageError, match="signatures"):
        place.put(statement(1), signer="berkel")
    with pytest.raises(UsageError, match="another station"):
        place.put(statement(1, station="berkel"))
    place.put(statement(1))
    envelope = sign_statement(statement(2), place.identities["amstel"])
    with pytest.raises(TrustError):
        place.client("berkel").put_statement("amstel", envelope)
    with pytest.raises(TrustError):
        place.client("berkel").get_statement("amstel")
    with pytest.raises(TrustError):
        place.site.client(Role.RESEARCHER).get_statement("amstel")
    with pytest.raises(TrustError):
        place.client().statements()
    with pytest.raises(NotFoundError):
        place.client("dommel").get_statement("dommel")


def test_what_contradicts_is_refused_and_kept(place: Place) -> None:
    place.put(statement(5))
    other = statement(5, audit=ChainEnd(seq=50, digest=digest(1)))
    assert place.refusal(other) == "STATEMENT_FORK"
    assert place.refusal(statement(4)) == "STATEMENT_ROLLBACK"
    assert place.refusal(statement(6, policies=())) == "STATEMENT_ROLLBACK"
    assert place.refusal(other) == "STATEMENT_FORK"
    (view,) = place.site.services.statements.views()
    assert (view.sequence, view.forks) == (5, 3), "each contradiction once; what stands, stands"
    place.put(statement(6))
    shown = CliRunner().invoke(app, ["station", "statements", str(place.site.home.path)])
    assert "STATEMENT" in shown.stdout
    assert "!!" in shown.stdout
    assert isinstance(shown.exception, RefusedError)
    assert shown.exception.exit_code is ExitCode.REFUSED


def test_evidence_is_bounded(place: Place) -> None:
    statements = place.site.services.statements
    statements.take("amstel", sign_statement(statement(5), place.identities["amstel"]))
    for number in range(MAX_FORKS_KEPT + 3):
        other = statement(5, audit=ChainEnd(seq=50, digest=digest(number + 1000)))
        with pytest.raises(RefusedError):
            statements.take("amstel", sign_statement(other, place.identities["amstel"]))
    (view,) = statements.views()
    assert view.forks == MAX_FORKS_KEPT
    assert view.last_fork is not None
    assert view.last_fork.startswith("STATEMENT_FORK ")


def test_restorations_that_are_kept_are_bounded(place: Place) -> None:
    statements = place.site.services.statements
    before = statement(1)
    statements.take("amstel", sign_statement(before, place.identities["amstel"]))
    for epoch in range(2, MAX_RESTORATIONS_KEPT + 4):
        restored = Restoration(
            epoch=before.epoch, sequence=before.sequence, statement=before.digest,
            lost_audit=EntryRange(first=21, last=70), lost_egress=EntryRange(first=11, last=35),
            reconciled=datetime(2026, 11, 22, 13, tzinfo=UTC),
        )  # fmt: skip
        before = statement(epoch, epoch=epoch, restored=restored)
        statements.take("amstel", sign_statement(before, place.identities["amstel"]))
    (view,) = statements.views()
    assert (view.restorations, view.epoch) == (MAX_RESTORATIONS_KEPT, MAX_RESTORATIONS_KEPT + 3)


def test_a_restoration_is_recorded_and_the_other_copy_is_out(place: Place) -> None:
    place.put(statement(5))
    restored = Restoration(
        epoch=1, sequence=5, statement=statement(5).digest, lost_audit=EntryRange(first=21, last=50),
        lost_egress=EntryRange(first=11, last=25), reconciled=datetime(2026, 11, 22, 13, tzinfo=UTC),
    )  # fmt: skip
    uses = (PolicyUse(policy_id="cxr", runs=1, releases=5),)
    place.put(
        statement(6, epoch=2, restored=restored, audit=ChainEnd(seq=24, digest=digest(9)), policies=uses)
    )
    (view,) = place.site.services.statements.views()
    assert (view.epoch, view.restorations, view.forks) == (2, 1, 0)
    assert place.refusal(statement(7)) == "STATEMENT_ROLLBACK"


def test_another_identity_key_in_the_register_begins_afresh(place: Place, tmp_path: Path) -> None:
    place.put(statement(5))
    generate_key(tmp_path / "new.pem")
    place.identities["amstel"] = load_signer(tmp_path / "new.pem")
    names = {name: key.public_hex for name, key in place.identities.items()}
    place.board.set_register(place.nodes, version=2, identities=names)
    place.board.publish(place.site.home.mirror)
    place.site.services.stations.sync_quietly()
    place.put(statement(1))
    (view,) = place.site.services.statements.views()
    assert (view.sequence, view.forks) == (1, 0)


def test_the_witness_s_document_is_verified_and_never_older(place: Place) -> None:
    witness = place.site.client(Role.WITNESS, "witness")
    with pytest.raises(NotFoundError):
        place.client().get_heads()
    key = load_signer(place.board.folder / "witness.pem")
    now = datetime.now(UTC)

    def heads(moment: datetime, signer: Signer) -> bytes:
        return sign_heads(StationHeads(board="test-board", time=moment), signer)

    witness.put_heads(heads(now, key))
    assert place.client().get_heads() == heads(now, key)
    for bad in (heads(now - timedelta(hours=1), key), heads(now, place.identities["amstel"]), b"{}"):
        with pytest.raises(UsageError):
            witness.put_heads(bad)
    with pytest.raises(TrustError):
        place.client().put_heads(heads(now, key))
    assert place.client().get_heads() == heads(now, key)
