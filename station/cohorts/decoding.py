"""Decode DICOM in processes that may die: the starter's side of `station.cohorts.decoder_process`.

Every answer is checked as if a hostile program wrote it. No value of a file leaves this module but its pixels, its
pixel spacing and its modality.
"""

import os
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Annotated, Self, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, PositiveFloat, TypeAdapter

from policies.documents import StrictModel, digest_of
from policies.errors import UnavailableError
from station.cohorts.decoder_process import MAX_REQUEST_BYTES, REQUEST_HEAD, RESPONSE_HEAD
from station.cohorts.pixels import MAX_PIXELS, Radiograph, Unusable, UnusableImage
from station.cohorts.source import SourceFile

DEFAULT_TIMEOUT_S = 60
_MAX_HEAD_BYTES = 4096
_Key = TypeVar("_Key")


class _Image(StrictModel):
    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[int, Field(ge=1)]
    spacing_mm: Annotated[tuple[PositiveFloat, PositiveFloat], BeforeValidator(tuple)]
    modality: Annotated[str, Field(max_length=16)]


class _NoImage(StrictModel):
    reason: Annotated[str, Field(max_length=64)]


_HEAD: TypeAdapter[_Image | _NoImage] = TypeAdapter(_Image | _NoImage)


class Decoder:
    """One decoder process, started when first needed and again after it died.

    Args:
        timeout_s: seconds one image may take, from its first byte in to its last pixel out.
    """

    def __init__(self, timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> Radiograph:
        """Decode one file.

        Raises:
            UnusableImage: the bytes give no image, or the process died or ran too long on them.
            UnavailableError: no process can be started.
        """
        process = self._running()
        timed_out = threading.Event()

        def _kill() -> None:
            timed_out.set()
            process.kill()

        watch = threading.Timer(self._timeout_s, _kill)
        watch.start()
        try:
            return _exchange(process, data)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            reason = Unusable.DECODER_TIMEOUT if timed_out.is_set() else Unusable.DECODER_CRASHED
            raise UnusableImage(reason) from error
        finally:
            watch.cancel()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        # The environment is built, not inherited: nothing of the station's reaches the process that meets the file.
        environment = {
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PHT_DECODER_ALARM_S": str(self._timeout_s + 5),
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "station.cohorts.decoder_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs print values
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise UnavailableError(f"the image decoder cannot be started ({error.strerror})") from error
        return self._process


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
        """Yield each key with its image, or with the reason why it has none, in the order of `work`.

        Args:
            work: keys and their files.

        Raises:
            UnavailableError: no decoder process can be started.
        """
        # A window of twice the processes keeps them busy and few images in memory.
        pending: deque[tuple[_Key, Future[Radiograph | Unusable]]] = deque()
        for key, file in work:
            pending.append((key, self._threads.submit(self._decode, file)))
            if len(pending) >= 2 * self._size:
                first, future = pending.popleft()
                yield first, future.result()
        for key, future in pending:
            yield key, future.result()

    def _decode(self, file: SourceFile) -> Radiograph | Unusable:
        decoder = self._idle.get()
        try:
            return decoder.decode(_read(file.path, file.digest))
        except UnusableImage as finding:
            return finding.reason
        finally:
            self._idle.put(decoder)


def _read(path: Path, digest: str | None) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableImage(Unusable.UNREADABLE)
            data = file.read(MAX_REQUEST_BYTES + 1)
    except OSError as error:
        raise UnusableImage(Unusable.UNREADABLE) from error
    if len(data) > MAX_REQUEST_BYTES:
        raise UnusableImage(Unusable.TOO_LARGE)
    if digest is not None and digest_of(data) != digest:
        raise UnusableImage(Unusable.DIGEST)
    return data


def _exchange(process: "subprocess.Popen[bytes]", data: bytes) -> Radiograph:
    """Send one file and read one answer.

    Raises:
        EOFError, OSError: the process died.
        ValueError: the answer is not one of ours.
        UnusableImage: the process names a reason.
    """
    if process.stdin is None or process.stdout is None:
        raise EOFError("the decoder has no pipes")
    process.stdin.write(REQUEST_HEAD.pack(len(data)))
    process.stdin.write(data)
    process.stdin.flush()
    (length,) = RESPONSE_HEAD.unpack(_read_exactly(process.stdout, RESPONSE_HEAD.size))
    if length > _MAX_HEAD_BYTES:
        raise ValueError("the answer's head is too long")
    answer = _HEAD.validate_json(_read_exactly(process.stdout, length))
    if isinstance(answer, _NoImage):
        raise UnusableImage(Unusable(answer.reason))
    if answer.rows * answer.columns > MAX_PIXELS:
        raise ValueError("the answer is larger than any image")
    pixels = np.frombuffer(_read_exactly(process.stdout, answer.rows * answer.columns * 2), dtype="<u2")
    return Radiograph(
        pixels=pixels.reshape(answer.rows, answer.columns),
        spacing_mm=answer.spacing_mm,
        modality=answer.modality,
    )


def _read_exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise EOFError("the decoder ended")
    return data
