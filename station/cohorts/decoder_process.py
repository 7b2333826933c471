"""The process that meets hostile pixels: reads DICOM bytes on stdin, writes grey pixels on stdout, and can do no more.

Native codecs crash, hang and allocate on bad input. Here that costs one image: the process has bounded memory, can
open no file or socket, start no process (as an ordinary user), and dies by its own alarm. It is started by
`station.cohorts.decoding`, which trusts nothing it writes.

    request:   u64 length | DICOM bytes
    response:  u32 length | JSON {"rows", "columns", "spacing_mm", "modality"} or {"reason"} | uint16 pixels, little-endian
"""

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import warnings
from typing import BinaryIO

from station.cohorts.pixels import DECODERS, Unusable, UnusableImage, read_radiograph

MEMORY_BYTES = 4 << 30
MAX_REQUEST_BYTES = 512 << 20
REQUEST_HEAD = struct.Struct(">Q")
RESPONSE_HEAD = struct.Struct(">I")


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


def serve(source: BinaryIO, sink: BinaryIO, alarm_s: int) -> None:
    """Answer requests until the source ends."""
    while head := source.read(REQUEST_HEAD.size):
        (length,) = REQUEST_HEAD.unpack(head)
        if length > MAX_REQUEST_BYTES:
            return
        data = source.read(length)
        if len(data) != length:
            return
        # The default action of SIGALRM ends a process that is stuck in native code, even when nobody watches.
        signal.alarm(alarm_s)
        answer, pixels = _answer(data)
        signal.alarm(0)
        sink.write(RESPONSE_HEAD.pack(len(answer)) + answer)
        sink.write(pixels)
        sink.flush()


def _answer(data: bytes) -> tuple[bytes, bytes]:
    try:
        image = read_radiograph(data)
    except UnusableImage as finding:
        return json.dumps({"reason": finding.reason.value}).encode(), b""
    except MemoryError:
        return json.dumps({"reason": Unusable.TOO_LARGE.value}).encode(), b""
    rows, columns = image.pixels.shape
    head = {"rows": rows, "columns": columns, "spacing_mm": image.spacing_mm, "modality": image.modality[:16]}
    return json.dumps(head).encode(), image.pixels.astype("<u2", copy=False).tobytes()


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
