"""The process that meets hostile files: reads DICOM bytes on stdin, writes pixels on stdout, and can do no more.

Native codecs crash, hang and allocate on bad input. Here that costs one image: the process has bounded memory, can
open no file or socket, start no process (as an ordinary user), and dies by its own alarm. It is started by
`station.cohorts.decoding`, which trusts nothing it writes.

    request:   u8 verb | u32 length | JSON parameters | u64 length | bytes
    response:  u32 length | JSON {"reason"} or the verb's answer | u64 length | bytes

    verb             parameters         answer                                               bytes
    RADIOGRAPH       {}                 {"rows", "columns", "spacing_mm", "modality"}        uint16 pixels
    HEADER           {"whole"}          {"header"}; null where the file goes on              none
    SLICE            {}                 {"header"}                                           int16 Hounsfield units
    MASK             {"form", "grid", "values"}  {"voxels"}                                  uint8 label map
    REKEY            {"key", "patient", "shift_s"}  {"size"}                                 a DICOM file
"""

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, BinaryIO

from station.cohorts.hounsfield import read_header, read_slice
from station.cohorts.masks import read_mask
from station.cohorts.pixels import read_radiograph
from station.cohorts.reading import DECODERS
from station.cohorts.rekeying import rekey
from station.cohorts.series import VolumeGrid
from station.cohorts.unusable import Unusable, UnusableImage

MEMORY_BYTES = 4 << 30
MAX_REQUEST_BYTES = 512 << 20
MAX_PARAMETERS_BYTES = 1 << 20
REQUEST_HEAD = struct.Struct(">BI")
LENGTH = struct.Struct(">Q")
RESPONSE_HEAD = struct.Struct(">I")

Answer = tuple[dict[str, Any], bytes]
Doing = Callable[[bytes, dict[str, Any]], Answer]


class Verb(IntEnum):
    """What is asked of the process."""

    RADIOGRAPH = 1
    HEADER = 2
    SLICE = 3
    MASK = 4
    REKEY = 5


def confine() -> None:
    """Give up what decoding does not need. Codecs must be loaded before."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        # What is open stays open; nothing further can be opened.
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(limit, (value, value))


def serve(source: BinaryIO, sink: BinaryIO, alarm_s: int, verbs: Mapping[int, Doing] | None = None) -> None:
    """Answer requests until the source ends; another process than the decoder has verbs of its own."""
    known = _VERBS if verbs is None else verbs
    while head := source.read(REQUEST_HEAD.size):
        verb, length = REQUEST_HEAD.unpack(head)
        if length > MAX_PARAMETERS_BYTES:
            return
        parameters = json.loads(source.read(length))
        (length,) = LENGTH.unpack(source.read(LENGTH.size))
        if length > MAX_REQUEST_BYTES:
            return
        data = source.read(length)
        if len(data) != length:
            return
        # The default action of SIGALRM ends a process that is stuck in native code, even when nobody watches.
        signal.alarm(alarm_s)
        answer, payload = _answer(known[verb], parameters, data)
        signal.alarm(0)
        text = json.dumps(answer).encode()
        sink.write(RESPONSE_HEAD.pack(len(text)) + text)
        sink.write(LENGTH.pack(len(payload)))
        sink.write(payload)
        sink.flush()


def _answer(do: Doing, parameters: dict[str, Any], data: bytes) -> Answer:
    try:
        return do(data, parameters)
    except UnusableImage as finding:
        return {"reason": finding.reason.value}, b""
    except MemoryError:
        return {"reason": Unusable.TOO_LARGE.value}, b""


def _radiograph(data: bytes, _: dict[str, Any]) -> Answer:
    image = read_radiograph(data)
    rows, columns = image.pixels.shape
    head = {"rows": rows, "columns": columns, "spacing_mm": image.spacing_mm, "modality": image.modality[:16]}
    return head, image.pixels.astype("<u2", copy=False).tobytes()


def _header(data: bytes, parameters: dict[str, Any]) -> Answer:
    header = read_header(data, whole=bool(parameters["whole"]))
    return {"header": None if header is None else header.model_dump(mode="json")}, b""


def _slice(data: bytes, _: dict[str, Any]) -> Answer:
    image = read_slice(data)
    return {"header": image.header.model_dump(mode="json")}, image.hounsfield.astype(
        "<i2", copy=False
    ).tobytes()


def _mask(data: bytes, parameters: dict[str, Any]) -> Answer:
    values = {int(source): wanted for source, wanted in parameters["values"].items()}
    grid = VolumeGrid.model_validate_json(json.dumps(parameters["grid"]))
    labels = read_mask(data, parameters["form"], grid, values)
    return {"voxels": labels.size}, labels.tobytes()


def _rekey(data: bytes, parameters: dict[str, Any]) -> Answer:
    key = bytes.fromhex(parameters["key"])
    made = rekey(data, key, parameters["patient"], parameters["shift_s"])
    return {"size": len(made)}, made


_VERBS: Mapping[int, Doing] = {
    Verb.RADIOGRAPH: _radiograph,
    Verb.HEADER: _header,
    Verb.SLICE: _slice,
    Verb.MASK: _mask,
    Verb.REKEY: _rekey,
}


def main() -> None:
    """Load the codecs, confine, serve."""
    from pydicom.pixels import get_decoder  # noqa: PLC0415 - only the real process pays for loading codecs

    warnings.simplefilter("ignore")  # pydicom's quote values
    for syntax in DECODERS:
        with contextlib.suppress(NotImplementedError):
            # Asking whether a decoder is available imports its plugins.
            _ = get_decoder(syntax).is_available
    confine()
    serve(sys.stdin.buffer, sys.stdout.buffer, int(os.environ["PHT_DECODER_ALARM_S"]))


if __name__ == "__main__":
    main()
