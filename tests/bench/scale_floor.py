"""What moving models costs at the least: the same bytes by bare TLS between two processes of this machine, written to files.

A peer for a round of the same run: one process that sends a model to so many others' connections and takes as many bytes back,
with a file at each end of each. No HTTP, no digests, no database, no guard; whatever a round takes beyond it is ours and Flower's.
"""

import multiprocessing
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Bare:
    """What is moved.

    Attributes:
        ca: the authority of the server's certificate.
        certificate: of `localhost`.
        key: the certificate's.
        served: a folder on the disk of the one that serves.
        elsewhere: a folder of those who connect.
        size_bytes: of each model.
        connections: at once.
    """

    ca: Path
    certificate: Path
    key: Path
    served: Path
    elsewhere: Path
    size_bytes: int
    connections: int


def bare_tls_s(bare: Bare) -> float:
    """Seconds in which each connection got one model and gave one back.

    Raises:
        RuntimeError: a side ended early.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=_serve, args=(bare, there))
    server.start()
    there.close()
    try:
        if not here.poll(60):
            raise RuntimeError("the bare server does not serve")
        port = int(here.recv())
        begun = time.monotonic()
        _all(lambda number: _connect(bare, port, number), bare.connections)
        server.join(900)
        if server.exitcode != 0:
            raise RuntimeError("the bare server did not end well")
        return time.monotonic() - begun
    finally:
        server.kill()
        server.join()
        here.close()


def _serve(bare: Bare, port: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bare.certificate, bare.key)
    model = bare.served / "bare-model"
    with model.open("wb") as file:
        _zeros(file.write, bare.size_bytes)

    def answer(number: int) -> None:
        with context.wrap_socket(listening.accept()[0], server_side=True) as stream:
            with model.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    stream.sendall(piece)
            _take(stream, bare.served / f"bare-update-{number}", bare.size_bytes)

    try:
        with socket.create_server(("127.0.0.1", 0), backlog=bare.connections) as listening:
            port.send(listening.getsockname()[1])
            _all(answer, bare.connections)
    finally:
        for path in bare.served.glob("bare-*"):
            path.unlink()


def _connect(bare: Bare, port: int, number: int) -> None:
    context = ssl.create_default_context(cafile=str(bare.ca))
    path = bare.elsewhere / f"bare-{number}"
    try:
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            _take(stream, path, bare.size_bytes)
            _zeros(stream.sendall, bare.size_bytes)
    finally:
        path.unlink(missing_ok=True)


def _take(stream: ssl.SSLSocket, path: Path, size_bytes: int) -> None:
    left = size_bytes
    with path.open("wb") as file:
        while left:
            piece = stream.recv(min(_PIECE_BYTES, left))
            if not piece:
                raise ConnectionError("the bare connection broke")
            file.write(piece)
            left -= len(piece)


def _zeros(write: Callable[[bytes], object], size_bytes: int) -> None:
    piece = bytes(_PIECE_BYTES)
    for start in range(0, size_bytes, _PIECE_BYTES):
        write(piece[: min(_PIECE_BYTES, size_bytes - start)])


def _all(work: Callable[[int], None], count: int) -> None:
    """In threads, each of which has to end well."""
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except OSError as error:
            failed.append(error)

    threads: Sequence[threading.Thread] = [
        threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError("a bare connection did not end well") from failed[0]
