"""A consortium with an orchestrator behind HTTPS, for tests of what its runs give."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import Board, Site, policy_yaml, send, send_bundle, signed_order, site, weights
from result_documents import round_entry
from sqlalchemy import select

from orchestrator.federation.orders import FolderQueue, RunFolder, RunProgress, RunState
from orchestrator.registry.access import Role
from orchestrator.results.write import write_result
from orchestrator.storage import StationRow
from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.signing import Signer, generate_key, load_signer
from policies.wire.registry_client import RegistryClient

FIVE = ("amstel", "berkel", "dommel", "eem", "ijssel")
AUC = {"amstel": 0.6113, "berkel": 0.6827, "dommel": 0.7411, "eem": 0.8309, "ijssel": 0.7033}
EXAMPLES = {"amstel": 50, "berkel": 120, "dommel": 70, "eem": 90, "ijssel": 60}


@dataclass
class ResultsWorld:
    """Who is there."""

    place: Site
    requester: Signer
    policy_digest: str
    alice: RegistryClient
    keys: dict[str, ec.EllipticCurvePrivateKey]
    folder: Path

    def ordered(self, stations: Sequence[str] = FIVE, **changes: Any) -> str:
        """A run that the orchestrator has accepted."""
        return self.alice.post_order(
            signed_order(self.requester, self.policy_digest, weights(), stations=list(stations), **changes)
        )

    def run(self, digest: str) -> RunFolder:
        """Its folder."""
        return FolderQueue(self.place.home.runs).folder(digest)

    def ended(
        self,
        digest: str,
        state: RunState = RunState.FINISHED,
        rounds: int = 2,
        code: str = "",
        *,
        write: bool = True,
    ) -> Path | None:
        """What the run worker and the result writer leave when a run is over."""
        run = self.run(digest)
        run.write_rounds([round_entry(number, AUC, EXAMPLES) for number in range(1, rounds + 1)])
        blob = {"digest": digest_of(weights()), "size": len(weights())}
        if rounds:
            run.write_json("checkpoint.json", {"round": rounds, "weights": blob})
        run.write_progress(
            RunProgress(
                state=state, round=rounds, rounds=2, code=code, weights=digest_of(weights()), accepted=FIVE
            )
        )
        if not write:
            return None
        return write_result(run.path, BlobFolder(self.place.home.blobs), self.place.home.notary_key)

    def researcher(self, name: str) -> RegistryClient:
        """Another researcher."""
        return self.place.client(Role.RESEARCHER, name)

    def station(self, name: str) -> RegistryClient:
        """A station, by its node key."""
        return self.place.station(self.keys[name])


@contextmanager
def results_world(folder: Path, **release: object) -> Iterator[ResultsWorld]:
    """A board, five stations and a researcher; the policy's release rules as given."""
    board = Board.found(folder)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in (*FIVE, "elsewhere")}
    generate_key(folder / "requester.pem")
    requester = load_signer(folder / "requester.pem")
    board.set_register(keys)
    document = policy_yaml(requester.public_hex)
    text = document.decode()
    for key, value in release.items():
        text = text.replace(f"  {key}: true", f"  {key}: {value}")
    policy_digest = board.add_policy(text.encode())
    with site(folder, board.root) as place:
        token = place.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{place.url}/api/v1/mirror", token, place.ca)
        place.services.stations.sync_quietly()
        # No SuperLink runs behind this site: the node ids it would give are written by hand.
        with place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        alice = place.client(Role.RESEARCHER, "alice")
        send_bundle(alice, folder)
        send(alice, folder, weights())
        yield ResultsWorld(place, requester, policy_digest, alice, keys, folder)
