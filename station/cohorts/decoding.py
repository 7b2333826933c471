"""Decode DICOM in processes that may die: the starter's side of `station.cohorts.decoder_process`.

Every answer is checked as if a hostile program wrote it. No value of a file leaves this module but its pixels and the
few attributes of `Radiograph` and `SliceHeader`.
"""

import json
import os
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Annotated, Self, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, PositiveFloat, ValidationError

from policies.documents import StrictModel, digest_of
from policies.errors import UnavailableError
from station.cohorts.decoder_process import LENGTH, MAX_REQUEST_BYTES, REQUEST_HEAD, RESPONSE_HEAD, Verb
from station.cohorts.hounsfield import HEADER_PREFIX_BYTES, CtSlice
from station.cohorts.pixels import Radiograph
from station.cohorts.reading import MAX_PIXELS
from station.cohorts.series import SliceHeader
from station.cohorts.source import SourceFile
from station.cohorts.unusable import Unusable, UnusableImage

DEFAULT_TIMEOUT_S = 60
_MAX_HEAD_BYTES = 4096
_Key = TypeVar("_Key")
_Result = TypeVar("_Result")
_Head = TypeVar("_Head", bound=StrictModel)


class _Image(StrictModel):
    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[int, Field(ge=1)]
    spacing_mm: Annotated[tuple[PositiveFloat, PositiveFloat], BeforeValidator(tuple)]
    modality: Annotated[str, Field(max_length=16)]


class _Header(StrictModel):
    header: SliceHeader | None


class _NoImage(StrictModel):
    reason: Annotated[str, Field(max_length=64)]


class Decoder:
    """One decoder process, started when first needed and again after it died.

    Args:
        timeout_s: seconds one image may take, from its first byte in to its last pixel out.
    """

    def __init__(self, timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> Radiograph:
        """Decode one radiograph.

        Raises:
            UnusableImage: the bytes give no image, or the process died or ran too long on them.
            UnavailableError: no process can be started.
        """

        def size(head: _Image) -> int:
            return 2 * head.rows * head.columns if head.rows * head.columns <= MAX_PIXELS else -1

        head, pixels = self._ask(Verb.RADIOGRAPH, {}, data, _Image, size)
        return Radiograph(
            pixels=np.frombuffer(pixels, dtype="<u2").reshape(head.rows, head.columns),
            spacing_mm=head.spacing_mm,
            modality=head.modality,
        )

    def header(self, data: bytes, *, whole: bool) -> SliceHeader | None:
        """Read the header of one file, or of its beginning: None where that ends too early. Raises as `decode` does."""
        head, _ = self._ask(Verb.HEADER, {"whole": whole}, data, _Header, lambda _: 0)
        return head.header

    def slice(self, data: bytes) -> CtSlice:
        """Decode one CT slice. Raises as `decode` does."""

        def size(head: _Header) -> int:
            voxels = head.header.rows * head.header.columns if head.header else 0
            return 2 * voxels if 0 < voxels <= MAX_PIXELS else -1

        head, voxels = self._ask(Verb.SLICE, {}, data, _Header, size)
        if head.header is None:
            raise UnusableImage(Unusable.DECODER_CRASHED)
        shape = head.header.rows, head.header.columns
        return CtSlice(head.header, np.frombuffer(voxels, dtype="<i2").reshape(shape))

    def _ask(
        self,
        verb: Verb,
        parameters: Mapping[str, object],
        data: bytes,
        answers: type[_Head],
        size: Callable[[_Head], int],
    ) -> tuple[_Head, bytes]:
        """Send one request and read its answer.

        Args:
            verb: what is asked.
            parameters: of the verb.
            data: a file's bytes.
            answers: what the answer's head is, where it is not a reason.
            size: how many bytes must follow a head; negative for a head that cannot be.
        """
        process = self._running()
        timed_out = threading.Event()

        def _kill() -> None:
            timed_out.set()
            process.kill()

        watch = threading.Timer(self._timeout_s, _kill)
        watch.start()
        try:
            _send(process, verb, parameters, data)
            received = _receive(process, answers, size)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            reason = Unusable.DECODER_TIMEOUT if timed_out.is_set() else Unusable.DECODER_CRASHED
            raise UnusableImage(reason) from error
        finally:
            watch.cancel()
        if isinstance(received, Unusable):
            raise UnusableImage(received)
        return received

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


def _send(
    process: "subprocess.Popen[bytes]", verb: Verb, parameters: Mapping[str, object], data: bytes
) -> None:
    if process.stdin is None:
        raise EOFError("the decoder has no pipes")
    text = json.dumps(parameters).encode()
    process.stdin.write(REQUEST_HEAD.pack(verb, len(text)) + text + LENGTH.pack(len(data)))
    process.stdin.write(data)
    process.stdin.flush()


def _receive(
    process: "subprocess.Popen[bytes]",
    answers: type[_Head],
    size: Callable[[_Head], int],
) -> tuple[_Head, bytes] | Unusable:
    """Read one answer.

    Raises:
        EOFError, OSError: the process died.
        ValueError: the answer is not one of ours.
    """
    if process.stdout is None:
        raise EOFError("the decoder has no pipes")
    (length,) = RESPONSE_HEAD.unpack(_read_exactly(process.stdout, RESPONSE_HEAD.size))
    if length > _MAX_HEAD_BYTES:
        raise ValueError("the answer's head is too long")
    text = _read_exactly(process.stdout, length)
    (count,) = LENGTH.unpack(_read_exactly(process.stdout, LENGTH.size))
    try:
        reason = _NoImage.model_validate_json(text).reason
    except ValidationError:
        head = answers.model_validate_json(text)
        if count != size(head):
            raise ValueError("the answer is not as long as it should be") from None
        return head, _read_exactly(process.stdout, count)
    if count:
        raise ValueError("a reason comes alone")
    return Unusable(reason)


def _read_exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise EOFError("the decoder ended")
    return data
