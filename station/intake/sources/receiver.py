"""The C-STORE receiver: what modalities and the PACS send goes durably into the spool before it is acknowledged.

Who may send is decided by the pair (calling AE title, called AE title); with TLS the sender shows a certificate too.

Invariants: status 0000 is answered after the instance is durable; data sets are stored as they came, not decoded; nothing of a
data set, no AE title and no UID is logged.
"""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from policies.errors import UnavailableError
from station.intake.sources.network import BoundedServer, Bounds, TlsFiles, quiet_pynetdicom
from station.intake.sources.reception import Cut, Reception, Routes, Sink, StoreStatus
from station.intake.sources.sop_classes import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    receiver_contexts,
)
from station.settings.dicom import ReceiverSettings

LOG = logging.getLogger("station.intake.sources")

_PERMANENT, _SERVICE_USER = 0x01, 0x01
_CALLING_UNKNOWN, _CALLED_UNKNOWN = 0x03, 0x07
_LOOK_S = 0.5
_END_S = 5.0
_NEGOTIATION_S = 30


class Receiver:
    """Listens until it is stopped; use it as a context manager or call `start` and `stop`.

    Args:
        settings: the section of station.toml.
        tls: the files of the TLS side; None for plain DICOM.
        folder: intake's spool.
        sop_classes: the images that are taken.
        routes: who may send what where.
        sink: takes what has been received.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        tls: TlsFiles | None,
        folder: Path,
        sop_classes: Sequence[str],
        routes: Routes,
        sink: Sink,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._folder = folder
        self._sop_classes = sop_classes
        self._routes = routes
        self._sink = sink
        self._cut = Cut(settings.batch_instances, settings.batch_seconds)
        self._receptions: dict[Association, Reception] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: BoundedServer | None = None
        self._sweeper = threading.Thread(target=self._sweep, name="dicom-sweeper", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise UnavailableError("the DICOM receiver is not running")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen.

        Raises:
            UnavailableError: the address cannot be listened on.
            StateError: a file of the TLS side cannot be used.
        """
        quiet_pynetdicom()
        settings = self._settings
        entity = AE(ae_title="PHT-STATION")
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = settings.max_pdu_bytes
        entity.acse_timeout = min(_NEGOTIATION_S, settings.timeout_s)
        entity.dimse_timeout = entity.network_timeout = settings.timeout_s
        bounds = Bounds(settings.max_pdu_bytes, settings.max_instance_mib << 20, settings.timeout_s)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._store), (evt.EVT_RELEASED, self._ended),
            (evt.EVT_ABORTED, self._ended), (evt.EVT_CONN_CLOSE, self._ended),
        ]  # fmt: skip
        try:
            server = BoundedServer(
                entity,
                (settings.address, settings.port),
                entity.ae_title,
                receiver_contexts(self._sop_classes),
                self._tls.server() if self._tls else None,
                evt_handlers=handlers,
                bounds=bounds,
            )
        except OSError as error:
            raise UnavailableError(
                f"the DICOM receiver cannot listen on port {settings.port} ({error.strerror})",
                hint="Correct [receiver] in station.toml, or free the port.",
            ) from error
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), name="dicom-server", daemon=True).start()
        self._sweeper.start()

    def stop(self) -> None:
        """Take no more, end what is under way, and pass on what was acknowledged."""
        self._stopping.set()
        if self._server is None:
            return
        self._server.close_down()
        with self._lock:
            associations = list(self._receptions)
        for association in associations:
            association.abort()
        for association in associations:
            association.join(_END_S)
        with self._lock:
            left = list(self._receptions.values())
        for reception in left:
            reception.end()
        self._sweeper.join()

    def _requested(self, event: Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        if request is None:
            return
        calling, called = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
        route = None if self._stopping.is_set() else self._routes.route(calling, called)
        if route is None:
            reason = _CALLED_UNKNOWN if self._routes.knows(calling) else _CALLING_UNKNOWN
            LOG.warning("dicom-association-refused", extra={"code": reason})
            association.acse.send_reject(_PERMANENT, _SERVICE_USER, reason)
            association.kill()
            return
        with self._lock:
            self._receptions[association] = Reception(self._folder, route, self._sink, self._cut)

    def _store(self, event: Event) -> int:
        with self._lock:
            reception = self._receptions.get(event.assoc)
        return reception.answer(event) if reception is not None else StoreStatus.OUT_OF_RESOURCES

    def _ended(self, event: Event) -> None:
        self._forget(event.assoc)

    def _forget(self, association: Association) -> None:
        with self._lock:
            reception = self._receptions.pop(association, None)
        if reception is not None:
            reception.end()

    def _sweep(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            now = time.monotonic()
            with self._lock:
                receptions = dict(self._receptions)
            for association, reception in receptions.items():
                reception.cut_if_old(now)
                # One whose thread has not begun yet is no dead one.
                if association.ident is not None and not association.is_alive():
                    self._forget(association)
