"""Decode many files in processes that may die, in order, with few of them in memory."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from policies.documents import digest_of
from station.cohorts.decoder import DEFAULT_TIMEOUT_S, Decoder
from station.cohorts.decoder_process import MAX_REQUEST_BYTES
from station.cohorts.hounsfield import HEADER_PREFIX_BYTES, CtSlice
from station.cohorts.pixels import Radiograph
from station.cohorts.series import SliceHeader, VolumeGrid
from station.cohorts.source import SourceFile
from station.cohorts.unusable import Unusable, UnusableImage

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


class DecoderPool:
    """A few decoder processes behind an ordered map; a context manager that ends them.

    Args:
        size: processes at once; None for one per core, at most four.
        timeout_s: seconds one image may take.
    """

    def __init__(self, size: int | None = None, timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        self._size = size or max(1, min(4, os.cpu_count() or 1))
        self._idle: SimpleQueue[Decoder] = SimpleQueue()
        self._decoders = [Decoder(timeout_s) for _ in range(self._size)]
        for decoder in self._decoders:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(self._size, thread_name_prefix="decoder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()

    def decode_all(
        self, work: Iterable[tuple[_Key, SourceFile]]
    ) -> Iterator[tuple[_Key, Radiograph | Unusable]]:
        """Yield each key with its radiograph, or with the reason why it has none, in the order of `work`.

        Args:
            work: keys and their files.

        Raises:
            UnavailableError: no decoder process can be started.
        """
        return self._map(work, lambda decoder, file: decoder.decode(read_file(file)))

    def headers(self, files: Iterable[SourceFile]) -> Iterator[SliceHeader | Unusable]:
        """Yield each file's header, or why it has none, in order; reads no more of a file than it must.

        Digests are not checked: who decodes the file afterwards does, and compares.

        Raises:
            UnavailableError: no decoder process can be started.
        """
        return (header for _, header in self._map(((None, file) for file in files), _header_of))

    def slices(self, work: Iterable[tuple[_Key, SourceFile]]) -> Iterator[tuple[_Key, CtSlice | Unusable]]:
        """Yield each key with its CT slice, or with the reason why it has none, in the order of `work`.

        Raises:
            UnavailableError: no decoder process can be started.
        """
        return self._map(work, lambda decoder, file: decoder.slice(read_file(file)))

    def mask(
        self, file: SourceFile, form: str, grid: VolumeGrid, values: Mapping[int, int]
    ) -> NDArray[np.uint8] | Unusable:
        """Return a mask on the grid of its volume, (slices, rows, columns), or why there is none.

        Raises:
            UnavailableError: no decoder process can be started.
        """

        def read(decoder: Decoder, file: SourceFile) -> NDArray[np.uint8]:
            return decoder.mask(read_file(file), form, grid, values)

        ((_, mask),) = self._map([(None, file)], read)
        return mask

    def rekeyed(
        self, files: Iterable[SourceFile], key: bytes, patient: str, shift_s: int
    ) -> Iterator[bytes | Unusable]:
        """Yield each file of one patient as one train is given it, or why it cannot be, in order.

        Raises:
            UnavailableError: no decoder process can be started.
        """

        def change(decoder: Decoder, file: SourceFile) -> bytes:
            return decoder.rekey(read_file(file), key, patient, shift_s)

        return (made for _, made in self._map(((None, file) for file in files), change))

    def _map(
        self,
        work: Iterable[tuple[_Key, SourceFile]],
        do: Callable[[Decoder, SourceFile], _Result],
    ) -> Iterator[tuple[_Key, _Result | Unusable]]:
        def one(file: SourceFile) -> _Result | Unusable:
            decoder = self._idle.get()
            try:
                return do(decoder, file)
            except UnusableImage as finding:
                return finding.reason
            finally:
                self._idle.put(decoder)

        # A window of twice the processes keeps them busy and few images in memory.
        pending: deque[tuple[_Key, Future[_Result | Unusable]]] = deque()
        try:
            for key, file in work:
                pending.append((key, self._threads.submit(one, file)))
                if len(pending) >= 2 * self._size:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _header_of(decoder: Decoder, file: SourceFile) -> SliceHeader:
    header = decoder.header(_read(file.path, HEADER_PREFIX_BYTES), whole=False)
    if header is None:
        header = decoder.header(_read(file.path, MAX_REQUEST_BYTES + 1), whole=True)
    if header is None:
        raise UnusableImage(Unusable.NOT_DICOM)
    return header


def read_file(file: SourceFile) -> bytes:
    """Return a file's bytes, verified.

    Raises:
        UnusableImage: it is no plain file, cannot be read, is too large, or has another digest.
    """
    data = _read(file.path, MAX_REQUEST_BYTES + 1)
    if len(data) > MAX_REQUEST_BYTES:
        raise UnusableImage(Unusable.TOO_LARGE)
    if file.digest is not None and digest_of(data) != file.digest:
        raise UnusableImage(Unusable.DIGEST)
    return data


def _read(path: Path, count: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableImage(Unusable.UNREADABLE)
            return file.read(count)
    except OSError as error:
        raise UnusableImage(Unusable.UNREADABLE) from error
