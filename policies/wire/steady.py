"""HTTP clients whose peer has to keep moving: an exchange as a whole has a deadline, which grows with what really moved.

httpx bounds each wait for the network; a peer that sends (or takes) one byte within each wait holds a thread for as long as
it likes, in the headers as in the body. Here every request and its answer together get `EXCHANGE_S`, and a second more for
each `BYTES_PER_S` that went either way: a large file over a slow line passes, a drip does not.

Every program of ours that speaks to an orchestrator or to a mirror makes its client here. No redirects, nothing from the
environment.
"""

import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore
import httpx

from policies.wire.proxies import Proxy

EXCHANGE_S = 120.0
"""For a request and its answer, connections not counted: more than any single wait that our clients permit."""

BYTES_PER_S = 32 * 1024
"""The slowest line on which a large body still passes."""

_RECORD_BYTES = 16 * 1024


def steady_client(
    verify: ssl.SSLContext,
    *,
    read_s: float,
    connect_s: float,
    headers: Mapping[str, str] | None = None,
    proxy: Proxy | None = None,
    base_url: str = "",
) -> httpx.Client:
    """Make a client whose exchanges end.

    Args:
        verify: whom to trust.
        read_s: the longest single wait for the peer.
        connect_s: the longest wait for a connection.
        headers: sent with every request.
        proxy: a CONNECT proxy to go through.
        base_url: what relative addresses start with.

    Beyond the deadline its calls raise `httpx.ReadTimeout` or `httpx.WriteTimeout`, as for a single wait; where the
    proxy does not let us through, `ProxyError`.
    """
    return httpx.Client(
        transport=_SteadyTransport(verify, proxy),
        headers=headers,
        base_url=base_url,
        timeout=httpx.Timeout(read_s, connect=connect_s),
        follow_redirects=False,
        trust_env=False,
    )


class Allowance:
    """How long one exchange over a connection may still take. Pure: the moment is given."""

    def __init__(self) -> None:
        self._ends = float("inf")
        self._answering = True

    def sending(self, now: float) -> float:
        """Return the seconds left to send; the first bytes after an answer begin a new exchange."""
        if self._answering:
            self._answering, self._ends = False, now + EXCHANGE_S
        return self._ends - now

    def receiving(self, now: float) -> float:
        """Return the seconds left to receive."""
        self._answering = True
        return self._ends - now

    def moved(self, size: int) -> None:
        """Grant what so many bytes may take."""
        self._ends += size / BYTES_PER_S


class _SteadyStream(httpcore.NetworkStream):
    """A connection that asks its allowance before each wait."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._allowance = Allowance()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._allowance.receiving(time.monotonic())
        if left <= 0:
            raise httpcore.ReadTimeout
        data = self._stream.read(max_bytes, _shorter(timeout, left))
        self._allowance.moved(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # One TLS record at a time: the stream below waits anew for each part that the peer takes.
        for start in range(0, len(buffer), _RECORD_BYTES):
            part = buffer[start : start + _RECORD_BYTES]
            left = self._allowance.sending(time.monotonic())
            if left <= 0:
                raise httpcore.WriteTimeout
            self._stream.write(part, _shorter(timeout, left))
            self._allowance.moved(len(part))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _SteadyStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own
        return self._stream.get_extra_info(info)


def _shorter(timeout: float | None, left: float) -> float | None:
    if left == float("inf"):
        return timeout
    return left if timeout is None else min(timeout, left)


class _SteadyBackend(httpcore.NetworkBackend):
    """Connects as the one below does."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _SteadyStream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _SteadyTransport(httpx.HTTPTransport):
    """httpx's own transport over such connections."""

    def __init__(self, verify: ssl.SSLContext, proxy: Proxy | None) -> None:
        super().__init__(verify=verify, trust_env=False, proxy=None if proxy is None else _as_httpx(proxy))
        self._proxy = proxy
        # httpx 0.28 hands no network backend on to the pool that takes one.
        self._pool._network_backend = _SteadyBackend(self._pool._network_backend)  # noqa: SLF001

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._proxy is None:
            return super().handle_request(request)
        self._proxy.require_open()
        try:
            return super().handle_request(request)
        except httpx.ProxyError as error:
            if (refused := self._proxy.refused(str(error))) is not None:
                # Not chained: the proxy's own words go no further.
                raise refused from None
            raise


def _as_httpx(proxy: Proxy) -> httpx.Proxy:
    known = proxy.credentials
    context = ssl.create_default_context(cafile=None if proxy.ca is None else str(proxy.ca))
    return httpx.Proxy(
        proxy.url,
        auth=None if known is None else (known.user, known.secret),
        ssl_context=context if proxy.url.startswith("https:") else None,
    )
