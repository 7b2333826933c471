"""Random bits that nobody can foresee: ChaCha20 under keys of the operating system's generator (RFC 8439).

A generator belongs to one draw. Its key is never stored, logged or derived from anything, and is gone with it; there is no seed to give,
so a draw cannot be repeated, by us either. No platform generator (`random`, `numpy.random`) is used for noise: their state follows
from what they gave out.
"""

import os
from typing import Final, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray

_Word = TypeVar("_Word", np.uint8, np.uint32, np.uint64)

_KEY_BYTES: Final = 32
# A key serves for this much and is replaced; the cipher's own limit is 256 GiB (RFC 8439 section 2.8).
_BYTES_PER_KEY: Final = 1 << 28
_BLOCK: Final = bytes(1 << 16)


class RandomBits:
    """A stream of independent uniform bits."""

    def __init__(self) -> None:
        self._left = 0
        self._stream = self._fresh_stream()

    def words(self, count: int, kind: type[_Word]) -> NDArray[_Word]:
        """Return uniform words.

        Args:
            count: how many.
            kind: numpy's unsigned type of the words.

        Returns:
            A new array of shape (count,).
        """
        made = np.empty(count, kind)
        room = memoryview(made.view(np.uint8).data)
        for start in range(0, len(room), len(_BLOCK)):
            piece = room[start : start + len(_BLOCK)]
            if self._left < len(piece):
                self._stream = self._fresh_stream()
            self._stream.update_into(_BLOCK[: len(piece)], piece)
            self._left -= len(piece)
        return made

    def integer(self, bits: int) -> int:
        """Return a uniform integer of so many bits."""
        size = (bits + 7) // 8
        return int.from_bytes(self.words(size, np.uint8).tobytes()) >> (size * 8 - bits)

    def below(self, bound: int) -> int:
        """Return a uniform integer from 0 to `bound` - 1, exactly uniform: what is out of range is drawn again."""
        bits = (bound - 1).bit_length()
        while True:
            value = self.integer(bits)
            if value < bound:
                return value

    def _fresh_stream(self) -> CipherContext:
        self._left = _BYTES_PER_KEY
        # The nonce may stand still: no key serves twice.
        return Cipher(algorithms.ChaCha20(os.urandom(_KEY_BYTES), bytes(16)), None).encryptor()
