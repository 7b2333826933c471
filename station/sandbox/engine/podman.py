"""Podman engines, rootful and rootless, by their Docker-compatible API. Pure.

The restrictions are `hardening`'s; here stands how Podman has to be asked for them. Its inspection tells less than Docker's: what it
does not tell is the kernel's to say once the container has started (`kernel`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from station.sandbox.engine import hardening
from station.sandbox.engine.dialect import Json, Terms
from station.sandbox.image.rewriting import ALLOWED_VARIABLES, RewrittenImage
from station.sandbox.spec import FIRST_UID, UID_COUNT, ContainerSpec

RUNTIMES: Final = ("crun", "runc")
HOST_UIDS: Final = range(FIRST_UID, FIRST_UID + UID_COUNT)

# Podman copies the host's hosts file into every container, and some versions its resolvers: these stand in their place.
COVERED: Final = {
    "/etc/hosts": Path(__file__).with_name("podman_hosts.txt"),
    "/etc/resolv.conf": Path(__file__).with_name("podman_resolv.txt"),
}

# Podman's own profile lets a process make a user namespace, in which it has every capability, and use the kernel's keys. This one
# allows what a process without capabilities may do: no namespaces, mounts, keys, tracing or io_uring, and sockets of four families.
SECCOMP: Final = Path(__file__).with_name("podman_seccomp.json")

# Where Podman mounts a writable tmpfs of its own when the root file system is read-only, unless the request has one there.
CLOSED: Final = ("/run", "/var/tmp")  # noqa: S108
_CLOSED_TMPFS: Final = "ro,nosuid,nodev,noexec,notmpcopyup,mode=0555,size=4096"

# A rootless Podman has 65536 users to give away; packages of distributions use those below.
ROOTLESS_UIDS: Final = range(10_000, 60_000)
_KILLED: Final = 128 + 9
_CONTROLLERS: Final = ("cpu", "memory", "pids")
_OWN_VARIABLES: Final = frozenset({"PATH", "TERM", "container", "HOSTNAME"})


class PodmanDialect:
    """Implements `station.sandbox.engine.dialect.Dialect`."""

    name: Final = "podman"
    # Version 5 answers under the old version's name too.
    own_api: Final = "/v4.0.0/libpod"

    def unfit(self, info: Json, runtime: str | None) -> tuple[str, ...]:
        """Return what the engine cannot enforce, by name.

        Args:
            info: its ``GET /info``, with ``GET /libpod/info`` under ``own``.
            runtime: the OCI runtime that the hospital chose. A request cannot name one: it is the service's own.
        """
        default, rootless = info.get("DefaultRuntime"), _is_rootless(info)
        wanted = (runtime,) if runtime else RUNTIMES
        # These flags of Docker's are about control groups of version 1.
        unified = str(info.get("CgroupVersion")) == "2"
        quota = info.get("CpuCfsQuota", info.get("CPUCfsQuota"))
        controllers = _list(_host(info).get("cgroupControllers"))
        problems = [
            (info.get("OSType") != "linux", "not-linux"),
            (not _has_seccomp(info), "no-seccomp"),
            (rootless and not unified, "rootless-without-cgroup-v2"),
            (rootless and not _maps(info, ROOTLESS_UIDS), "rootless-without-subordinate-users"),
            (not unified and info.get("MemoryLimit") is not True, "no-memory-limit"),
            (not unified and info.get("SwapLimit") is not True, "no-swap-limit"),
            (not unified and info.get("PidsLimit") is not True, "no-pids-limit"),
            (not unified and quota is not True, "no-cpu-quota"),
            (default not in RUNTIMES or default not in wanted, f"no-{'-or-'.join(wanted)}"),
            # Under version 2 every group has what its parent gives it: a rootless engine what its user was given.
            *((each not in controllers, f"no-{each}-controller") for each in _CONTROLLERS),
        ]
        return tuple(name for unfit, name in problems if unfit)

    def uids(self, info: Json) -> range:
        """Return the fresh users: of the host's where Podman is root, else of those that it was given."""
        return ROOTLESS_UIDS if _is_rootless(info) else HOST_UIDS

    def drops_limits(self, info: Json) -> bool:
        """A rootless Podman leaves them out of what its Docker-compatible API asks for."""
        return _is_rootless(info)

    def out_of_memory(self, state: Json) -> bool:
        """Whether a container that has ended did so at its memory limit.

        Under cgroup v1 Podman often misses it. Then its first process was killed, which nobody does but the kernel at that limit and
        the launcher, which knows when it did.
        """
        return state.get("OOMKilled") is True or (
            state.get("Running") is False and state.get("ExitCode") == _KILLED
        )

    def image_id(self, image: RewrittenImage, info: Json) -> str:
        """Return the config's digest: Podman names images by it."""
        return image.config_digest

    def may_skip_layers(self, info: Json) -> bool:
        """Podman reads every layer of an archive."""
        return False

    def create_body(self, spec: ContainerSpec, terms: Terms) -> dict[str, JsonValue]:
        """Return the body of ``POST /containers/create``."""
        body: dict[str, Any] = hardening.create_body(spec, terms)
        # It would become a timer of systemd's. No image of ours has one: we write their config.
        del body["Healthcheck"]
        host = body["HostConfig"]
        host["SecurityOpt"].append(f"seccomp={SECCOMP}")
        # The runtime is the service's; a name here would be taken for a file's by some versions.
        host["Runtime"] = terms.runtime or ""
        # Without a limit of ours it asks for one that a container without privileges may not have, and the start fails.
        host["Ulimits"].append({"Name": "nproc", "Soft": spec.pids, "Hard": spec.pids})
        host["Tmpfs"] = {target: _tmpfs(options) for target, options in host["Tmpfs"].items()}
        host["Tmpfs"] |= dict.fromkeys(CLOSED, _CLOSED_TMPFS)
        host["Mounts"] += [
            host["Mounts"][0] | {"Source": str(source), "Target": target}
            for target, source in COVERED.items()
        ]
        # One file, which starts again when it is full.
        host["LogConfig"] = {
            "Type": "k8s-file",
            "Config": {"max-size": host["LogConfig"]["Config"]["max-size"]},
        }
        return body

    def differences(self, asked: Json, inspected: Json) -> tuple[str, ...]:
        """Return the restrictions that the engine did not take over as asked.

        Args:
            asked: what `create_body` returned.
            inspected: its ``GET /containers/<id>/json``, with its ``GET /libpod/containers/<id>/json`` under ``own``.
        """
        config, host, asked_host = inspected.get("Config"), inspected.get("HostConfig"), asked["HostConfig"]
        if not isinstance(config, dict) or not isinstance(host, dict) or not isinstance(asked_host, dict):
            return ("inspect",)
        found = [key for key in _PROGRAM if config.get(key) != asked[key]]
        if inspected.get("Image") != asked["Image"]:
            found.append("Image")
        if not _same_variables(config.get("Env"), asked["Env"]):
            found.append("Env")
        found += [key for key in _TOLD if not _same(asked_host[key], host.get(key))]
        found += [key for key, values in _TOLD_OTHERWISE.items() if host.get(key) not in values]
        if sorted(map(str, _list(host.get("SecurityOpt")))) != ["no-new-privileges", f"seccomp={SECCOMP}"]:
            found.append("SecurityOpt")
        if _options_by_target(host.get("Tmpfs")) != _options_by_target(asked_host["Tmpfs"]):
            found.append("Tmpfs")
        if not _same_mounts(inspected.get("Mounts"), asked_host["Mounts"]):
            found.append("Mounts")
        return (*found, *_own_differences(inspected.get("own")))


