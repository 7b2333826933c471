"""Docker engines, with either kind of image store. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from station.sandbox.engine import fitness, hardening, seccomp
from station.sandbox.engine.dialect import Json, Terms
from station.sandbox.image.rewriting import ALLOWED_VARIABLES, RewrittenImage
from station.sandbox.spec import FIRST_UID, UID_COUNT, ContainerSpec

# Beside the HostConfig: what runs, as whom, and what it is given to know.
_OF_THE_BODY: Final = (
    "User", "Entrypoint", "Cmd", "WorkingDir", "Image", "Hostname", "Domainname", "NetworkDisabled", "Tty", "OpenStdin",
    "Healthcheck", "Volumes",
)  # fmt: skip


class DockerDialect:
    """Implements `station.sandbox.engine.dialect.Dialect`."""

    name: Final = "docker"
    own_api: Final = None

    def unfit(self, info: Json, runtime: str | None) -> tuple[str, ...]:
        """Return what the engine cannot enforce, by name."""
        options = [str(each) for each in _list(info.get("SecurityOptions"))]
        rootless = any(option.startswith("name=rootless") for option in options)
        runtimes = info.get("Runtimes")
        wanted = runtime or "runc"
        problems = [
            (info.get("OSType") != "linux", "not-linux"),
            (not _seccomp(options), "no-seccomp"),
            # The fresh users are beyond its mapping: no container of ours starts.
            (rootless, "rootless-docker"),
            # The uid inside would be another one outside, and the control socket's peer could not be checked.
            (any(option.startswith("name=userns") for option in options), "user-namespace-remapping"),
            (info.get("MemoryLimit") is not True, "no-memory-limit"),
            (info.get("SwapLimit") is not True, "no-swap-limit"),
            (info.get("PidsLimit") is not True, "no-pids-limit"),
            (info.get("CpuCfsQuota", info.get("CPUCfsQuota")) is not True, "no-cpu-quota"),
            (not isinstance(runtimes, dict) or wanted not in runtimes, f"no-{wanted}"),
            (fitness.lacks_host_sockets(wanted, runtimes), fitness.NO_HOST_SOCKETS),
        ]
        return tuple(name for unfit, name in problems if unfit)

    def uids(self, info: Json) -> range:
        """Return the users that are nobody's on the host."""
        return range(FIRST_UID, FIRST_UID + UID_COUNT)

    def drops_limits(self, info: Json) -> bool:
        """Docker sets them."""
        return False

    def out_of_memory(self, state: Json) -> bool:
        """Docker notices of every process."""
        return state.get("OOMKilled") is True

    def image_id(self, image: RewrittenImage, info: Json) -> str:
        """Return the config's digest, or the manifest's where containerd keeps the images."""
        return image.manifest_digest if _has_containerd_store(info) else image.config_digest

    def may_skip_layers(self, info: Json) -> bool:
        """Docker's own store looks a layer up by its chain before it opens its file; containerd's wants every blob."""
        return not _has_containerd_store(info)

    def create_body(self, spec: ContainerSpec, terms: Terms) -> dict[str, JsonValue]:
        """Return the body of ``POST /containers/create``."""
        body = hardening.create_body(spec, terms)
        host = body["HostConfig"]
        if isinstance(host, dict):
            host["SecurityOpt"] = [*_list(host["SecurityOpt"]), f"seccomp={seccomp.PROFILE}"]
        return body

    def differences(self, asked: Json, inspected: Json) -> tuple[str, ...]:
        """Return the restrictions that the engine did not take over as asked."""
        found: list[str] = []
        config, host = inspected.get("Config"), inspected.get("HostConfig")
        if not isinstance(config, dict) or not isinstance(host, dict):
            return ("inspect",)
        asked_host = asked["HostConfig"]
        if not isinstance(asked_host, dict):
            return ("HostConfig",)
        found += [key for key in _OF_THE_BODY if not _same(asked[key], config.get(key))]
        found += [key for key in ("Env", "Labels") if not _holds(config.get(key), asked[key])]
        if not _only_allowed(config.get("Env"), asked["Env"]):
            found.append("Env")
        found += [key for key, value in asked_host.items() if not _same(value, host.get(key))]
        # These two are the engine's to fill in: what of /proc and /sys a container sees or may change.
        found += [key for key in ("MaskedPaths", "ReadonlyPaths") if not host.get(key)]
        if not _same_mounts(inspected.get("Mounts"), asked_host["Mounts"]):
            found.append("Mounts")
        return tuple(found)


def _seccomp(options: Sequence[str]) -> bool:
    # Which profile the engine would take by itself does not matter: each request brings ours.
    return any(option == "name=seccomp" or option.startswith("name=seccomp,") for option in options)


def _has_containerd_store(info: Mapping[str, JsonValue]) -> bool:
    return any("io.containerd.snapshotter" in str(pair) for pair in _list(info.get("DriverStatus")))


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _holds(got: JsonValue, asked: JsonValue) -> bool:
    if isinstance(asked, dict):
        return isinstance(got, dict) and all(got.get(name) == value for name, value in asked.items())
    return all(each in _list(got) for each in _list(asked))


def _only_allowed(got: JsonValue, asked: JsonValue) -> bool:
    """Whether each further variable is one that an image may set; the station's own stand once."""
    names = [str(each).partition("=")[0] for each in _list(got)]
    ours = {str(each).partition("=")[0] for each in _list(asked)}
    return len(set(names)) == len(names) and all(
        name in ours or ALLOWED_VARIABLES.fullmatch(name) for name in names
    )


def _same(asked: JsonValue, got: JsonValue) -> bool:
    # The engine writes what is empty as null, and leaves out false flags of a mount.
    if asked in ([], {}, "", False, 0):
        return not got
    return asked == got


def _same_mounts(got: JsonValue, asked: JsonValue) -> bool:
    mounts = sorted(
        (str(each.get("Source")), str(each.get("Destination")), str(each.get("RW")))
        for each in _list(got)
        if isinstance(each, dict)
    )
    wanted = sorted(
        (str(each["Source"]), str(each["Target"]), "False") for each in _list(asked) if isinstance(each, dict)
    )
    return mounts == wanted and len(mounts) == len(_list(got))
