"""What went over the wire between one station and an orchestrator, as files: requests and answers, instructions and replies, byte for byte.

A version's folder under ``golden/`` is written once, by `record`, and never again: who reads it is a later version.
"""

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

GOLDEN: Final = Path(__file__).with_name("golden")
KEPT_HEADERS: Final = frozenset(
    {
        "accept-ranges", "content-length", "content-range", "content-type", "docker-content-digest", "etag",
        "flwr-public-key", "flwr-signature", "flwr-timestamp", "pht-digest", "pht-key", "pht-received",
        "pht-signature", "pht-timestamp", "range",
    }
)  # fmt: skip


def packed(data: bytes) -> str:
    """Bytes as golden files have them."""
    return base64.b64encode(zlib.compress(data, 9)).decode() if data else ""


def unpacked(text: str) -> bytes:
    """The bytes again."""
    return zlib.decompress(base64.b64decode(text)) if text else b""


@dataclass(frozen=True)
class Exchange:
    """One request of the station and its answer; bodies packed by `packed`."""

    method: str
    target: str
    headers: dict[str, str]
    body: str
    status: int
    answer_headers: dict[str, str]
    answer: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def is_fleet(self) -> bool:
        return not self.target.startswith("/api/")

    @property
    def sent(self) -> bytes:
        return unpacked(self.body)

    @property
    def came(self) -> bytes:
        return unpacked(self.answer)


@dataclass(frozen=True)
class Recording:
    """One version's golden files.

    Attributes:
        version: of the program that was recorded.
        moment: when, in seconds.
        station: who was recorded.
        node_key: its private key, PEM; made for the recording.
        order: the digest of the order that ran.
        image: the digest of its image's config.
        root: the board's root, as text.
        exchanges: in order.
        instructions: name to text.
        replies: name to text, of a station with a real guard.
        blobs: digest to bytes in base64, of what the exchanges name.
    """

    version: str
    moment: float
    station: str
    node_key: str
    order: str
    image: str
    root: str
    exchanges: tuple[Exchange, ...]
    instructions: dict[str, str]
    replies: dict[str, str]
    blobs: dict[str, str]

    def write(self, golden: Path) -> Path:
        folder = golden / self.version
        folder.mkdir(parents=True)
        for name, value in asdict(self).items():
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
        return folder

    @classmethod
    def read(cls, folder: Path) -> "Recording":
        found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        found["exchanges"] = tuple(Exchange(**entry) for entry in found["exchanges"])
        return cls(**found)


def recordings() -> list[Path]:
    """The folders of all versions that were recorded, the oldest first."""
    found = [path for path in GOLDEN.iterdir() if path.is_dir()]
    return sorted(found, key=lambda path: tuple(int(part) for part in path.name.split(".")))
