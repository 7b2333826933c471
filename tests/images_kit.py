"""A layer store with sources that a test fills by hand: what a station's image store needs, and what it did."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from layer_kit import gzipped, ordinary

from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError
from station.images.records import Records
from station.images.room import Room, Terms
from station.images.sources import SourcedImage, SourcedLayer, Sources
from station.images.store import LayerStore

MIB = 1 << 20


def config_of(*layers: bytes, **more: Any) -> bytes:
    """Return the config of an image of these layers."""
    diff_ids = [digest_of(data) for data in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps(config | more).encode()


def layer_of(name: str, size: int = 2000) -> bytes:
    """Return an ordinary layer with one file of about this size."""
    return ordinary({f"opt/{name}": random.Random(name).randbytes(size)})


@dataclass
class Shelf:
    """A source in memory, which packs its layers with gzip where `packed`."""

    name: str = "shelf"
    packed: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, SourcedImage] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reachable: bool = True

    def add(self, *layers: bytes, **more: Any) -> str:
        config = config_of(*layers, **more)
        sourced = []
        for data in layers:
            moved = gzipped(data) if self.packed else data
            self.blobs[digest_of(moved)] = moved
            packing = "gzip" if self.packed else "none"
            sourced.append(SourcedLayer(digest_of(data), digest_of(moved), len(moved), packing))  # type: ignore[arg-type]
        self.images[digest_of(config)] = SourcedImage(config, tuple(sourced))
        return digest_of(config)

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if not self.reachable:
            raise NetworkError("the shelf does not answer")

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        self._answer("manifest")
        if manifest_digest not in self.blobs:
            raise NotFoundError("no such manifest")
        return self.blobs[manifest_digest]

    def find(self, image_config_digest: str) -> SourcedImage:
        self._answer("find")
        if image_config_digest not in self.images:
            raise NotFoundError("no such image")
        return self.images[image_config_digest]

    def download(self, layer: SourcedLayer, path: Path) -> int:
        self._answer(layer.diff_id)
        path.write_bytes(self.blobs[layer.digest])
        return len(self.blobs[layer.digest])


@dataclass
class EngineRecorder:
    """What the launcher was asked to remove; `busy` are used by a container."""

    removed: list[str] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    failure: Exception | None = None

    def remove_image(self, config_digest: str) -> bool:
        if self.failure is not None:
            raise self.failure
        if config_digest in self.busy:
            return False
        self.removed.append(config_digest)
        return True


class ImageStation:
    """A layer store with its room, and everything around it that a test may turn."""

    def __init__(self, root: Path, *shelves: Shelf, quota: int = 1 << 30, free: int = 1 << 40) -> None:
        self.root = root
        self.shelves = shelves or (Shelf(),)
        self.needed: Mapping[str, tuple[str, ...]] | None = {}
        self.engine = EngineRecorder()
        self.audited: list[tuple[str, int, str | None]] = []
        self.free = free
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.blobs = BlobFolder(root)
        self.records = Records(root)
        self.quota = quota
        self.store = self.life()

    def life(self) -> LayerStore:
        """Return the store as a process that starts now makes it."""
        room = Room(
            self.blobs,
            self.records,
            lambda: self.needed,
            self.engine,
            lambda *entry: self.audited.append(entry),
            Terms(self.quota, MIB, timedelta(days=30)),
            lambda: self.now,
            lambda _folder: self.free,
        )
        return LayerStore(self.blobs, self.records, Sources(self.shelves), room, lambda: self.now)

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def kept(self) -> set[str]:
        """Return the blobs that are there."""
        return set(self.blobs.digests())
