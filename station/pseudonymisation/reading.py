"""Reading and writing untrusted DICOM with pydicom, quietly.

pydicom raises many kinds of errors on bad files, and its warnings and log lines quote values. Here every such error
becomes a `PseudonymisationError` with a code, not chained, and nothing is said. Process-wide: `quiet_pydicom` is for
the edge of a process that reads identified files.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault

FAULTS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError, MemoryError,
    NotImplementedError, OSError, RecursionError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom raises on files that are not what they should be; found by fuzzing, see the tests."""


@contextmanager
def contained() -> Iterator[None]:
    """Turn pydicom's errors into ours, without a word of theirs: they quote values.

    Raises:
        PseudonymisationError: of fault `unreadable`.
    """
    fault: PseudonymisationError | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except PseudonymisationError:
            raise
        except FAULTS:
            fault = PseudonymisationError(PseudonymisationFault.UNREADABLE)
    if fault is not None:
        raise fault


def read_dicom(data: bytes) -> Dataset:
    """Read a DICOM file from memory.

    Raises:
        PseudonymisationError: `not-dicom` without the DICM prefix, else `unreadable`.
    """
    if data[128:132] != b"DICM":
        raise PseudonymisationError(PseudonymisationFault.NOT_DICOM)
    with contained():
        dataset: Dataset = dcmread(BytesIO(data))
        return dataset


def quiet_pydicom() -> None:
    """Silence pydicom for this process: its log lines and warnings quote the values of files."""
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    config.settings.reading_validation_mode = config.IGNORE
