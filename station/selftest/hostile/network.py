"""Out by a network: addresses, names, and the kinds of socket that need no network interface."""

import contextlib
import errno
import os
import socket
import struct

from .attempts import Attempts, name_of

_WAIT_S = 1.5
_QUESTION = (
    struct.pack(">HHHHHH", 0x5054, 0x0100, 1, 0, 0, 0) + b"\x07example\x03org\x00" + struct.pack(">HH", 1, 1)
)


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _connect(found: Attempts, tried: str, family: int, address: str | tuple[object, ...]) -> None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_WAIT_S)
            sock.connect(address)
            found.got(tried, "connected")
    except TimeoutError:
        found.stopped(tried, f"no answer in {_WAIT_S} s")
    except ConnectionResetError:
        # Somebody outside is there, whether or not anything listens at this port.
        found.got(tried, "the other side answered, and nothing listened there")
    except OSError as error:
        found.stopped(tried, name_of(error.errno))


def _interfaces(found: Attempts) -> None:
    names = [name for _, name in socket.if_nameindex()]
    only_lo = set(names) <= {"lo"}
    found.want(
        "look for interfaces", held=only_lo, by="only lo is there", what=f"there are {', '.join(names)}"
    )


def network_v4(found: Attempts, given: dict[str, object]) -> None:
    """Reach hosts by IPv4: this one by each of its addresses, its engine, the cloud's metadata, the world."""
    _interfaces(found)
    port = int(str(given["tcp_port"]))
    for address in (*_texts(given["addresses"]), "127.0.0.1"):
        _connect(found, f"connect to a listener of this host at {address}", socket.AF_INET, (address, port))
    for address, other in (
        ("192.0.2.1", 443),
        ("169.254.169.254", 80),
        ("172.17.0.1", 2375),
        ("255.255.255.255", 9),
    ):
        _connect(found, f"connect to {address}:{other}", socket.AF_INET, (address, other))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        found.call("send a datagram to 192.0.2.1", lambda: sock.sendto(b"x", ("192.0.2.1", 53)))
    with open("/proc/net/route", encoding="ascii") as file:
        routes = len(file.read().splitlines()) - 1
    found.want("look for routes", held=routes <= 0, by="there is none", what=f"there are {routes}")


def network_v6(found: Attempts, given: dict[str, object]) -> None:
    """Reach hosts by IPv6: this one, the link, the world."""
    port = int(str(given["tcp6_port"]))
    for address in (*_texts(given["addresses6"]), "::1"):
        _connect(found, f"connect to a listener of this host at {address}", socket.AF_INET6, (address, port))
    _connect(found, "connect to 2001:db8::1:443", socket.AF_INET6, ("2001:db8::1", 443))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        found.call(
            "send to everyone on the link (ff02::1)", lambda: sock.sendto(b"x", ("ff02::1", 5353, 0, 0))
        )


def dns(found: Attempts, given: dict[str, object]) -> None:
    """Ask for a name: the library, the host's resolvers, the engine's, and the host's by way of its own files."""
    try:
        found.got("resolve example.org", str(socket.getaddrinfo("example.org", 443)[0][4]))
    except OSError as error:
        found.stopped("resolve example.org", str(error.strerror))
    for server in (*_texts(given["resolvers"]), "127.0.0.11", "127.0.0.53", "127.0.0.1"):
        tried = f"send a DNS question to {server}"
        try:
            with socket.socket(
                socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM
            ) as sock:
                sock.settimeout(_WAIT_S)
                sock.connect((server, 53))
                sock.send(_QUESTION)
                found.got(tried, f"{len(sock.recv(512))} bytes came back")
        except TimeoutError:
            found.stopped(tried, f"no answer in {_WAIT_S} s")
        except OSError as error:
            found.stopped(tried, name_of(error.errno))


def raw(found: Attempts, given: dict[str, object]) -> None:
    """Open sockets that make or see packets of any kind."""
    kinds = (
        ("a raw ICMP socket", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        ("a raw IPv6 socket", socket.AF_INET6, socket.SOCK_RAW, 58),
        ("a raw IP socket with headers of its own", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        ("a packet socket that sees every frame", socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
        ("a packet socket", socket.AF_PACKET, socket.SOCK_DGRAM, 0),
    )
    for what, family, kind, protocol in kinds:
        found.call(f"open {what}", lambda f=family, k=kind, p=protocol: socket.socket(f, k, p).close())  # type: ignore[misc]


def netlink(found: Attempts, given: dict[str, object]) -> None:
    """Change the network, or listen to the kernel, by netlink."""
    attributes = (
        struct.pack("=HH", 8, 3)
        + b"pht0"
        + struct.pack("=HH", 16, 18)
        + struct.pack("=HH", 10, 1)
        + b"dummy\0\0\0"
    )
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attributes
    found.call("add a network interface (RTM_NEWLINK)", lambda: _netlink(0, 16, 0x605, link))
    address = struct.pack("=BBBBI", 2, 24, 0, 0, 1) + struct.pack("=HH", 8, 2) + socket.inet_aton("192.0.2.9")
    found.call("give lo an address (RTM_NEWADDR)", lambda: _netlink(0, 20, 0x605, address))
    found.call("ask the kernel's audit (AUDIT_GET)", lambda: _netlink(9, 1000, 5, b""))


def _netlink(protocol: int, kind: int, flags: int, body: bytes) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(_WAIT_S)
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = sock.recv(4096)
    _length, answered, _flags, _seq, _pid = struct.unpack_from("=IHHII", answer)
    number = -struct.unpack_from("=i", answer, 16)[0] if answered == 2 else 0
    if number:
        raise OSError(number, os.strerror(number))
    return f"the kernel answered {answered}"


def vsock(found: Attempts, given: dict[str, object]) -> None:
    """Reach the hypervisor, or this host, by sockets that no network namespace holds."""
    port = int(str(given["vsock_port"]))
    for where, cid in (
        ("the hypervisor", 0),
        ("this host by its loopback", 1),
        ("the host of this machine", 2),
    ):
        for to in sorted({port, 1024}):
            _connect(
                found, f"connect to {where} (vsock {cid}:{to})", getattr(socket, "AF_VSOCK", 40), (cid, to)
            )
    tried = "have the kernel make a pair of such sockets"
    try:
        for sock in socket.socketpair(getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM):
            sock.close()
        found.got(tried)
    except OSError as error:
        # It cannot be made; that vsock itself says so means that its code was reached.
        held = error.errno != errno.EOPNOTSUPP
        found.want(tried, held=held, by=name_of(error.errno), what="the kernel's own code for vsock answered")


def abstract(found: Attempts, given: dict[str, object]) -> None:
    """Reach sockets of this host that have no file: its listener for this test, the engine's, and any that is listed."""
    names = {
        str(given["abstract"]),
        "/containerd-shim",
        "/tmp/.X11-unix/X0",
        "/org/kernel/linux/storage/multipathd",
    }
    for name in sorted(names):
        _connect(found, f"connect to the abstract socket @{name[:40]}", socket.AF_UNIX, "\0" + name)
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        listed = [line.split()[-1] for line in file.read().splitlines()[1:] if "@" in line]
    found.want(
        "list abstract sockets", held=not listed, by="none is listed", what=f"{len(listed)} are listed"
    )
