"""A pseudonymised DICOM file as one train is given it: other UIDs, other dates, the train's name for the patient.

Everything else stays as intake left it; pixels are not touched. Two trains' files of one image share no UID, no
date and no time. What intake keeps beside them (the scanner's make, its settings) and the pixels themselves can link.

This code meets hostile files: it runs in `station.cohorts.decoder_process` only, and is given a key that is of use for
one train alone.
"""

import hashlib
import hmac
import re
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from station.cohorts.reading import DECODERS, found, inflated
from station.cohorts.unusable import Unusable, UnusableImage

_WELL_KNOWN: Final = "1.2.840.10008."
_DATE: Final = re.compile(r"[0-9]{8}")
_TIME: Final = re.compile(r"([0-9]{6})(\.[0-9]{1,6})?")
_MOMENT: Final = re.compile(r"([0-9]{14})(\.[0-9]{1,6})?([+-][0-9]{4})?")
# Names of the patient, the visit and the request that intake keeps as pseudonyms of the project.
_EMPTIED: Final = frozenset({"AccessionNumber", "StudyID"})
_MAX_DEPTH: Final = 16


def rekey(data: bytes, key: bytes, patient: str, shift_s: int) -> bytes:
    """Return the file for one train.

    1. Every UID that is not the standard's own is mapped under `key`, in the file meta too; the same UID always alike.
    2. Dates and times lie `shift_s` earlier, a date with its time as one moment; what is no plain date or time goes.
    3. Patient's Name and ID are `patient`; accession number and study id are empty.

    Args:
        data: the pseudonymised file.
        key: of this train (`CohortKey.uid_key`).
        patient: the train's pseudonym.
        shift_s: the patient's shift in this train, in seconds.

    Raises:
        UnusableImage: the bytes are no DICOM file in a transfer syntax that is decoded.
    """
    with found(Unusable.NOT_DICOM):
        dataset = pydicom.dcmread(BytesIO(inflated(data)))
        if str(dataset.file_meta.TransferSyntaxUID) not in DECODERS:
            raise UnusableImage(Unusable.TRANSFER_SYNTAX)
        _change(dataset, key, timedelta(seconds=shift_s), 0)
        dataset.PatientID = dataset.PatientName = patient
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for element in list(dataset.file_meta):
            if element.keyword in {"SourceApplicationEntityTitle", "PrivateInformation"}:
                del dataset.file_meta[element.tag]
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def map_uid(key: bytes, uid: str) -> str:
    """Return the train's UID for one of the project's; the standard's own stay.

    >>> map_uid(bytes(32), "1.2.840.10008.5.1.4.1.1.2")
    '1.2.840.10008.5.1.4.1.1.2'
    """
    if not uid or uid.startswith(_WELL_KNOWN):
        return uid
    return f"2.25.{int.from_bytes(hmac.digest(key, uid.encode(), hashlib.sha256)[:16], 'big')}"


def _change(dataset: Any, key: bytes, shift: timedelta, depth: int) -> None:  # noqa: ANN401 - pydicom is not typed here
    if depth > _MAX_DEPTH:
        raise UnusableImage(Unusable.NOT_DICOM)
    moments = _moments(dataset, shift)
    for tag in list(dataset.keys()):
        if tag.group == 0x7FE0:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _change(item, key, shift, depth + 1)
        elif element.VR == "UI":
            element.value = _each(element.value, lambda uid: map_uid(key, str(uid)))
        elif element.VR in {"DA", "TM"}:
            element.value = moments.get(tag, "")
        elif element.VR == "DT":
            element.value = _each(element.value, lambda text: _moved_moment(str(text), shift))
        elif element.keyword in _EMPTIED:
            element.value = ""


def _moments(dataset: Any, shift: timedelta) -> dict[BaseTag, str]:  # noqa: ANN401
    """Return the new values of a data set's dates and times: a date and its time move as one."""
    texts = {
        tag: str(dataset[tag].value or "")
        for tag in list(dataset.keys())
        if _vr(dataset, tag) in {"DA", "TM"}
    }
    named = {keyword_for_tag(tag): tag for tag in texts}
    moved: dict[BaseTag, str] = {}
    for tag, text in texts.items():
        keyword = keyword_for_tag(tag)
        if _DATE.fullmatch(text) is None:
            continue
        time_tag = named.get(keyword.removesuffix("Date") + "Time") if keyword.endswith("Date") else None
        match = _TIME.fullmatch(texts[time_tag]) if time_tag is not None else None
        if match is None or time_tag is None:
            moved[tag] = _moved(f"{text}000000", timedelta(days=shift.days))[:8]
            continue
        moment = _moved(text + match[1], shift)
        moved[tag], moved[time_tag] = moment[:8], moment[8:] + (match[2] or "") if moment else ""
    for tag, text in texts.items():
        match = _TIME.fullmatch(text)
        if tag not in moved and match is not None:
            # Without a date of its own it goes around midnight.
            moved[tag] = _moved(f"20000101{match[1]}", shift)[8:] + (match[2] or "")
    return moved


def _vr(dataset: Any, tag: BaseTag) -> str:  # noqa: ANN401
    return "" if tag.group == 0x7FE0 else str(dataset[tag].VR)


def _moved_moment(text: str, shift: timedelta) -> str:
    match = _MOMENT.fullmatch(text)
    moment = _moved(match[1], shift) if match else ""
    return moment + (match[2] or "") + (match[3] or "") if match and moment else ""


def _moved(digits: str, shift: timedelta) -> str:
    """Move ``YYYYMMDDHHMMSS``; empty where that is no moment."""
    parts = (digits[:4], *(digits[at : at + 2] for at in range(4, 14, 2)))
    try:
        # Not strptime: it loads a module when first used, and this process can open no file any more.
        moment = datetime(*map(int, parts)) - shift  # type: ignore[arg-type]  # noqa: DTZ001 - local, as the file says
    except (ValueError, OverflowError):
        return ""
    return f"{moment.year:04}{moment:%m%d%H%M%S}"


def _each(value: Any, change: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, str):
        return change(value) if value else value
    return [change(each) for each in value]
