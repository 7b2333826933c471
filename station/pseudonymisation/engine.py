"""The pseudonymisation engine: a DICOM data set in, a `PseudonymisedInstance` out.

Builds a new data set from what may stay; nothing is deleted from a copy, so what no rule lets pass is not there.
Pixel data pass byte for byte and are never decoded: text burned into them is not this module's concern, and 113101
(Clean Pixel Data) is never claimed. Output text is plain ASCII, so no character set is needed to read it.

Invariants: the same input, key and project give the same bytes; a data set is refused rather than half done; no
error text holds a value of the input.
"""

import re
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID

from station.pseudonymisation import attributes_written, text_rules
from station.pseudonymisation.attributes_written import PixelClaims
from station.pseudonymisation.dates import Shift, shift_date, shift_datetime, shift_time
from station.pseudonymisation.dummies import dummy_sequence, dummy_value
from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.iod import AttributeTypes, Path_, types_for
from station.pseudonymisation.keys import ProjectKeys, PseudonymKey
from station.pseudonymisation.options import DEFAULT_OPTIONS, DeidentificationOptions
from station.pseudonymisation.reading import contain
from station.pseudonymisation.rules import Op, rule_for

Aliases = Callable[[str, str], tuple[str, str]]
MAX_DEPTH = 32
CODING_SCHEME_DESIGNATOR = 0x00080102
_Element = DataElement | RawDataElement
_SEAL = object()
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+")
_MAX_UID_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class PseudonymisedInstance:
    """An instance that went through the engine; only the engine can make one.

    Attributes:
        dataset: the pseudonymised data set with its file meta information.
        patient: the patient's pseudonym.
        study_uid: the remapped Study Instance UID; series and SOP instance likewise.
    """

    dataset: Dataset
    patient: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a PseudonymisedInstance is made by the pseudonymisation engine only")

    def encode(self) -> bytes:
        """Return the DICOM file: zero preamble, new file meta information, the data set.

        Raises:
            PseudonymisationError: what was read cannot be written, so it was not what it said.
        """
        buffer = BytesIO()
        contain(lambda: dcmwrite(buffer, self.dataset, enforce_file_format=True))
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Patient:
    pseudonym: str
    shift: Shift
    identity: text_rules.IdentityWords


class Pseudonymiser:
    """Pseudonymises instances for one project with the hospital's key.

    Args:
        key: the hospital's key.
        project: pseudonyms of one project do not link to another's.
        default_issuer: the issuer of patient ids that come without one.
        options: what the collection chose beside the Basic Profile.
        aliases: says for (issuer, id) which (issuer, id) it is known by since a merge, so that a merged patient has
            one pseudonym and one shift; itself where there was no merge.
    """

    def __init__(
        self,
        key: PseudonymKey,
        project: str,
        default_issuer: str = "",
        options: DeidentificationOptions = DEFAULT_OPTIONS,
        *,
        aliases: Aliases | None = None,
    ) -> None:
        self._keys: ProjectKeys = key.for_project(project)
        self._method = attributes_written.method_text(key, options)
        self._default_issuer = default_issuer
        self._options = options
        self._aliases = aliases

    def patient_identity(self, dataset: Dataset) -> tuple[str, str]:
        """Return (issuer, id), the patient key of an instance.

        Raises:
            PseudonymisationError: the instance names no patient.
        """
        patient_id = str(dataset.get("PatientID") or "").strip()
        if not patient_id:
            raise PseudonymisationError(PseudonymisationFault.PATIENT_ID_MISSING)
        issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
        return issuer or self._default_issuer, patient_id

    def pseudonym(self, issuer: str, patient_id: str) -> str:
        """Return a patient's pseudonym, for data that does not come as DICOM."""
        return self._keys.pseudonym(*self._known_by(issuer, patient_id))

    def remap_uid(self, uid: str) -> str:
        """Return what a UID becomes."""
        return self._keys.remap_uid(uid)

    def _known_by(self, issuer: str, patient_id: str) -> tuple[str, str]:
        return (issuer, patient_id) if self._aliases is None else self._aliases(issuer, patient_id)

    def pseudonymise(self, ds: Dataset, pixels: PixelClaims | None = None) -> PseudonymisedInstance:
        """Pseudonymise one instance; the input is not changed.

        Args:
            ds: the instance as read.
            pixels: what the inspection of its pixels found; its data set is taken instead of `ds`. Without it
                nothing is claimed of the pixels.

        1. The patient, the UIDs, the SOP Class and the transfer syntax must be there and known.
        2. Every element is judged by its rule, items of kept sequences likewise (PS3.15 E.1.1, E.2, E.3.6).
        3. The de-identification attributes are written, and the file meta information anew.

        Raises:
            PseudonymisationError: with the reason's code.
        """
        return contain(lambda: self._pseudonymise(ds if pixels is None else pixels.dataset, pixels))

    def _pseudonymise(self, ds: Dataset, pixels: PixelClaims | None) -> PseudonymisedInstance:
        sop_class, study_uid, series_uid, sop_uid = (
            _required_uid(ds, word)
            for word in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        )
        types = types_for(sop_class)
        if types is None:
            raise PseudonymisationError(PseudonymisationFault.SOP_CLASS_UNKNOWN)
        transfer_syntax = _transfer_syntax(ds)
        issuer, patient_id = self._known_by(*self.patient_identity(ds))
        patient = _Patient(
            pseudonym=self._keys.pseudonym(issuer, patient_id),
            shift=self._keys.shift(issuer, patient_id),
            identity=text_rules.IdentityWords.of(ds),
        )
        result = _Cleaner(self._keys, patient, types).clean(ds)
        attributes_written.write(result, ds, self._method, self._options, pixels)
        result.file_meta = _file_meta(sop_class, self._keys.remap_uid(sop_uid), transfer_syntax)
        result.preamble = b"\0" * 128
        _take_encoding(result, ds, transfer_syntax)
        return PseudonymisedInstance(
            dataset=result,
            patient=patient.pseudonym,
            study_uid=self._keys.remap_uid(study_uid),
            series_uid=self._keys.remap_uid(series_uid),
            sop_instance_uid=self._keys.remap_uid(sop_uid),
            seal=_SEAL,
        )


