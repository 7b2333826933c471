"""A consortium for tests: a board with real keys and a real TUF repository, and an orchestrator behind real TLS."""

import asyncio
import gc
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import uvicorn
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save as save_arrays

from orchestrator.front.app import Front, Receive, Scope, Send
from orchestrator.front.server import create_front
from orchestrator.initialise import initialise
from orchestrator.registry.access import Role
from orchestrator.registry.superlink_port import write_superlink_port
from orchestrator.services import Services, open_services
from orchestrator.settings import Home, parse_settings
from policies.blobs import Blob
from policies.bundle import BundleIndex
from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_PAYLOAD_TYPE, Charter, Member
from policies.documents import canonical_json, digest_of, format_moment
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.signing import Signer, add_signature, generate_key, load_signer, sign_envelope
from policies.tls import client_context
from policies.trust.mirror import push
from policies.trust.repository import BoardRepository
from policies.trust.root import RootPlan
from policies.trust.witness import Witness
from policies.wire.http import openssh_public_key
from policies.wire.registry_client import RegistryClient

STATIONS = ("amstel", "berkel", "dommel")
CONFIG = b'{"architecture": "amd64", "rootfs": {"type": "layers"}}'
LAYER = b"layer bytes " * 1000
MANIFEST = f"""
schema_version: 1
name: trivial
version: 1.0.0
title: Adds a step to every weight
kind: training
interface: flower
data: {{modalities: [DX], profile: thorax-1@1}}
hyperparameters:
  step: {{type: float, minimum: 0.0, maximum: 10.0, default: 1.0}}
outputs:
  tensors: {{layout: same-as-input, buffers: ["*count"]}}
  metrics:
    - {{key: loss, stage: train, minimum: 0, maximum: 100, split: training}}
    - {{key: auc, stage: evaluate, minimum: 0, maximum: 1, split: validation}}
resources: {{memory_mib: 256, cpus: 1}}
contact: {{name: A Person, organisation: A Hospital, email: a@b.nl}}
licence: Apache-2.0
source_commit: unversioned
images:
  - {{variant: cpu, config_digest: "{digest_of(CONFIG)}"}}
""".encode()


def policy_yaml(requester_key: str, **changes: object) -> bytes:
    """A policy for the trivial train, from the project's own example."""
    example = Path(__file__).parents[1] / "policies" / "examples" / "cxr-classification.yaml"
    document = yaml.safe_load(example.read_text("utf-8"))
    now = datetime.now(UTC)
    document |= {
        "id": "trivial",
        "version": 1,
        "board": "test-board",
        "manifest_digest": digest_of(MANIFEST),
        "image_config_digests": [digest_of(CONFIG)],
        "valid_from": format_moment(now - timedelta(days=1)),
        "valid_until": format_moment(now + timedelta(days=30)),
    }
    document["requester"] |= {"key": requester_key}
    document["legal"]["agreement"]["expires"] = "2099-12-31"
    document["data"]["clinical_fields"] = []
    document["runs"] |= {
        "hyperparameters": {"step": {"type": "float", "minimum": 0.0, "maximum": 5.0, "default": 1.0}},
        "rounds": 10,
        "releases": 100,
    }
    document["release"] |= {"metrics": ["loss", "auc"], "tables": []}
    return yaml.safe_dump(document | changes).encode()


