"""An association with a PACS as a requestor: verify, find, move, get.

Invariants: an answer counts only when the PACS said in the end that it was whole; what a PACS may make us hold is bounded;
every failure is a `PacsFault`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from station.intake.sources.network import BoundedEntity, Bounds, TlsFiles, quiet_pynetdicom
from station.intake.sources.pacs_faults import PacsError, PacsFault, fault_of_status
from station.intake.sources.sop_classes import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    get_contexts,
    query_contexts,
)
from station.settings.dicom import PacsSettings

MAX_ANSWERS = 50_000
_PDU_BYTES = 131_072
_INSTANCE_BYTES = 256 << 20
_PENDING = {0xFF00, 0xFF01}
_SUCCESS = 0x0000
_SOME_FAILED = 0xB000


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a C-MOVE or C-GET ended.

    Attributes:
        failed: sub-operations that the PACS counts as failed.
    """

    failed: int


class PacsAssociation:
    """An established association; made by `PacsClient` only."""

    def __init__(self, association: Association) -> None:
        self._association = association

    @property
    def alive(self) -> bool:
        """Whether it is still established."""
        return self._association.is_established

    def echo(self) -> None:
        """Verify (C-ECHO).

        Raises:
            PacsError: it did not answer with success.
        """
        status = self._ask(self._association.send_c_echo)
        if _status(status) != _SUCCESS:
            raise PacsError(PacsFault.FAILED)

    def find(self, identifier: Dataset) -> list[Dataset]:
        """Return every answer to a query (C-FIND, study root).

        Raises:
            PacsError: the answer is not whole, cannot be read, or too long.
        """
        answers: list[Dataset] = []
        responses = self._ask(lambda: self._association.send_c_find(identifier, STUDY_ROOT_FIND))
        for response, answer in responses:
            status = _status(response)
            if status in _PENDING:
                if answer is None:
                    self._association.abort()
                    raise PacsError(PacsFault.ANSWER_UNUSABLE)
                if len(answers) >= MAX_ANSWERS:
                    self._association.abort()
                    raise PacsError(PacsFault.TOO_MANY_ANSWERS)
                answers.append(answer)
            elif status != _SUCCESS:
                raise PacsError(fault_of_status(status))
            else:
                return answers
        raise PacsError(PacsFault.LOST)

    def move(self, identifier: Dataset, destination: str) -> Transfer:
        """Have the PACS send to one of our AE titles (C-MOVE); returns when it says that it has.

        Raises:
            PacsError: it refused, or the association was lost.
        """
        return self._transferred(
            self._ask(lambda: self._association.send_c_move(identifier, destination, STUDY_ROOT_MOVE))
        )

    def get(self, identifier: Dataset) -> Transfer:
        """Have the PACS send over this association (C-GET); what comes was given to the client's `store`.

        Raises:
            PacsError: as `move`.
        """
        return self._transferred(self._ask(lambda: self._association.send_c_get(identifier, STUDY_ROOT_GET)))

    def _transferred(self, responses: Any) -> Transfer:  # noqa: ANN401 - pynetdicom's iterator
        for response, _ in responses:
            status = _status(response)
            if status in _PENDING:
                continue
            if status in {_SUCCESS, _SOME_FAILED}:
                return Transfer(int(response.get("NumberOfFailedSuboperations") or 0))
            raise PacsError(fault_of_status(status))
        raise PacsError(PacsFault.LOST)

    @staticmethod
    def _ask(request: Callable[[], Any]) -> Any:  # noqa: ANN401 - pynetdicom's answers
        try:
            return request()
        except RuntimeError:
            fault = PacsFault.LOST
        except ValueError:
            # No presentation context for it was accepted.
            fault = PacsFault.NOT_OFFERED
        # Outside the handlers: pynetdicom's text names the SOP Class and the peer.
        raise PacsError(fault)


class PacsClient:
    """Makes associations with one PACS.

    Args:
        settings: the section of station.toml.
        tls: our side's files; None for plain DICOM.
        sop_classes: the images that C-GET may bring.
    """

    def __init__(self, settings: PacsSettings, tls: TlsFiles | None, sop_classes: Sequence[str]) -> None:
        quiet_pynetdicom()
        self._settings = settings
        self._tls = tls
        self.sop_classes = tuple(sop_classes)

    @contextmanager
    def asking(self) -> Iterator[PacsAssociation]:
        """Associate to verify, find and move; released in the end.

        Raises:
            PacsError: there is no association to be had.
        """
        entity = self._entity()
        entity.requested_contexts = query_contexts()
        with self._associated(entity, [], []) as association:
            yield association

    @contextmanager
    def getting(self, store: Callable[[Event], int]) -> Iterator[PacsAssociation]:
        """Associate to find and get; `store` answers each C-STORE with a status.

        Raises:
            PacsError: as `asking`.
        """
        entity = self._entity()
        contexts, roles = get_contexts(self.sop_classes)
        entity.requested_contexts = contexts
        with self._associated(entity, roles, [(evt.EVT_C_STORE, store)]) as association:
            yield association

    def _entity(self) -> BoundedEntity:
        entity = BoundedEntity(ae_title=self._settings.calling_ae_title)
        entity.bounds = Bounds(_PDU_BYTES, _INSTANCE_BYTES, self._settings.timeout_s, messages=MAX_ANSWERS)
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION
        entity.maximum_pdu_size = _PDU_BYTES
        entity.connection_timeout = entity.acse_timeout = min(30, self._settings.timeout_s)
        entity.dimse_timeout = entity.network_timeout = self._settings.timeout_s
        return entity

    @contextmanager
    def _associated(
        self, entity: BoundedEntity, roles: Sequence[Any], handlers: Sequence[Any]
    ) -> Iterator[PacsAssociation]:
        settings = self._settings
        tls = (self._tls.client(), settings.host) if self._tls else None
        try:
            association = entity.associate(
                settings.host,
                settings.port,
                ae_title=settings.ae_title,
                max_pdu=_PDU_BYTES,
                ext_neg=list(roles),
                evt_handlers=list(handlers),
                tls_args=tls,
            )
        except OSError:
            # The name does not resolve.
            association = None
        if association is None or not association.is_established:
            rejected = association is not None and association.is_rejected
            raise PacsError(PacsFault.REJECTED if rejected else PacsFault.UNREACHABLE)
        try:
            yield PacsAssociation(association)
        finally:
            if association.is_established:
                association.release()


def _status(response: Dataset | None) -> int:
    """Return a response's status.

    Raises:
        PacsError: there is none: the PACS was silent too long, or ended the association.
    """
    if response is None or "Status" not in response:
        raise PacsError(PacsFault.LOST)
    return int(response.Status)