class _Cleaner:
    """Applies the rules to one instance, item by item."""

    def __init__(self, keys: ProjectKeys, patient: _Patient, types: AttributeTypes) -> None:
        self._keys = keys
        self._patient = patient
        self._types = types

    def clean(self, source: Dataset, path: Path_ = ()) -> Dataset:
        if len(path) > MAX_DEPTH:
            raise PseudonymisationError(PseudonymisationFault.NESTED_TOO_DEEP)
        result = Dataset()
        for tag in sorted(source.keys()):
            element = _element(source, tag)
            if element is None:
                continue
            vr = _vr_of(tag, element)
            keyword = _keyword(tag)
            rule = rule_for(int(tag), vr, self._types.lookup(path, keyword), nested=bool(path))
            if rule.op is Op.REMOVE:
                continue
            if isinstance(element, RawDataElement) and (vr == "SQ" or element.VR == "UN"):
                element = source[tag]
            place = (*path, keyword)
            made = self._apply(rule.op, element, vr, source, place)
            if made is None:
                made = self._apply(rule.fallback, element, vr, source, place)
            if made is not None:
                result[tag] = made
        _take_encoding_of_item(result, source)
        return result

    def _apply(self, op: Op, element: _Element, vr: str, source: Dataset, path: Path_) -> _Element | None:
        """Do one operation; None where it cannot be done on this value, or leaves nothing."""
        tag = element.tag
        match op:
            case Op.REMOVE:
                return None
            case Op.KEEP:
                return element
            case Op.EMPTY:
                return DataElement(tag, vr, [] if vr == "SQ" else None)
            case Op.DUMMY:
                return self._dummy(element, vr, path)
            case Op.CLEAN_ITEMS:
                return self._items(element, path)
            case Op.PATIENT_ID | Op.PATIENT_NAME:
                return DataElement(tag, vr, self._patient.pseudonym)
            case Op.REMAP_UID | Op.SHIFT | Op.KEEP_FORMED | Op.KEEP_TEXT | Op.KEEP_CODE_MEANING:
                text = _text(element)
                new = self._text(op, int(tag), vr, text, source) if text is not None else None
                return None if new is None else _plain(tag, vr, new)

    def _text(self, op: Op, tag: int, vr: str, text: str, source: Dataset) -> str | None:
        values = [value.strip(" \0") for value in text.split("\\")] if text.strip(" \0") else []
        if not values:
            return ""
        match op:
            case Op.REMAP_UID:
                return "\\".join(self._keys.remap_uid(value) if value else "" for value in values)
            case Op.SHIFT:
                return self._shifted(tag, vr, values, source)
            case Op.KEEP_FORMED:
                return text_rules.formed(vr, values)
            case Op.KEEP_CODE_MEANING:
                scheme = _text(_element(source, CODING_SCHEME_DESIGNATOR))
                if scheme is None or not text_rules.is_public_scheme(scheme):
                    return None
        return text_rules.kept(vr, values, self._patient.identity)

    def _shifted(self, tag: int, vr: str, values: list[str], source: Dataset) -> str | None:
        shift = self._patient.shift
        partner = text_rules.time_beside(tag) if vr == "DA" else None
        times = (_text(_element(source, partner)) or "").split("\\") if partner is not None else []
        new: list[str] = []
        for index, value in enumerate(values):
            match vr:
                case "DA":
                    moved = shift_date(value, shift, times[index] if index < len(times) else None)
                case "TM":
                    moved = shift_time(value, shift)
                case _:
                    moved = shift_datetime(value, shift)
            if moved is None and value:
                return None
            new.append(moved or "")
        return "\\".join(new)

    def _dummy(self, element: _Element, vr: str, path: Path_) -> DataElement:
        if vr == "SQ":
            return DataElement(element.tag, vr, dummy_sequence(self._types, path))
        if vr == "UI":
            return DataElement(element.tag, vr, self._keys.remap_uid(_text(element) or ""))
        registered = dictionary_VR(element.tag)
        vr = vr if vr in registered.split(" or ") else registered.split(" or ")[0]
        return DataElement(element.tag, vr, dummy_value(vr))

    def _items(self, element: _Element, path: Path_) -> DataElement | None:
        if not isinstance(element.value, Sequence):
            return None
        return DataElement(element.tag, "SQ", Sequence([self.clean(item, path) for item in element.value]))