# What its inspection shows in Docker's words.
_PROGRAM: Final = ("User", "Entrypoint", "WorkingDir", "Hostname", "Domainname", "Tty", "OpenStdin")
_TOLD: Final = (
    *(
        "NetworkMode",
        "PortBindings",
        "PublishAllPorts",
        "Links",
        "ExtraHosts",
        "Dns",
        "DnsOptions",
        "DnsSearch",
    ),
    *("Privileged", "CapAdd", "GroupAdd", "Devices", "DeviceCgroupRules", "DeviceRequests"),
    *("UsernsMode", "ReadonlyRootfs", "VolumesFrom", "ShmSize"),
    *("Memory", "MemorySwap", "OomKillDisable", "OomScoreAdj", "NanoCpus", "PidsLimit"),
    *("RestartPolicy", "AutoRemove", "Init"),
)
# What it shows in words of its own. "shareable" offers the container's memory to containers that ask to join, and none does.
_TOLD_OTHERWISE: Final[Mapping[str, tuple[JsonValue, ...]]] = {
    "IpcMode": ("private", "shareable"),
    "PidMode": ("", "private"),
    "UTSMode": ("", "private"),
    "CgroupnsMode": ("", "private"),
}


def _tmpfs(options: str) -> str:
    """Return Docker's options of a tmpfs in Podman's words.

    It knows no owner by number but "the container's user", and no ceiling on inodes: these are charged to the container's memory.
    It would copy what the image has there.
    """
    kept = [each for each in options.split(",") if not each.startswith(("nr_inodes=", "uid=", "gid="))]
    return ",".join([*kept, "notmpcopyup", "U"])


