"""Reads paired tensors piece by piece, and works on several pieces at once in an order that does not change.

Files are read into small buffers, not mapped: a file's pages would count as this process's memory, and a mapped file that
becomes shorter ends the process. numpy, hashing and reading let other threads run, so two processors are used.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import numpy as np

from policies.errors import StorageError
from policies.wire.arrays import Array, TensorEntry, raw_dtype
from policies.wire.floats import as_float
from station.egress.training.pairing import Floats, TensorPair

JOB_ELEMENTS: Final = 1 << 18
BLOCK_ELEMENTS: Final = 1 << 16
"""Small enough for what one computes with to stay in a processor's own cache."""

_THREADS: Final = 2
_AHEAD: Final = 3

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive items of one tensor, in both files."""

    pair: TensorPair
    start: int
    stop: int


def jobs_of(pairs: Iterable[TensorPair]) -> Iterator[tuple[Piece, ...]]:
    """Divide tensors into jobs of about as many items each: parts of a large tensor, or many small ones."""
    job: list[Piece] = []
    room = JOB_ELEMENTS
    for pair in pairs:
        elements = pair.rule.reply.elements
        start = 0
        while start < elements:
            stop = min(elements, start + room)
            job.append(Piece(pair, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield tuple(job)
                job, room = [], JOB_ELEMENTS
    if job:
        yield tuple(job)


def pieces_of(pairs: Iterable[TensorPair]) -> Iterator[Piece]:
    """Divide tensors into the pieces of which jobs consist, for whoever takes one after the other."""
    for job in jobs_of(pairs):
        yield from job


class PairFiles:
    """The two files, open for reading; use it as a context manager.

    Raises:
        StorageError: a file cannot be opened, or is shorter than its layout said.
    """

    def __init__(self, pairs: Sequence[TensorPair]) -> None:
        self._open: dict[Path, int] = {}
        try:
            for path in {path for pair in pairs for path, _ in (pair.reply, pair.inbound)}:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise _fault() from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def blocks(self, piece: Piece) -> Iterator[tuple[Array, Array]]:
        """Yield reply and inbound items, raw; they may be written over, and hold until the next are asked for."""
        dtype = raw_dtype(piece.pair.rule.reply.dtype)
        size = min(BLOCK_ELEMENTS, piece.stop - piece.start)
        reply: Array = np.empty(size, dtype)
        inbound: Array = np.empty(size, dtype)
        for start in range(piece.start, piece.stop, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, piece.stop - start)
            self._read(piece.pair.reply, start, reply[:count])
            self._read(piece.pair.inbound, start, inbound[:count])
            yield reply[:count], inbound[:count]

    def deltas(self, piece: Piece) -> Iterator[Floats]:
        """Yield reply minus inbound of a float tensor, as float32, or float64 where it is; the same holds for them."""
        dtype = piece.pair.rule.reply.dtype
        for reply, inbound in self.blocks(piece):
            after = as_float(reply, dtype)
            # Into the buffer itself where it is one of floats already.
            np.subtract(after, as_float(inbound, dtype), out=after)
            yield after

    def _read(self, place: tuple[Path, TensorEntry], start: int, into: Array) -> None:
        path, entry = place
        view = memoryview(into.view(np.uint8).data)
        offset = entry.offset + start * into.itemsize
        try:
            while view:
                count = os.preadv(self._open[path], [view], offset)
                if count == 0:
                    raise _fault()
                view, offset = view[count:], offset + count
        except OSError as error:
            raise _fault() from error


def in_order(work: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Generator[_Result, None, None]:
    """Yield each job's result, in the order of the jobs, while later ones are worked on; a few results wait at most.

    Close it where it may not be used up: when it is closed no job runs any more.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(_THREADS, "egress-guard") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def _fault() -> StorageError:
    return StorageError("arrays: a file that was checked before cannot be read any more")