def _element(source: Dataset, tag: int) -> _Element | None:
    # pydicom's stubs know one of the two kinds only.
    return cast("_Element | None", source.get_item(tag))


def _plain(tag: Any, vr: str, text: str) -> DataElement:  # noqa: ANN401 - pydicom's BaseTag
    value: object = text.split("\\") if "\\" in text else text
    return DataElement(tag, vr, value or None, validation_mode=config.IGNORE)


def _vr_of(tag: int, element: _Element) -> str:
    """Return the element's VR; the dictionary's where the file names none or says UN."""
    if element.VR and element.VR != "UN":
        return str(element.VR)
    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else "UN"


def _text(element: _Element | None) -> str | None:
    """Return a text value as ASCII; None where it is not text, not ASCII, or holds a control character."""
    if element is None or element.value is None:
        return None if element is None else ""
    if isinstance(element, RawDataElement):
        value = element.value
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else ""
    elif isinstance(element.value, MultiValue | list | tuple):
        text = "\\".join(str(value) for value in element.value)
    elif isinstance(element.value, bytes):
        return None
    else:
        text = str(element.value)
    return text if all(" " <= character <= "~" for character in text.rstrip("\0")) else None


@lru_cache(maxsize=8192)
def _keyword(tag: int) -> str:
    return str(dictionary_keyword(tag)) if dictionary_has_tag(tag) else f"{tag:08x}"


def _required_uid(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    if not value or isinstance(value, MultiValue):
        raise PseudonymisationError(PseudonymisationFault.UID_MISSING)
    uid = str(value).strip(" \0")
    if len(uid) > _MAX_UID_CHARACTERS or not _UID.fullmatch(uid):
        raise PseudonymisationError(PseudonymisationFault.UID_INVALID)
    return uid


def _transfer_syntax(ds: Dataset) -> UID:
    meta = getattr(ds, "file_meta", None)
    uid = UID(str(meta.get("TransferSyntaxUID", "") if meta is not None else ""))
    if not uid.is_transfer_syntax or uid.is_private:
        raise PseudonymisationError(PseudonymisationFault.TRANSFER_SYNTAX_UNKNOWN)
    return uid


def _file_meta(sop_class: str, sop_instance_uid: str, transfer_syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = UID(attributes_written.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = attributes_written.IMPLEMENTATION_VERSION
    return meta


def _take_encoding(result: Dataset, source: Dataset, transfer_syntax: UID) -> None:
    implicit, little = source.original_encoding
    if implicit is None or little is None:
        implicit, little = transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian
    result.set_original_encoding(implicit, little)


def _take_encoding_of_item(result: Dataset, source: Dataset) -> None:
    # Raw elements are written as they are only where the encoding is known to be the same.
    implicit, little = source.original_encoding
    if implicit is not None and little is not None:
        result.set_original_encoding(implicit, little)
