"""The hostile train's image, made on the hospital's own host: two layers and a config in a layer store. Deterministic.

The lower layer is this host's own Python (`interpreter`), the upper one the hostile train under the name that the launcher
always starts (``/opt/train/bin/python -m pht_runtime``) and the baits: a program that is set-user-id to root, files of root, a
folder that anybody may write to. What makes each bait harmless is what the probes try.
"""

import io
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from policies.errors import UnavailableError
from station.selftest.interpreter import INTERPRETER, STDLIB, files_of_the_interpreter

PACKAGE: Final = STDLIB / "pht_runtime"
SOURCES: Final = Path(__file__).parent / "hostile"
BAIT: Final = "/opt/bait"
PRIZE: Final = b"for root's eyes"

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
# exit(geteuid() == 0), in the machine's own words: a shell script cannot be set-user-id.
_CODE: Final = {
    "x86_64": "b86b0000000f0531ff85c0400f94c7b83c0000000f05",
    "aarch64": "e81580d2010000d41f000071e0179f1aa80b80d2010000d4",
}
_ELF_MACHINE: Final = {"x86_64": 62, "aarch64": 183}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link of a layer.

    Attributes:
        content: a file's bytes, a link's target, or ``None`` for a folder.
        mode: permission bits.
        gid: its group; its owner is root.
    """

    content: bytes | str | None
    mode: int = 0o644
    gid: int = 0


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image that lies in a layer store.

    Attributes:
        config_digest: its name.
        blobs: everything that was put into the store for it.
        bytes: how large it is.
    """

    config_digest: str
    blobs: tuple[str, ...]
    bytes: int


def make_image(store: BlobFolder, marker: str = "selftest") -> MadeImage:
    """Make the hostile train's image.

    Args:
        store: gets its layers and config.
        marker: a text in the image by which one image can be told from another.

    Raises:
        UnavailableError: this host's Python cannot be laid out, or its architecture is none we know.
        StorageError: the store cannot be written.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise UnavailableError(f"the selftest's train knows no machine code for {machine}")
    lower = layer(
        {
            path: Entry(content, 0o755 if path == str(INTERPRETER) or ".so" in path else 0o644)
            for path, content in files_of_the_interpreter().items()
        }
    )
    layers = [store.put_bytes(each) for each in (lower, layer(_train(machine, marker)))]
    config = canonical_json(
        {
            "architecture": _ARCHITECTURES[machine],
            "os": "linux",
            "config": {"Env": ["PATH=/opt/train/bin", "PYTHONUTF8=1"]},
            "rootfs": {"type": "layers", "diff_ids": [each.digest for each in layers]},
        }
    )
    blob = store.put_bytes(config)
    digests = (blob.digest, *(each.digest for each in layers))
    return MadeImage(blob.digest, digests, blob.size + sum(each.size for each in layers))


def _train(machine: str, marker: str) -> dict[str, Entry]:
    made = {f"{PACKAGE}/{path.name}": Entry(path.read_bytes()) for path in sorted(SOURCES.glob("*.py"))}
    made |= {
        f"{BAIT}/marker": Entry(marker.encode()),
        f"{BAIT}/root-only": Entry(PRIZE, 0o400),
        f"{BAIT}/group-only": Entry(PRIZE, 0o040),
        f"{BAIT}/become-root": Entry(_program(machine), 0o4755),
        f"{BAIT}/open": Entry(None, 0o777),
        "/etc/passwd": Entry(b"root:x:0:0:root:/:/nonexistent\n"),
        "/tmp": Entry(None, 0o1777),  # noqa: S108 - a folder of the image
        "/train/data": Entry(None, 0o755),
        "/train/control": Entry(None, 0o755),
        "/train/scratch": Entry(None, 0o755),
    }
    return made


def _program(machine: str) -> bytes:
    """Return a whole ELF program that ends with 1 where it runs as root and with 0 where it does not."""
    code = bytes.fromhex(_CODE[machine])
    base, headers = 0x400000, 64 + 56
    start = base + headers
    size = headers + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)

    def number(value: int, width: int) -> bytes:
        return value.to_bytes(width, "little")

    header = ident + number(2, 2) + number(_ELF_MACHINE[machine], 2) + number(1, 4)
    header += number(start, 8) + number(64, 8) + number(0, 8) + number(0, 4)
    header += b"".join(number(value, 2) for value in (64, 56, 1, 0, 0, 0))
    segment = number(1, 4) + number(5, 4) + number(0, 8) + number(base, 8) + number(base, 8)
    segment += number(size, 8) + number(size, 8) + number(0x1000, 8)
    return header + segment + code


def layer(entries: Mapping[str, Entry]) -> bytes:
    """Return a layer's tar: parents first, sorted, without times, names or owners of this host."""
    whole: dict[str, Entry] = {}
    for path in sorted(entries):
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            whole.setdefault("/".join(parts[:depth]), Entry(None, 0o755))
        whole["/".join(parts)] = entries[path]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(whole):
            entry = whole[name]
            info = tarfile.TarInfo(name)
            info.mode, info.gid = entry.mode, entry.gid
            if entry.content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(entry.content, str):
                info.type, info.linkname = tarfile.SYMTYPE, entry.content
                tar.addfile(info)
            else:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
    return packed.getvalue()
