"""The process that reads: loads libtesseract once and answers one picture after the other on stdin and stdout.

Run as a script, by path and isolated: it imports nothing but Python's own library, and nothing of ours. It is told nothing but
pixels, keeps nothing of a picture once it has answered, and ends when its stdin does. Loading the language costs more than
reading a film: a process per picture would spend most of its time on that.

Asked: mode (1 byte), rows and columns (4 bytes each), rows * columns grey values. Answered: length (4 bytes), TSV as
`TessBaseAPIGetTsvText` writes it; `FAILED` instead of a length where it could not read. Once at the start: `READY`.
All numbers are little-endian.
"""

import ctypes
import resource
import struct
import sys
from typing import BinaryIO

REQUEST = struct.Struct("<BII")
ANSWER = struct.Struct("<I")
READY, FAILED = 0xFFFFFFFE, 0xFFFFFFFF
LARGEST_PICTURE = 1 << 28
MEMORY_BYTES = 2 << 30
LANGUAGE = b"eng"


def main() -> int:
    """Serve until stdin ends; the library's name is the only argument."""
    _, ours = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if ours == resource.RLIM_INFINITY else min(ours, MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    library = _library(sys.argv[1])
    handle = library.TessBaseAPICreate()
    if not handle or library.TessBaseAPIInit3(handle, None, LANGUAGE) != 0:
        return 1
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(ANSWER.pack(READY))
    answers.flush()
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        mode, rows, columns = REQUEST.unpack(head)
        if not 0 < rows * columns <= LARGEST_PICTURE:
            return 1
        picture = requests.read(rows * columns)
        if len(picture) != rows * columns:
            return 1
        _answer(answers, _read(library, handle, mode, picture, rows, columns))
    return 0


def _read(
    library: ctypes.CDLL, handle: int, mode: int, picture: bytes, rows: int, columns: int
) -> bytes | None:
    library.TessBaseAPISetPageSegMode(handle, mode)
    library.TessBaseAPISetImage(handle, picture, columns, rows, 1, columns)
    text = None
    if library.TessBaseAPIRecognize(handle, None) == 0:
        found = library.TessBaseAPIGetTsvText(handle, 0)
        if found:
            text = ctypes.string_at(found)
            library.TessDeleteText(found)
    # What one picture taught it must not help to read another.
    library.TessBaseAPIClearAdaptiveClassifier(handle)
    library.TessBaseAPIClear(handle)
    return text


def _answer(answers: BinaryIO, text: bytes | None) -> None:
    answers.write(ANSWER.pack(FAILED if text is None else len(text)))
    answers.write(text or b"")
    answers.flush()


def _library(name: str) -> ctypes.CDLL:
    """Load libtesseract and say what its functions take (tesseract 5, include/tesseract/capi.h)."""
    library = ctypes.CDLL(name)
    handle, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[list[type], type | None]] = {
        "TessBaseAPICreate": ([], handle),
        "TessBaseAPIInit3": ([handle, text, text], number),
        "TessBaseAPISetPageSegMode": ([handle, number], None),
        "TessBaseAPISetImage": ([handle, text, number, number, number, number], None),
        "TessBaseAPIRecognize": ([handle, handle], number),
        "TessBaseAPIGetTsvText": ([handle, number], handle),
        "TessDeleteText": ([handle], None),
        "TessBaseAPIClearAdaptiveClassifier": ([handle], None),
        "TessBaseAPIClear": ([handle], None),
    }
    for name_, (takes, gives) in signatures.items():
        function = getattr(library, name_)
        function.argtypes, function.restype = takes, gives
    return library


if __name__ == "__main__":
    sys.exit(main())
