"""One decoder process that may die: the starter's side of `station.cohorts.decoder_process`.

Every answer is checked as if a hostile program wrote it. No value of a file leaves this module but its pixels and the
few attributes of `Radiograph` and `SliceHeader`.
"""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import IO, Annotated, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PositiveFloat, ValidationError

from policies.documents import StrictModel
from policies.errors import UnavailableError
from station.cohorts.decoder_process import LENGTH, REQUEST_HEAD, RESPONSE_HEAD, Verb
from station.cohorts.hounsfield import CtSlice
from station.cohorts.pixels import Radiograph
from station.cohorts.reading import MAX_PIXELS
from station.cohorts.series import SliceHeader, VolumeGrid
from station.cohorts.unusable import Unusable, UnusableImage

DEFAULT_TIMEOUT_S = 60
_MAX_HEAD_BYTES = 4096
MAX_GROWTH_BYTES = 64 << 10
_Head = TypeVar("_Head", bound=StrictModel)


class _Image(StrictModel):
    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[int, Field(ge=1)]
    spacing_mm: Annotated[tuple[PositiveFloat, PositiveFloat], BeforeValidator(tuple)]
    modality: Annotated[str, Field(max_length=16)]


class _Header(StrictModel):
    header: SliceHeader | None


class _Mask(StrictModel):
    voxels: Annotated[int, Field(ge=1)]


class _File(StrictModel):
    size: Annotated[int, Field(ge=1)]


class _NoImage(StrictModel):
    reason: Annotated[str, Field(max_length=64)]


class ConfinedProcess:
    """One process that may die, started when first needed and again after it died; it speaks as `decoder_process` says.

    Args:
        timeout_s: seconds one answer may take, from the request's first byte in to the answer's last out.

    Attributes:
        MODULE: what is started.
    """

    MODULE: ClassVar[str]

    def __init__(self, timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def _ask(
        self,
        verb: IntEnum,
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

        watch = threading.Timer(self._allowed_s(), _kill)
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

    def _allowed_s(self) -> float:
        """Return how long the answer to come may take."""
        return float(self._timeout_s)

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
                [sys.executable, "-s", "-m", self.MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs print values
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise UnavailableError(f"the image decoder cannot be started ({error.strerror})") from error
        return self._process


class Decoder(ConfinedProcess):
    """One decoder process."""

    MODULE = "station.cohorts.decoder_process"

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

    def mask(self, data: bytes, form: str, grid: VolumeGrid, values: Mapping[int, int]) -> NDArray[np.uint8]:
        """Read a mask on the grid of its volume, as `station.cohorts.masks` says. Raises as `decode` does."""
        voxels = math.prod(grid.shape)
        parameters = {
            "form": form,
            "grid": grid.model_dump(mode="json"),
            "values": {str(source): wanted for source, wanted in values.items()},
        }
        _, labels = self._ask(
            Verb.MASK, parameters, data, _Mask, lambda head: voxels if head.voxels == voxels else -1
        )
        columns, rows, slices = grid.shape
        return np.frombuffer(labels, np.uint8).reshape(slices, rows, columns)

    def rekey(self, data: bytes, key: bytes, patient: str, shift_s: int) -> bytes:
        """Return the file as one train is given it, as `station.cohorts.rekeying` says. Raises as `decode` does."""
        parameters = {"key": key.hex(), "patient": patient, "shift_s": shift_s}
        # Longer names for the same things; never a multiple of what came in.
        ceiling = 2 * len(data) + MAX_GROWTH_BYTES
        _, made = self._ask(
            Verb.REKEY, parameters, data, _File, lambda head: head.size if head.size <= ceiling else -1
        )
        return made


def _send(
    process: "subprocess.Popen[bytes]", verb: IntEnum, parameters: Mapping[str, object], data: bytes
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
