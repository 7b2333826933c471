"""A train without a program at an orchestrator, over real HTTPS: its bundle has no layers, and its order is queued like any."""

from pathlib import Path

from orchestrator_site import STATIONS, Board, policy_yaml, send, signed_order, site, station_keys, weights
from sqlalchemy import select

import train_images
from orchestrator.federation.orders import FolderQueue
from orchestrator.registry.access import Role
from orchestrator.storage import StationRow
from policies.signing import generate_key, load_signer
from train_images.tool.folders import read_folder
from train_images.tool.packing import pack

SHIPPED = Path(train_images.__file__).parent / "cohort-statistics"


def test_its_bundle_is_taken_and_its_order_queued(tmp_path: Path) -> None:
    packed = pack(read_folder(SHIPPED), "no-such-image:1", tmp_path / "bundle").train
    index, manifest = packed.index, packed.manifest
    board, keys = Board.found(tmp_path), station_keys()
    generate_key(tmp_path / "requester.pem")
    requester = load_signer(tmp_path / "requester.pem")
    board.set_register(keys)
    digest = board.add_policy(
        policy_yaml(
            requester.public_hex,
            kind="analysis",
            manifest_digest=index.manifest.digest,
            image_config_digests=[index.config.digest],
            data=_granted(list(manifest.data.clinical_fields)),
            runs={"minimum_stations": 3, "runs": 5, "rounds": 1, "releases": 5, "strategies": ["none"], "hyperparameters": {}},
            release={"metrics": [], "tables": [item.key for item in manifest.outputs.aggregates], "maximum_bytes": 65536},
        )
    )  # fmt: skip
    with site(tmp_path, board.root) as place:
        token = place.services.access.new_token(Role.BOARD, "secretary")
        board.publish(f"{place.url}/api/v1/mirror", token, place.ca)
        place.services.stations.sync_quietly()
        # No SuperLink runs behind this site: the node ids it would give are written by hand.
        with place.services.database.transaction() as session:
            for number, row in enumerate(session.scalars(select(StationRow)).all(), 1):
                row.node_id = str(number)
        alice = place.client(Role.RESEARCHER, "alice")
        for blob in index.blobs():
            send(alice, tmp_path, packed.store.read_bytes(blob.digest, max_bytes=1 << 20))
        alice.put_bundle(manifest.name, manifest.version, index)
        envelope = signed_order(
            requester,
            digest,
            weights(),
            manifest_digest=index.manifest.digest,
            image_config_digest=index.config.digest,
            hyperparameters={},
            initial_weights=None,
            rounds=1,
            stages=["analyse"],
            strategy={"name": "none", "parameters": {}},
        )
        accepted = FolderQueue(place.home.runs).folder(alice.post_order(envelope)).read_order()
        assert accepted.manifest == manifest
        assert sorted(accepted.nodes) == sorted(STATIONS)


def _granted(fields: list[str]) -> dict[str, object]:
    return {
        "collections": ["chest-radiographs"],
        "consent_purposes": ["research-participants"],
        "consent_modes": ["opt-in"],
        "modalities": ["DX"],
        "clinical_fields": fields,
        "acquisition_fields": ["manufacturer", "view_position"],
        "minimum_patients": 10,
    }
