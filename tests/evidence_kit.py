"""A run with real keys at a station, and its evidence pack, for the tests of both sides."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from board_kit import register_yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from station_kit import STATIONS, StationKit, order_digest

from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.documents import canonical_json, digest_of
from policies.evidence.archive import CRATE, STATEMENT, open_pack, write_pack
from policies.evidence.statement import PAYLOAD_TYPE, RunFact, RunStatement
from policies.signing import Signer, sign_envelope, unsafe_payload
from policies.wire.instructions import Kind, Status
from station.evidence.collecting import EvidenceCollector


@dataclass
class EvidenceRun:
    """A station, its identity key, and a run that went over its two rounds."""

    kit: StationKit
    identity: Ed25519PrivateKey
    envelope: bytes

    @classmethod
    def make(cls, folder: Path, policy: Mapping[str, object] | None = None) -> "EvidenceRun":
        kit = StationKit.make(folder, policy)
        tell_the_time(kit)
        identity = Ed25519PrivateKey.generate()
        register(kit, identity)
        run = cls(kit, identity, kit.ready())
        for round_ in (1, 2):
            run.round(round_)
        return run

    def round(self, round_: int, envelope: bytes | None = None) -> None:
        for kind in (Kind.TRAIN, Kind.EVALUATE):
            reply, _ = self.kit.message(envelope or self.envelope, kind, round_)
            assert reply.status is Status.RELEASED, reply

    @property
    def root(self) -> bytes:
        return self.kit.board.repository.root.pinnable()

    @property
    def digest(self) -> str:
        return order_digest(self.envelope)

    @property
    def collector(self) -> EvidenceCollector:
        return EvidenceCollector("amstel", self.kit.database, self.identity, self.kit.paths.trust)

    def pack(self, name: str = "evidence.zip", digest: str | None = None) -> Path:
        out = self.kit.folder / name
        self.collector.collect(digest or self.digest, out)
        return out


def tell_the_time(kit: StationKit) -> None:
    """Every record by the kit's clock: a pack is judged by the times in it."""
    for part in (kit.audit, kit.ledger, kit.releases):
        part._clock = kit.clock  # type: ignore[attr-defined]


def register(kit: StationKit, identity: Ed25519PrivateKey, version: int = 2) -> None:
    """Publish a register that gives the station its real key."""
    document = yaml.safe_load(register_yaml(version, *STATIONS))
    document["stations"][0]["identity_key"] = identity.public_key().public_bytes_raw().hex()
    data = yaml.safe_dump(document).encode()
    kit.board.repository.set_register(
        kit.board.signed(data, "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE)
    )
    kit.board.publish(now=kit.clock())


def members(pack: Path) -> dict[str, bytes]:
    """Everything in a pack."""
    with open_pack(pack) as opened:
        return {name: opened.read(name) for name in opened.names}


def rewritten(pack: Path, changes: Mapping[str, bytes | None], name: str = "forged.zip") -> Path:
    """A pack with files changed or taken away, in a container that is in order."""
    content: dict[str, bytes | Path] = dict(members(pack))
    for path, data in changes.items():
        if data is None:
            del content[path]
        else:
            content[path] = data
    out = pack.with_name(name)
    write_pack(out, content)
    return out


def resigned(
    run: EvidenceRun,
    pack: Path,
    change: Callable[[RunFact], RunFact] = lambda fact: fact,
    files: Mapping[str, bytes | None] | None = None,
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """A pack as its own station can forge it: files changed, described and signed anew, with its real key unless told."""
    content = members(pack)
    added = {path for path, data in (files or {}).items() if data is not None} - content.keys()
    for path, data in (files or {}).items():
        if data is None:
            del content[path]
        else:
            content[path] = data
    said = RunStatement.decode(unsafe_payload(content.pop(STATEMENT), PAYLOAD_TYPE)).predicate
    crate = json.loads(content[CRATE])
    crate["@graph"] = [
        entity
        for entity in crate["@graph"]
        if entity["@type"] != "File" or entity["@id"] in {*content, STATEMENT}
    ]
    crate["@graph"] += [{"@id": name, "@type": "File", "sha256": ""} for name in sorted(added)]
    for entity in crate["@graph"]:
        if "sha256" in entity:
            entity["sha256"] = digest_of(content[entity["@id"]]).removeprefix("sha256:")
    content[CRATE] = canonical_json(crate)
    said = change(said).model_copy(
        update={"files": {path: digest_of(data) for path, data in content.items()}}
    )
    used = key or run.identity
    signer = Signer(used.public_key().public_bytes_raw().hex(), CryptoSigner(used))
    content[STATEMENT] = sign_envelope(RunStatement.about(said).encode(), PAYLOAD_TYPE, signer)
    out = pack.with_name("resigned.zip")
    write_pack(out, dict(content))
    return out
