"""pynetdicom for a hospital's network: TLS on both sides, bounds on what a peer may send, and silence in the logs.

What of pynetdicom is not its public surface is used here and nowhere else (pinned to 3.0.4): the server's threads, the socket's
reading, and the hand-over of a whole message.

Invariants: a TLS handshake never holds up other senders; a PDU, a message, and the time they take are bounded; nothing that
pynetdicom says reaches a log, for it quotes identifiers.
"""

import logging
import queue
import select
import socket
import ssl
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider, _QueueItem
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from policies.errors import StateError
from station.pseudonymisation.reading import FAULTS

LOG = logging.getLogger("station.intake.sources")

# Forward secrecy and authenticated encryption only (RFC 9325); TLS 1.3's own suites are all of that kind.
TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
_PDU_SLACK_BYTES = 256 << 10
"""An A-ASSOCIATE-RQ of 128 contexts is longer than a small maximum PDU."""
_HANDSHAKES = 32
_SELECT_S = 0.002
"""How long what other threads want to send may wait for the peer's next byte."""


def quiet_pynetdicom() -> None:
    """Silence pynetdicom for this process: its log lines quote AE titles, identifiers and UIDs."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one party: the authority of its peers, its own chain and key."""

    authority: Path
    certificate: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        """Return a context that asks every client for a certificate of the authority.

        Raises:
            StateError: a file is missing, not what it must be, or the key is readable by others.
        """
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client(self) -> ssl.SSLContext:
        """Return a context that checks the server's certificate and name, and shows our own.

        Raises:
            StateError: as `server`.
        """
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers(TLS_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            if self.key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StateError(
                    "DICOM TLS: others may read the private key", hint="chmod 0600 the key file."
                )
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            # ssl.SSLError is an OSError; its text may quote the file.
            raise StateError(
                "DICOM TLS: a certificate, key or authority cannot be read",
                hint="Check the tls_ files of the section in station.toml.",
            ) from error
        return context


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer may take of us.

    Attributes:
        pdu_bytes: the longest PDU.
        message_bytes: the longest data set of one message.
        timeout_s: for a TLS handshake, for one PDU, and without a word.
        messages: how many may wait to be dealt with.
    """

    pdu_bytes: int
    message_bytes: int
    timeout_s: float
    messages: int = 4


class BoundedSocket(AssociationSocket):
    """Reads PDUs of a bounded length in a bounded time, in large pieces, and waits without spinning."""

    bounds: Bounds

    @classmethod
    def of(cls, plain: AssociationSocket) -> "BoundedSocket":
        """Take over a socket that pynetdicom made; its events are queued already."""
        made = cls.__new__(cls)
        made.__dict__.update(plain.__dict__)
        return made

    @property
    def ready(self) -> bool:
        """Tell whether the peer has sent something, waiting a moment for it."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        try:
            readable, _, _ = select.select([connection], [], [], _SELECT_S)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        return bool(readable)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer where the peer closed.

        Raises:
            OSError: too many, or too slow; pynetdicom ends the association.
        """
        try:
            data = self._read(nr_bytes)
        except OSError:
            self._say_gone()
            raise
        if len(data) < nr_bytes:
            self._say_gone()
        return data

    def _read(self, nr_bytes: int) -> bytearray:
        if nr_bytes > max(self.bounds.pdu_bytes, _PDU_SLACK_BYTES):
            LOG.warning("dicom-pdu-too-long")
            raise OSError("the PDU is too long")
        if self.socket is None:
            raise OSError("the connection is closed")
        data = bytearray(nr_bytes)
        view, read = memoryview(data), 0
        deadline = time.monotonic() + self.bounds.timeout_s
        while read < nr_bytes and (count := self.socket.recv_into(view[read:])):
            read += count
            if time.monotonic() > deadline:
                raise TimeoutError
        view.release()
        del data[read:]
        return data

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._say_gone()

    def _say_gone(self) -> None:
        """Wake the thread that waits for a request to associate: a peer that went keeps no place until a timeout."""
        waiting = cast("queue.Queue[object]", self.assoc.dul.to_user_queue)
        if self.assoc.is_acceptor and self.assoc.requestor.primitive is None and waiting.empty():
            waiting.put(None)

    def _shutdown_socket(self) -> None:
        """Close the socket, one that never was connected too."""
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class BoundedMessages(DIMSEServiceProvider):
    """Puts messages together, up to a length."""

    bounds: Bounds

    def get_msg(self, block: bool = False) -> _QueueItem:
        """Return the next message, to who waits for it alone.

        An association that we asked for has a thread of its own that looks for messages too. It is paused while an answer
        is awaited, but may be past its last look at the pause: it would then take an answer and drop it, and a study that is
        there would seem to be none.
        """
        if not block and self.assoc.is_requestor:
            return None, None
        return super().get_msg(block)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA; a message that grows too long, or too many at once, end the association."""
        try:
            super().receive_primitive(primitive)
        except FAULTS:
            # A command set that is none. Else the thread would end, and its connection stay.
            self._end("dicom-message-unreadable")
            return
        if self.assoc.is_acceptor and self.assoc.is_established and self.msg_queue.qsize() == 1:
            self._serve_at_once()
        message = self.message
        if message is not None and message.data_set is not None:
            too_long = message.data_set.tell() > self.bounds.message_bytes
            if too_long or message.encoded_command_set.tell() > _PDU_SLACK_BYTES:
                self._end("dicom-instance-too-long")
        elif self.msg_queue.qsize() > self.bounds.messages:
            self._end("dicom-too-many-messages")

    def _serve_at_once(self) -> None:
        """Serve a C-STORE on the thread that read it: the association's own looks for one each millisecond only."""
        try:
            item = self.msg_queue.get_nowait()
        except queue.Empty:
            return
        context_id, message = item
        context = self.assoc._accepted_cx.get(context_id or 0)  # noqa: SLF001 - see the module
        if isinstance(message, C_STORE) and message.is_valid_request and context is not None:
            StorageServiceClass(self.assoc).SCP(message, context)
        else:
            self.msg_queue.put(item)

    def _end(self, why: str) -> None:
        LOG.warning(why)
        self.message = None
        self.assoc._abort_nonblocking()  # noqa: SLF001 - see the module


class BoundedEntity(ApplicationEntity):
    """An application entity whose associations, asked for by us, have bounds too."""

    bounds: Bounds

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = BoundedSocket(assoc, address=address)
        made.tls_args = tls_args
        _bind(assoc, made, self.bounds)
        return made


def _bind(association: Association, made: BoundedSocket, bounds: Bounds) -> None:
    made.bounds = bounds
    if made.socket is not None:
        # A message is two writes: without it the second waits 40 ms for the first to be acknowledged.
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The socket's own wait takes the place of a nap between two looks.
    association.dul._run_loop_delay = 0  # noqa: SLF001 - see the module
    messages = BoundedMessages(association)
    messages.bounds = bounds
    association.dimse = messages


class _Handler(RequestHandler):
    """Makes the association of a connection, with our bounds."""

    server: "BoundedServer"

    def _create_association(self) -> Association:
        association = super()._create_association()
        plain = association.dul.socket
        if plain is None:
            raise OSError("the connection is closed")
        association.dul.socket = made = BoundedSocket.of(plain)
        _bind(association, made, self.server.bounds)
        return association


class BoundedServer(ThreadedAssociationServer):
    """Listens for associations; each connection's TLS handshake is made on a thread of its own, with a deadline."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - pynetdicom's own
    ) -> None:
        self.bounds: Bounds = options.pop("bounds")
        self._tls = ssl_context
        self._handshakes = threading.BoundedSemaphore(_HANDSHAKES)
        super().__init__(ae, address, ae_title, contexts, None, request_handler=_Handler, **options)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Start a thread for a connection, unless too many are being greeted."""
        if not self._handshakes.acquire(blocking=False):
            LOG.warning("dicom-too-many-connections")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Greet a connection and start its association."""
        connection: socket.socket = request
        try:
            connection.settimeout(self.bounds.timeout_s)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.finish_request(connection, client_address)
        except OSError:
            # A port scan, a peer without TLS or without a certificate of ours.
            LOG.warning("dicom-connection-refused", extra={"code": "tls" if self._tls else "network"})
            self.shutdown_request(connection)
        finally:
            self._handshakes.release()

    def close_down(self) -> None:
        """Stop listening, and let go of connections that have not become associations; those go on."""
        # Past AssociationServer.shutdown, which wants an entry in its AE that only AE.start_server makes.
        BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            made = association.dul.socket
            if not association.is_established and isinstance(made, BoundedSocket):
                association.dul.kill_dul()
                made.close()
