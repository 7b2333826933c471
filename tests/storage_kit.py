"""An orchestrator's use cases over any database, without HTTP: `found_consortium`, then `open_desk`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import (
    CONFIG,
    LAYER,
    MANIFEST,
    STATIONS,
    Board,
    policy_yaml,
    signed_order,
    station_keys,
    weights,
)
from sqlalchemy import select

from orchestrator.initialise import initialise
from orchestrator.registry.access import Principal, Role, owner_scope
from orchestrator.registry.superlink_port import write_superlink_port
from orchestrator.services import Services, open_services
from orchestrator.settings import database_location, parse_settings
from orchestrator.storage import StationRow
from orchestrator.storage.location import Location
from policies.blobs import Blob
from policies.bundle import BundleIndex
from policies.documents import digest_of
from policies.signing import Signer, generate_key, load_signer

ALICE = Principal(Role.RESEARCHER, "alice")


@dataclass
class Consortium:
    """A board and its parties' keys; made once, its repository is only read."""

    board: Board
    requester: Signer
    policy_digest: str
    nodes: dict[str, ec.EllipticCurvePrivateKey]
    identities: dict[str, Signer]


@dataclass
class Desk:
    """One orchestrator's use cases, with the register read and a bundle in place."""

    services: Services
    consortium: Consortium

    @property
    def location(self) -> Location:
        return database_location(self.services.home, self.services.settings)

    def keep(self, data: bytes, owner: Principal = ALICE) -> Blob:
        """Bytes as if `owner` had sent them."""
        digest = digest_of(data)
        path = self.services.home.blobs / "sha256" / digest[7:]
        path.write_bytes(data)
        path.chmod(0o640)
        self.services.access.grant(digest, owner_scope(owner))
        return Blob(digest=digest, size=len(data))

    def index(self, manifest: bytes = MANIFEST) -> BundleIndex:
        return BundleIndex(config=self.keep(CONFIG), layers=(self.keep(LAYER),), manifest=self.keep(manifest))

    def order(self, **changes: object) -> bytes:
        return signed_order(self.consortium.requester, self.consortium.policy_digest, weights(), **changes)


def found_consortium(folder: Path) -> Consortium:
    identities = {}
    for name in ("requester", *STATIONS):
        generate_key(folder / f"{name}.pem")
        identities[name] = load_signer(folder / f"{name}.pem")
    requester = identities.pop("requester")
    board, nodes = Board.found(folder), station_keys()
    board.set_register(nodes, identities={name: key.public_hex for name, key in identities.items()})
    policy_digest = board.add_policy(policy_yaml(requester.public_hex))
    return Consortium(board, requester, policy_digest, nodes, identities)


@contextmanager
def open_desk(folder: Path, consortium: Consortium, url: str = "") -> Iterator[Desk]:
    """A home in `folder`, which must not exist yet.

    Args:
        folder: the home.
        consortium: whose mirror and register it holds.
        url: `database.url`; empty for SQLite.
    """
    settings = parse_settings({"front": {"hosts": ["localhost"], "port": 1}, "database": {"url": url}})
    home = initialise(folder, settings, consortium.board.root)
    write_superlink_port(home, 9)
    services = open_services(home)
    try:
        consortium.board.publish(home.mirror)
        services.stations.sync_quietly()
        # No SuperLink runs here: the node ids it would give are written by hand.
        with services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow).order_by(StationRow.name)), 1):
                row.node_id = str(2**64 - number)
        yield Desk(services, consortium)
    finally:
        services.close()
