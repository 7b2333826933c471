"""Learn which hospital this is, run as something else than it should, and find what was left for it."""

import os
import time

from .attempts import Attempts, name_of

_VARIABLES = {
    "FLWR_DISABLE_UPDATE_CHECK", "FLWR_TELEMETRY_ENABLED", "HOME", "HOSTNAME", "LC_CTYPE", "LOGNAME", "MKL_NUM_THREADS",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONUTF8", "USER",
    "NVIDIA_VISIBLE_DEVICES", "TERM", "container",
}  # fmt: skip


def names(found: Attempts, given: dict[str, object]) -> None:
    """Read the host's name, domain, resolvers and hosts."""
    found.want(
        "read the host's name",
        held=os.uname().nodename == "train",
        by="it is called train",
        what=os.uname().nodename,
    )
    with open("/proc/sys/kernel/domainname", encoding="ascii") as file:
        domain = file.read().strip()
    found.want("read the host's domain", held=domain in {"", "(none)"}, by="there is none", what=domain)
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith(("#", ";"))]
    servers = [line[1] for line in lines if line[0] == "nameserver" and line[1:]]
    held = set(servers) <= {"127.0.0.1"}
    found.want(
        "read the hospital's resolvers", held=held, by="127.0.0.1 stands there", what=", ".join(servers)
    )
    search = [word for line in lines if line[0] in {"search", "domain"} for word in line[1:] if word != "."]
    found.want("read the hospital's domain", held=not search, by="none stands there", what=", ".join(search))
    options = [word for line in lines if line[0] == "options" for word in line[1:]]
    extra = sorted(set(options) - {"ndots:0", "edns0", "trust-ad"})
    found.want(
        "read the hospital's resolver options", held=not extra, by="none stands there", what=", ".join(extra)
    )
    with open("/etc/hosts", encoding="utf-8") as file:
        known = {word for line in file for word in line.split("#")[0].split()[1:]}
    own = {
        "localhost",
        "train",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
        "ip6-allnodes",
        "ip6-allrouters",
    }
    extra = sorted(known - own)
    found.want(
        "read the hospital's list of hosts",
        held=not extra,
        by="only its own name stands there",
        what=", ".join(extra),
    )


def environment(found: Attempts, given: dict[str, object]) -> None:
    """Read the engine's or the station's variables."""
    extra = sorted(set(os.environ) - _VARIABLES)
    found.want(
        "find variables beyond the station's",
        held=not extra,
        by="there are none",
        what=", ".join(extra)[:120],
    )


def start(found: Attempts, given: dict[str, object]) -> None:
    """Be started as its image wants and not as the station does."""
    with open("/proc/self/cmdline", "rb") as file:
        line = file.read().split(b"\0")[:-1]
    held = line == [b"/opt/train/bin/python", b"-m", b"pht_runtime"]
    found.want(
        "choose how it is started",
        held=held,
        by="by the station's own command",
        what=b" ".join(line).decode("ascii", "replace"),
    )
    with open("/opt/bait/marker", encoding="ascii") as file:
        marker = file.read()
    found.want(
        "be another image than the one verified",
        held=marker == given["marker"],
        by="it is that image",
        what=marker,
    )
    stream = os.readlink("/proc/self/fd/0")
    found.want("be given an input", held=stream == "/dev/null", by="its input is /dev/null", what=stream)
    found.want(
        "be given a terminal",
        held=not os.path.exists("/dev/console"),
        by="there is none",
        what="there is /dev/console",
    )


def left_behind(found: Attempts, given: dict[str, object]) -> None:
    """Find what an earlier train left in the places that trains may write to."""
    for folder in ("/tmp", "/train/scratch", "/dev/shm"):
        try:
            inside = os.listdir(folder)
        except OSError as error:
            found.stopped(f"list {folder}", name_of(error.errno))
        else:
            found.want(
                f"look for what was left in {folder}",
                held=not inside,
                by="it is empty",
                what=", ".join(inside)[:120],
            )


def second_program(found: Attempts, given: dict[str, object]) -> None:
    """Have the engine start a second program, as an image's health check does."""
    deadline = time.monotonic() + float(str(given["wait_s"]))
    at = "/dev/shm/second-program"
    while not os.path.exists(at) and time.monotonic() < deadline:
        time.sleep(0.05)
    found.want(
        "have a health check run", held=not os.path.exists(at), by="none is run", what="the engine ran it"
    )