def _own_differences(own: JsonValue) -> list[str]:
    """Compare what only Podman's own API shows."""
    if not isinstance(own, dict) or not isinstance(host := own.get("HostConfig"), dict):
        return ["own-inspect"]
    log = host.get("LogConfig")
    problems = [
        (own.get("OCIRuntime") not in RUNTIMES, "Runtime"),
        (bool(own.get("EffectiveCaps")) or bool(own.get("BoundingCaps")), "CapDrop"),
        (not isinstance(log, dict) or log.get("Type") != "k8s-file" or not log.get("Size"), "LogConfig"),
        (bool(own.get("Pod")) or bool(own.get("Dependencies")), "Pod"),
    ]
    return [name for different, name in problems if different]


def _is_rootless(info: Json) -> bool:
    """Both of its answers must say that it is not."""
    security = _host(info).get("security")
    return not (
        info.get("Rootless") is False and isinstance(security, dict) and security.get("rootless") is False
    )


def _host(info: Json) -> Json:
    own = info.get("own")
    host = own.get("host") if isinstance(own, dict) else None
    return host if isinstance(host, dict) else {}


def _has_seccomp(info: Json) -> bool:
    """Whether it can hold a container to a profile; which one is ours to say."""
    security = _host(info).get("security")
    return isinstance(security, dict) and security.get("seccompEnabled") is True


def _maps(info: Json, wanted: range) -> bool:
    """Whether one stretch of subordinate users and one of groups hold all that containers are run as."""
    mappings = _host(info).get("idMappings")
    return isinstance(mappings, dict) and all(
        any(
            isinstance(each, dict)
            and isinstance(first := each.get("container_id"), int)
            and isinstance(size := each.get("size"), int)
            and first <= wanted[0]
            and wanted[-1] < first + size
            for each in _list(mappings.get(name))
        )
        for name in ("uidmap", "gidmap")
    )


def _same(asked: JsonValue, got: JsonValue) -> bool:
    if asked in ([], {}, "", False, 0):
        return not got
    return asked == got


def _same_variables(got: JsonValue, asked: JsonValue) -> bool:
    """Whether the container has our variables, those that an image may set, and nothing of the host's."""
    shown = {str(each) for each in _list(got)}
    others = {each.partition("=")[0] for each in shown - {str(each) for each in _list(asked)}}
    ours = {str(each).partition("=")[0] for each in _list(asked)}
    return (
        {str(each) for each in _list(asked)} <= shown
        and not others & ours
        and all(name in _OWN_VARIABLES or ALLOWED_VARIABLES.fullmatch(name) for name in others)
    )


def _options_by_target(value: JsonValue) -> dict[str, frozenset[str]]:
    """Return a tmpfs's options without those that Podman adds or takes away by itself."""
    passing = {"rprivate", "notmpcopyup"}
    found = value if isinstance(value, dict) else {}
    return {target: frozenset(str(options).split(",")) - passing for target, options in found.items()}


def _same_mounts(got: JsonValue, asked: JsonValue) -> bool:
    shown = [each for each in _list(got) if isinstance(each, dict)]
    mounts = sorted(
        (str(each.get("Source")), str(each.get("Destination")), each.get("RW") is False) for each in shown
    )
    wanted = sorted(
        (str(each["Source"]), str(each["Target"]), True) for each in _list(asked) if isinstance(each, dict)
    )
    return mounts == wanted and len(mounts) == len(_list(got))


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
