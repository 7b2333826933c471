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
from io import BytesIO
from typing import BinaryIO, TypeVar, cast

from pydicom import config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault

_T = TypeVar("_T")
_UNDEFINED_LENGTH = 0xFFFFFFFF

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
    dataset = cast("Dataset", dcmread(BytesIO(data)))
    # A Dataset iterates over elements, which converts them; the raw ones are looked at by tag.
    if any(_is_cut(dataset.get_item(tag)) for tag in dataset.keys()):  # noqa: SIM118
        raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
    return dataset


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
