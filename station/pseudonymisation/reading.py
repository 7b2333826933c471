"""Reading and writing untrusted DICOM with pydicom, quietly.

pydicom raises many kinds of errors on bad files, and its warnings and log lines quote values. Here every such error
becomes a `PseudonymisationError` with a code, not chained, and nothing is said. Process-wide: `quiet_pydicom` is for
the edge of a process that reads identified files.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO, TypeVar, cast

from pydicom import config, dcmread
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.parsing import OddFileError, base_tag, inflate, parse_elements

_T = TypeVar("_T")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PREAMBLE_BYTES = 132
_FILE_META_GROUP = 0x0002
_TRANSFER_SYNTAX = 0x00020010
_CHARACTER_SET = 0x00080005

FAULTS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError, MemoryError,
    NotImplementedError, OSError, RecursionError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises on files that are not what they should be; found by fuzzing, see the tests."""


def contain(action: Callable[[], _T]) -> _T:
    """Run something that lets pydicom read or write, and turn its errors into ours, without a word of theirs.

    Raises:
        PseudonymisationError: of fault `unreadable`, neither caused by nor in the context of another error.
    """
    logger = logging.getLogger("pydicom")
    spoke = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    except PseudonymisationError as error:
        fault = error.fault
    except FAULTS:
        fault = PseudonymisationFault.UNREADABLE
    finally:
        logger.disabled = spoke
    # Outside the handlers, so that no error of pydicom's hangs on this one.
    raise PseudonymisationError(fault)


def read_dicom(data: bytes) -> Dataset:
    """Read a DICOM file from memory.

    Raises:
        PseudonymisationError: `not-dicom` without the DICM prefix, else `unreadable`; a file that was cut short is.
    """
    if data[128:132] != b"DICM":
        raise PseudonymisationError(PseudonymisationFault.NOT_DICOM)
    return contain(lambda: _read_whole(data))


def _read_whole(data: bytes) -> Dataset:
    try:
        return _parsed(data)
    except OddFileError:
        pass
    dataset = cast("Dataset", dcmread(BytesIO(data)))
    # A Dataset iterates over elements, which converts them; the raw ones are looked at by tag.
    if any(_is_cut(dataset.get_item(tag)) for tag in dataset.keys()):  # noqa: SIM118
        raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
    return dataset


def _parsed(data: bytes) -> Dataset:
    """Read a file that is just as the standard says.

    Raises:
        OddFileError: it is not.
    """
    meta, at = parse_elements(data, _PREAMBLE_BYTES, implicit=False, stop_group=2)
    syntax = meta.get(_TRANSFER_SYNTAX)
    uid = UID((syntax.value or b"").rstrip(b" \0").decode("ascii")) if syntax is not None else UID("")
    if not uid.is_transfer_syntax or uid.is_private or not uid.is_little_endian:
        raise OddFileError
    if uid == DeflatedExplicitVRLittleEndian:
        data, at = inflate(data[at:]), 0
    elements, _ = parse_elements(data, at, implicit=uid.is_implicit_VR)
    if any(tag >> 16 == _FILE_META_GROUP for tag in elements):
        raise OddFileError
    dataset = Dataset({base_tag(tag): element for tag, element in elements.items()})
    dataset.set_original_encoding(uid.is_implicit_VR, True, _character_set(elements.get(_CHARACTER_SET)))
    dataset.file_meta = FileMetaDataset({base_tag(tag): element for tag, element in meta.items()})
    dataset.preamble = data[:128]
    return dataset


def _character_set(element: RawDataElement | None) -> list[str]:
    value = (element.value or b"") if element is not None else b""
    return list(_encodings(value.decode("ascii").strip(" \0")))


@lru_cache(maxsize=256)
def _encodings(text: str) -> tuple[str, ...]:
    return tuple(convert_encodings(text.split("\\")))


def _is_cut(element: object) -> bool:
    """Whether the file ended inside this element: pydicom takes what is there and says nothing."""
    return (
        isinstance(element, RawDataElement)
        and element.value is not None
        and element.length != _UNDEFINED_LENGTH
        and len(element.value) != element.length
    )


def read_header(file: BinaryIO, keywords: tuple[str, ...]) -> Dataset:
    """Read some attributes of a DICOM file, and not its pixels.

    Raises:
        PseudonymisationError: as `read_dicom`.
    """
    prefix = file.read(132)
    if prefix[128:] != b"DICM":
        raise PseudonymisationError(PseudonymisationFault.NOT_DICOM)
    file.seek(0)
    return contain(
        lambda: cast("Dataset", dcmread(file, stop_before_pixels=True, specific_tags=list(keywords)))
    )


def quiet_pydicom() -> None:
    """Silence pydicom for this process: its log lines and warnings quote the values of files."""
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    config.settings.reading_validation_mode = config.IGNORE