@dataclass
class Board:
    """Three members, a secretary and a witness, and their repository in a folder."""

    folder: Path
    members: list[Signer]
    secretary: Signer
    repository: BoardRepository
    witness: Witness

    @classmethod
    def found(cls, folder: Path) -> "Board":
        def key(name: str) -> Signer:
            generate_key(folder / f"{name}.pem")
            return load_signer(folder / f"{name}.pem")

        roles = ("clinician", "lawyer", "patient-representative")
        members = [key(role) for role in roles]
        secretary, witness_key = key("secretary"), key("witness")
        charter = Charter(
            schema_version=1,
            board="test-board",
            title="A board for tests",
            members=tuple(
                Member(name=f"M {role}", organisation="O", role=role, key=signer.public_hex)  # type: ignore[arg-type]
                for role, signer in zip(roles, members, strict=True)
            ),
            threshold=2,
            required_roles=("clinician",),
        )
        plan = RootPlan(charter, 2, secretary.public_hex, witness_key.public_hex)
        repository = BoardRepository.create(folder / "repository", plan, members[:2], now=datetime.now(UTC))
        return cls(folder, members, secretary, repository, Witness(folder / "repository", witness_key))

    @property
    def root(self) -> bytes:
        return (self.folder / "repository" / "metadata" / "1.root.json").read_bytes()

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        return add_signature(sign_envelope(payload, payload_type, self.members[0]), self.members[1])

    def add_policy(self, document: bytes) -> str:
        self.repository.add_policy(self.sign(document, POLICY_PAYLOAD_TYPE))
        return digest_of(document)

    def set_register(
        self,
        keys: dict[str, ec.EllipticCurvePrivateKey],
        version: int = 1,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        stations = [
            {
                "name": name,
                "organisation": f"{name} hospital",
                "country": "NL",
                "identity_key": (identities or {}).get(name) or digest_of(name.encode())[7:],
                "node_key": openssh_public_key(key.public_key()).decode(),
                "agreement": {"reference": "DTA 1", "expires": "2099-12-31"},
            }
            for name, key in keys.items()
        ]
        document = {"schema_version": 1, "board": "test-board", "version": version, "stations": stations}
        self.repository.set_register(self.sign(yaml.safe_dump(document).encode(), REGISTER_PAYLOAD_TYPE))

    def publish(self, to: str | Path, token: str | None = None, ca: Path | None = None) -> None:
        now = datetime.now(UTC)
        self.repository.publish(self.secretary, now=now)
        self.witness.sign_once(now)
        push(self.folder / "repository", to, token=token, ca=ca)


@dataclass
class Site:
    """An orchestrator that answers at `url`."""

    services: Services
    url: str
    clients: list[RegistryClient] = field(default_factory=list)

    @property
    def home(self) -> Home:
        return self.services.home

    @property
    def ca(self) -> Path:
        return self.home.ca_certificate

    def client(self, role: Role | None = None, name: str = "alice") -> RegistryClient:
        return self.with_token(None if role is None else self.services.access.new_token(role, name))

    def with_token(self, token: str | None) -> RegistryClient:
        self.clients.append(RegistryClient(self.url, self.ca, token))
        return self.clients[-1]

    def station(self, key: ec.EllipticCurvePrivateKey) -> RegistryClient:
        self.clients.append(RegistryClient(self.url, self.ca, signer=key))
        return self.clients[-1]

    def raw(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            verify=client_context(self.ca), headers=headers, base_url=self.url, trust_env=False, timeout=120.0
        )


@contextmanager
def site(folder: Path, root: bytes | None = None, **limits: float) -> Iterator[Site]:
    """An orchestrator's front in this process, on an ephemeral port; nothing listens behind it by default."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        settings = parse_settings(
            {"front": {"hosts": ["localhost"], "port": port}, "limits": {"blob_mib": 64} | limits}
        )
        home = initialise(folder / "orchestrator", settings, root)
        write_superlink_port(home, 9)
        services = open_services(home)
        running: list[Front] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await running[0](scope, receive, send)

        server = uvicorn.Server(
            uvicorn.Config(
                application,
                interface="asgi3",
                ssl_certfile=str(home.server_certificate),
                ssl_keyfile=str(home.server_key),
                log_config=None,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )

        async def run() -> None:
            front, proxy = create_front(services)
            running.append(front)
            await server.serve(sockets=[listener])
            await proxy.close()

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        wait_until(lambda: server.started, 120.0, "the front")
        found = Site(services, f"https://localhost:{port}")
        try:
            yield found
        finally:
            for client in found.clients:
                client.close()
            server.should_exit = True
            thread.join(120)
            services.close()
            _forget_half_closed()


def _forget_half_closed() -> None:
    """A refused upload's connection may still be in its TLS goodbye (up to 30 s) when the server ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def station_keys() -> dict[str, ec.EllipticCurvePrivateKey]:
    return {name: ec.generate_private_key(ec.SECP256R1()) for name in STATIONS}


def write_key(key: ec.EllipticCurvePrivateKey, path: Path) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return path


def send(client: RegistryClient, folder: Path, data: bytes, order: str | None = None) -> Blob:
    path = folder / digest_of(data)[7:23]
    path.write_bytes(data)
    client.put_blob(path, order=order)
    return Blob(digest=digest_of(data), size=len(data))


def send_bundle(client: RegistryClient, folder: Path) -> BundleIndex:
    index = BundleIndex(
        config=send(client, folder, CONFIG),
        layers=(send(client, folder, LAYER),),
        manifest=send(client, folder, MANIFEST),
    )
    client.put_bundle("trivial", "1.0.0", index)
    return index


def weights() -> bytes:
    return save_arrays(
        {
            "layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
            "layer.bias": np.zeros(3, dtype=np.float32),
        }
    )


def signed_order(signer: Signer, policy_digest: str, initial: bytes, **changes: object) -> bytes:
    now = datetime.now(UTC)
    number = digest_of(str(time.monotonic_ns()).encode())[7:39]
    fields: dict[str, object] = {
        "schema_version": 1,
        "order_id": number,
        "policy_id": "trivial",
        "policy_version": 1,
        "policy_digest": policy_digest,
        "manifest_digest": digest_of(MANIFEST),
        "image_config_digest": digest_of(CONFIG),
        "hyperparameters": {"step": 1.0},
        "initial_weights": {"digest": digest_of(initial), "size": len(initial)},
        "stations": list(STATIONS),
        "rounds": 2,
        "stages": ["train", "evaluate"],
        "strategy": {"name": "FedAvg", "parameters": {}},
        "minimum_stations": 3,
        "nonce": number,
        "issued": format_moment(now),
        "expires": format_moment(now + timedelta(days=1)),
    }
    payload = canonical_json(RunOrder.model_validate_json(canonical_json(fields | changes)))
    return sign_envelope(payload, PAYLOAD_TYPE, signer)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Look again every 20 ms until it holds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        pause.wait(0.02)
