"""Multipart bodies (RFC 2046 section 5.1) as they stream in, under ceilings: a sender decides nothing about our memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message

_MAX_PREAMBLE_BYTES = 64 << 10
_MAX_HEADER_BYTES = 16 << 10
_MAX_BOUNDARY = 70


class MultipartError(Exception):
    """The body is not multipart, or ends before its end."""


class PartTooLargeError(MultipartError):
    """A part is over the ceiling."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        content_type: without parameters, in lower case.
    """

    content_type: str
    body: bytes


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type of multipart/related names.

    >>> boundary_of('multipart/related; type="application/dicom"; boundary=abc')
    b'abc'

    Raises:
        MultipartError: it is another type, or names none.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary() if header.get_content_type() == "multipart/related" else None
    if not boundary or len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
        raise MultipartError("the body is not multipart/related")
    return boundary.encode("ascii")


def read_parts(chunks: Iterable[bytes], boundary: bytes, max_part_bytes: int) -> Iterator[Part]:
    """Yield the parts of a body as each is whole; what follows the last is not read.

    Args:
        chunks: the body.
        boundary: see `boundary_of`.
        max_part_bytes: the most one part may hold.

    Raises:
        PartTooLargeError: a part is, or says it is, over the ceiling.
        MultipartError: the body is not what its boundary promises, a part is not as long as it says, or the end is missing.
    """
    source = _Buffer(chunks)
    delimiter = b"--" + boundary
    if source.until(b"\r\n" + delimiter, _MAX_PREAMBLE_BYTES, at_start=delimiter) is None:
        raise MultipartError("no boundary")
    while True:
        after = source.take(2)
        if after == b"--":
            return
        if after != b"\r\n":
            raise MultipartError("a boundary goes on")
        head = source.until(b"\r\n\r\n", _MAX_HEADER_BYTES)
        if head is None:
            raise MultipartError("a part without a body")
        headers = _headers(head)
        stated = headers.get("Content-Length")
        if stated is not None and (not stated.isascii() or not stated.isdigit()):
            raise MultipartError("a part's length is no number")
        if stated is not None and (len(stated) > 15 or int(stated) > max_part_bytes):
            raise PartTooLargeError("a part says it is too large")
        body = source.until(b"\r\n" + delimiter, max_part_bytes)
        if body is None:
            raise MultipartError("the body ends in a part")
        if stated is not None and int(stated) != len(body):
            raise MultipartError("a part is not as long as it says")
        yield Part(headers.get_content_type(), body)


def _headers(head: bytes) -> Message:
    headers = Message()
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise MultipartError("a header is none")
        headers[name.decode("ascii", "replace").strip()] = value.decode("ascii", "replace").strip()
    return headers


class _Buffer:
    """What has streamed in and is not taken yet."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = bytearray()

    def take(self, count: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        while len(self._held) < count and self._more():
            pass
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def until(self, mark: bytes, most: int, *, at_start: bytes = b"") -> bytes | None:
        """Return what stands before a mark, and pass the mark; None where the end comes first.

        Raises:
            PartTooLargeError: the mark does not come in time.
        """
        looked = 0
        while True:
            if at_start and self._held.startswith(at_start):
                del self._held[: len(at_start)]
                return b""
            found = self._held.find(mark, looked)
            if found > most or (found < 0 and len(self._held) > most + len(mark)):
                raise PartTooLargeError("a part is too large")
            if found >= 0:
                taken = bytes(memoryview(self._held)[:found])
                del self._held[: found + len(mark)]
                return taken
            looked = max(0, len(self._held) - len(mark) + 1)
            if not self._more():
                return None

    def _more(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._held += chunk
        return True
