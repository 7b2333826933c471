"""A run with real keys at a station, and its evidence pack, for the tests of both sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from board_kit import register_yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from station_kit import STATIONS, StationKit, order_digest

from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.evidence.archive import open_pack, write_pack
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
