"""Unpacks a compressed layer as its bytes pass by, under ceilings."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from policies.layers.ceilings import CEILINGS, Ceilings, LayerFault, LayerRefusedError

_PIECE: Final = 1 << 20
_INPUT: Final = 16 << 10


def unpacked(chunks: Iterable[bytes], ceilings: Ceilings = CEILINGS) -> Iterator[bytes]:
    """Yield what a gzip stream (RFC 1952, of one or several members) holds, in pieces of at most 1 MiB.

    Raises:
        LayerRefusedError: it is none, is cut short, something follows it, or it unpacks to more than it may.
    """
    unpacker = zlib.decompressobj(wbits=31)
    came, made, members = 0, 0, 1
    for chunk in _small(chunks):
        came += len(chunk)
        waiting = chunk
        while waiting:
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
                members += 1
            piece = _step(unpacker, waiting)
            made += len(piece)
            if made > ceilings.bytes:
                raise LayerRefusedError(LayerFault.BYTES)
            if made > ceilings.ratio_free_bytes + ceilings.ratio * came:
                raise LayerRefusedError(LayerFault.RATIO)
            # Some builders begin a member with each file.
            if members > 2 * ceilings.entries:
                raise LayerRefusedError(LayerFault.ENTRIES)
            if piece:
                yield piece
            waiting = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if not unpacker.eof:
        raise LayerRefusedError(LayerFault.CUT_SHORT)


def _small(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the input small: what a member leaves over is copied, and there may be a member every few bytes."""
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT):
            yield chunk[start : start + _INPUT]


def _step(unpacker: "zlib._Decompress", data: bytes) -> bytes:
    try:
        return unpacker.decompress(data, _PIECE)
    except zlib.error as error:
        raise LayerRefusedError(LayerFault.PACKING) from error
