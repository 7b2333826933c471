"""Runs the public port: uvicorn with TLS on a socket that the supervisor opened, so that it is never lost."""

import asyncio
import signal
import socket
import ssl

import uvicorn

from orchestrator.federation.superlink import SuperLinkFiles
from orchestrator.front.app import Front, Receive, Scope, Send
from orchestrator.front.fleet_proxy import FleetProxy
from orchestrator.front.polls import HeldPolls
from orchestrator.front.roster import Roster
from orchestrator.portal import create_app
from orchestrator.portal.oci import create_oci
from orchestrator.registry.superlink_port import read_superlink_port
from orchestrator.services import Services
from policies.errors import TrustError, UnavailableError
from policies.tls import check_certificate

KEEP_ALIVE_S = 75
"""Longer than a station waits between polls, so that it polls on one connection."""

MAX_CONNECTIONS = 2048
KEEP_UP_S = 2.0
SHUTDOWN_S = 2
"""Idle connections of clients that do not say goodbye are not waited for longer."""

STALE_UPLOAD_S = 7 * 24 * 3600
_CATCH_UP_WAITS_S = (0.5, 2.0, 4.0, 8.0, 16.0)


def create_front(services: Services) -> tuple[Front, FleetProxy]:
    """Return the application of the public port, and the part of it that is to be closed."""
    home = services.home
    proxy = FleetProxy(
        port=lambda: read_superlink_port(home),
        ca=SuperLinkFiles(home.superlink).ca,
        max_body_bytes=services.settings.limits.fleet_body_mib << 20,
        roster=Roster(services.stations.fingerprints, lambda: services.stations.followed),
        saw=services.stations.saw,
        polls=HeldPolls(SuperLinkFiles(home.superlink).doorbells, lambda: _nodes(services)),
    )
    return Front(create_app(services), proxy, create_oci(services)), proxy


def _nodes(services: Services) -> dict[str, int]:
    return {one.key_fingerprint: one.node_id for one in services.stations.all() if one.node_id is not None}


def run_front(services: Services, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        TrustError: the server's certificate is expired or does not fit its key.
    """
    home = services.home
    check_certificate(home.server_certificate, hint="Run `pht-orchestrator renew-certificate`.")
    # uvicorn gives a signal back to the handlers that stood before it, once it has shut down.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = _config(services)
    # uvloop where it is installed (it comes with Flower): TLS at about twice the bytes per second.
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(services, config, listener))


def _config(services: Services) -> uvicorn.Config:
    config = uvicorn.Config(
        _not_ready,
        interface="asgi3",
        ssl_certfile=str(services.home.server_certificate),
        ssl_keyfile=str(services.home.server_key),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        h11_max_incomplete_event_size=64 * 1024,
    )
    try:
        config.load()
    except ssl.SSLError as error:
        raise TrustError(
            "the server's certificate and key do not fit together",
            hint="Run `pht-orchestrator renew-certificate`.",
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


async def _not_ready(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise UnavailableError("the front is not put together yet")


async def _serve(services: Services, config: uvicorn.Config, listener: socket.socket) -> None:
    # Its HTTP client belongs to the loop, so it is made here.
    front, proxy = create_front(services)
    config.loaded_app = front
    catching_up = asyncio.create_task(_catch_up(services))
    keeping_up = asyncio.create_task(_keep_up(services))
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        catching_up.cancel()
        keeping_up.cancel()
        await proxy.close()


async def _keep_up(services: Services) -> None:
    """Record what follows from runs while nobody looks: they are another process's."""
    while True:
        await asyncio.sleep(KEEP_UP_S)
        await asyncio.to_thread(services.keep_up)


async def _catch_up(services: Services) -> None:
    """Follow a register that was published while we were away; the SuperLink may still be starting."""
    await asyncio.to_thread(services.blobs.forget_stale_uploads, STALE_UPLOAD_S)
    if not (services.home.trust / "root.json").is_file():
        return
    for wait_s in _CATCH_UP_WAITS_S:
        await asyncio.sleep(wait_s)
        if await asyncio.to_thread(services.stations.sync_quietly):
            return
