"""Layers written by hand, header by header: what tar programs write, and what none of them would."""

import gzip
import struct
import tarfile
from io import BytesIO

USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
END = b"\0" * 1024


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    link: bytes = b"",
    mode: int = 0o644,
    magic: bytes = USTAR,
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
    rest: bytes = b"",
    checksum: bytes | None = None,
    mtime: bytes = b"00000000000\0",
) -> bytes:
    """Return one header block."""
    sized = size if isinstance(size, bytes) else b"%011o\0" % size
    fields = (name, b"%07o\0" % mode, b"0000000\0", b"0000000\0", sized, mtime, b" " * 8, kind, link, magic, b"", b"",
              b"%07o\0" % device[0], b"%07o\0" % device[1], prefix, rest)  # fmt: skip
    block = struct.pack("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s", *fields)
    summed = b"%06o\0 " % sum(block) if checksum is None else checksum
    return block[:148] + summed + block[156:]


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def file(name: bytes, content: bytes = b"", **more: object) -> bytes:
    return header(name, size=len(content), **more) + padded(content)  # type: ignore[arg-type]


def folder(name: bytes) -> bytes:
    return header(name, b"5", mode=0o755)


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def record(key: bytes, value: bytes) -> bytes:
    """Return a pax record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    while rest + len(str(length)) != length:
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def extended(*records: bytes, kind: bytes = b"x") -> bytes:
    body = b"".join(records)
    return header(b"PaxHeaders/x", kind, size=len(body)) + padded(body)


def layer(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def ordinary(files: dict[str, bytes]) -> bytes:
    """Return a layer as Python's tarfile writes one."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return out.getvalue()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=6, mtime=0)
