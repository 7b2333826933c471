"""The pseudonymisation engine: a DICOM data set in, a `PseudonymisedInstance` out.

Builds a new data set from what may stay; nothing is deleted from a copy, so what no rule lets pass is not there.
Pixel data pass byte for byte and are never decoded: text burned into them is the concern of `pixels`, and what is
claimed of pixels (113101) comes from there. Output text is plain ASCII, so no character set is needed to
read it.

Invariants: the same input, key, project and options give the same bytes; a data set is refused rather than half done;
no error text holds a value of the input; the input is not changed.
"""

from collections.abc import Callable
from dataclasses import InitVar, dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from station.pseudonymisation import attributes_written, text_rules
from station.pseudonymisation.attributes_written import PixelClaims
from station.pseudonymisation.cleaner import Cleaner, Patient
from station.pseudonymisation.encoding import META, Encoding, encode_file
from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.iod import types_for
from station.pseudonymisation.keys import ProjectKeys, PseudonymKey
from station.pseudonymisation.options import DEFAULT_OPTIONS, DeidentificationOptions
from station.pseudonymisation.parsing import base_tag
from station.pseudonymisation.plan import Place
from station.pseudonymisation.private import SafePrivate
from station.pseudonymisation.reading import contain
from station.pseudonymisation.values import ascii_text, element_at, is_uid

Aliases = Callable[[str, str], tuple[str, str]]
_SEAL = object()
# SOP Class, Study Instance, Series Instance, SOP Instance
_PATIENT_ID, _ISSUER_OF_PATIENT_ID = 0x00100020, 0x00100021
_REQUIRED_UIDS = (0x00080016, 0x0020000D, 0x0020000E, 0x00080018)


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
        return contain(lambda: encode_file(self.dataset))


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
        self._statement = attributes_written.Statement(key, options)
        self._private = SafePrivate(options)
        self._plans: dict[str, Place] = {}
        self._default_issuer = default_issuer
        self._options = options
        self._aliases = aliases

    def patient_identity(self, dataset: Dataset) -> tuple[str, str]:
        """Return (issuer, id), the patient key of an instance, as its file has it.

        Raises:
            PseudonymisationError: the instance names no patient.
        """
        patient_id = _decoded(dataset, _PATIENT_ID)
        if not patient_id:
            raise PseudonymisationError(PseudonymisationFault.PATIENT_ID_MISSING)
        issuer = _decoded(dataset, _ISSUER_OF_PATIENT_ID)
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
        sop_class, study_uid, series_uid, sop_uid = (_required_uid(ds, tag) for tag in _REQUIRED_UIDS)
        plan = self._plan(sop_class)
        transfer_syntax = _transfer_syntax(ds)
        issuer, patient_id = self._known_by(*self.patient_identity(ds))
        patient = Patient(
            pseudonym=self._keys.pseudonym(issuer, patient_id),
            shift=self._keys.shift(issuer, patient_id),
            identity=text_rules.IdentityWords.of(ds),
        )
        encoding = _encoding_of(ds, transfer_syntax)
        made = Cleaner(self._keys, patient, encoding, self._private).clean(ds, plan)
        made.update(self._statement.elements(ds, encoding, pixels))
        result = Dataset({base_tag(tag): made[tag] for tag in sorted(made)})
        result.set_original_encoding(encoding.implicit, encoding.little)
        new_uid = self._keys.remap_uid(sop_uid)
        result.file_meta = _file_meta(sop_class, new_uid, transfer_syntax)
        result.preamble = b"\0" * 128
        return PseudonymisedInstance(
            dataset=result,
            patient=patient.pseudonym,
            study_uid=self._keys.remap_uid(study_uid),
            series_uid=self._keys.remap_uid(series_uid),
            sop_instance_uid=new_uid,
            seal=_SEAL,
        )

    def _plan(self, sop_class: str) -> Place:
        plan = self._plans.get(sop_class)
        if plan is None:
            types = types_for(sop_class)
            if types is None:
                raise PseudonymisationError(PseudonymisationFault.SOP_CLASS_UNKNOWN)
            plan = self._plans[sop_class] = Place(types, frozenset(self._options.chosen))
        return plan


def _decoded(dataset: Dataset, tag: int) -> str:
    """Return a text as it is meant, in the character set of the file."""
    plain = ascii_text(element_at(dataset, tag))
    if plain is not None and "\\" not in plain:
        return plain.strip()
    element = dataset.get(base_tag(tag))
    return str(element.value or "").strip() if element is not None else ""


def _required_uid(ds: Dataset, tag: int) -> str:
    uid = ascii_text(element_at(ds, tag))
    if not uid or "\\" in uid:
        raise PseudonymisationError(PseudonymisationFault.UID_MISSING)
    if not is_uid(uid):
        raise PseudonymisationError(PseudonymisationFault.UID_INVALID)
    return uid


def _transfer_syntax(ds: Dataset) -> UID:
    meta = getattr(ds, "file_meta", None)
    uid = UID(str(meta.get("TransferSyntaxUID", "") if meta is not None else ""))
    if not uid.is_transfer_syntax or uid.is_private:
        raise PseudonymisationError(PseudonymisationFault.TRANSFER_SYNTAX_UNKNOWN)
    return uid


def _encoding_of(source: Dataset, transfer_syntax: UID) -> Encoding:
    implicit, little = source.original_encoding
    if implicit is None or little is None:
        return Encoding(transfer_syntax.is_implicit_VR, transfer_syntax.is_little_endian)
    return Encoding(implicit, little)


def _file_meta(sop_class: str, sop_instance_uid: str, transfer_syntax: UID) -> FileMetaDataset:
    made = [
        META.element(0x00020001, "OB", b"\0\1"),
        META.text(0x00020002, "UI", sop_class),
        META.text(0x00020003, "UI", sop_instance_uid),
        META.text(0x00020010, "UI", str(transfer_syntax)),
        META.text(0x00020012, "UI", attributes_written.IMPLEMENTATION_CLASS_UID),
        META.text(0x00020013, "SH", attributes_written.IMPLEMENTATION_VERSION),
    ]
    return FileMetaDataset({element.tag: element for element in made})
