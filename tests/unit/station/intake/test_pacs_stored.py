"""The file that is made of a received data set is DICOM to others, and the data set in it is as it came."""

from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pseudonym_files import CT, DX, identified
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from policies.errors import PhtError
from station.intake.sources.stored import Message, NotUnderstoodError, OtherInstanceError

UIDS = st.from_regex(r"[1-9][0-9]{0,8}(\.(0|[1-9][0-9]{0,8})){1,5}", fullmatch=True)


def encoded(syntax: UID, **elements: object) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(out, identified(**elements))
    return out.getvalue()


@given(UIDS, st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_a_file_reads_back(uid: str, syntax: UID) -> None:
    data = encoded(syntax, SOPInstanceUID=uid)
    message = Message(DX, uid, syntax, data)
    message.check()
    assert message.series() == "1.2.826.0.1.3680043.8.498.111.3"
    file = message.file()
    assert file.endswith(data)
    read = dcmread(BytesIO(file))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert (read.file_meta.MediaStorageSOPClassUID, read.file_meta.MediaStorageSOPInstanceUID) == (DX, uid)
    assert read.file_meta.FileMetaInformationGroupLength == len(file) - len(data) - 132 - 12
    assert read.PatientName == "Testpatient^Eva"
    assert read.PixelData == bytes(range(12))


def test_another_instance_or_none_is_refused() -> None:
    data = encoded(ExplicitVRLittleEndian)
    with pytest.raises(OtherInstanceError):
        Message(DX, "1.2.3", ExplicitVRLittleEndian, data).check()
    with pytest.raises(OtherInstanceError):
        Message(CT, "1.2.826.0.1.3680043.8.498.111.1", ExplicitVRLittleEndian, data).check()
    with pytest.raises(NotUnderstoodError):
        Message(DX, "1.2.3", ExplicitVRLittleEndian, b"").check()


@given(st.binary(max_size=400))
def test_garbage_is_an_error_of_ours_without_a_byte_of_it(data: bytes) -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        message = Message(DX, "1.2.3", syntax, data)
        for look in (message.check, message.series):
            error = fault_of(look)
            assert error is None or (error.__cause__ is None and error.__context__ is None)


def fault_of(look: Callable[[], object]) -> PhtError | None:
    try:
        look()
    except PhtError as error:
        return error
    return None
