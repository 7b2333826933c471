"""The one place that says under which restrictions a container runs (DESIGN I5). Pure.

`create_body` is the whole request to the engine: what is not in it is not asked for. `unfit_reasons` says which of these
restrictions an engine could not enforce, and `differences` compares what the engine made of the request.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from station.sandbox.spec import MIB, ContainerSpec

LABEL_STATION: Final = "nl.pht.station"
LABEL_HOME: Final = "nl.pht.home"
LABEL_RUN: Final = "nl.pht.run"
LABEL_UID: Final = "nl.pht.uid"

DATA: Final = "/train/data"
CONTROL: Final = "/train/control"
SCRATCH: Final = "/train/scratch"

COMMAND: Final = ("/opt/train/bin/python", "-m", "pht_runtime")

_TMP_BYTES: Final = 256 * MIB
_INODES: Final = 65536
_OPEN_FILES: Final = 4096
_LOG_FILE_BYTES: Final = 1 * MIB
_LOG_FILES: Final = 2


def create_body(
    spec: ContainerSpec, *, image_id: str, uid: int, labels: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Return the body of the engine's ``POST /containers/create``.

    Args:
        spec: checked by the launcher.
        image_id: our rewritten image.
        uid: the fresh user, also its group.
        labels: by which orphans are found.
    """
    return {
        "Image": image_id,
        "User": f"{uid}:{uid}",
        "Entrypoint": list(COMMAND),
        "Cmd": [],
        "Env": environment(spec),
        "WorkingDir": SCRATCH,
        "Labels": dict(labels),
        # The engine's own name for the container would be its id, and the host's domain would be written into /etc/hosts.
        "Hostname": "train",
        "Domainname": "",
        "NetworkDisabled": True,
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "Volumes": {},
        "ExposedPorts": {},
        "HostConfig": host_config(spec, uid),
    }


def environment(spec: ContainerSpec) -> list[JsonValue]:
    """Return the station's own variables; they win over the image's."""
    threads = str(max(1, int(spec.cpus)))
    return [
        "FLWR_TELEMETRY_ENABLED=0",
        "FLWR_DISABLE_UPDATE_CHECK=1",
        "HOME=/tmp",
        # The fresh user has no entry in /etc/passwd, and libraries that ask for a name would fail (MONAI does).
        "USER=train",
        "LOGNAME=train",
        # Libraries count the host's CPUs and would start a thread for each, whatever the limit.
        f"OMP_NUM_THREADS={threads}",
        f"MKL_NUM_THREADS={threads}",
        f"OPENBLAS_NUM_THREADS={threads}",
        "PYTHONUNBUFFERED=1",
        "PYTHONDONTWRITEBYTECODE=1",
    ]


def host_config(spec: ContainerSpec, uid: int) -> dict[str, JsonValue]:
    """Return the engine's ``HostConfig``: every restriction, and nothing given away."""
    tmpfs = f"rw,nosuid,nodev,noexec,nr_inodes={_INODES},uid={uid},gid={uid},mode=0700"
    tmp_bytes = min(_TMP_BYTES, spec.scratch_bytes)
    return {
        # Nothing to talk to.
        "NetworkMode": "none",
        "PortBindings": {},
        "PublishAllPorts": False,
        "Links": [],
        "ExtraHosts": [],
        # The engine would copy the host's resolvers and search domain, which name the hospital.
        "Dns": ["127.0.0.1"],
        "DnsOptions": [],
        "DnsSearch": ["."],
        # Nothing to gain.
        "Privileged": False,
        "CapAdd": [],
        "CapDrop": ["ALL"],
        "GroupAdd": [],
        "SecurityOpt": ["no-new-privileges:true"],
        "Devices": [],
        "DeviceCgroupRules": [],
        "DeviceRequests": [],
        "Sysctls": {},
        "Runtime": "runc",
        # Namespaces of its own.
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "CgroupParent": "",
        # Nowhere to write that is not its own memory.
        "ReadonlyRootfs": True,
        "Binds": [],
        "VolumesFrom": [],
        "Mounts": [_mount(spec.cohort_dir, DATA), _mount(spec.control_dir, CONTROL)],
        "Tmpfs": {"/tmp": f"{tmpfs},size={tmp_bytes}", SCRATCH: f"{tmpfs},size={spec.scratch_bytes}"},  # noqa: S108
        "ShmSize": tmp_bytes,
        # Ceilings.
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,
        "OomKillDisable": False,
        "OomScoreAdj": 500,
        "NanoCpus": round(spec.cpus * 1e9),
        "PidsLimit": spec.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": _OPEN_FILES, "Hard": _OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": spec.scratch_bytes, "Hard": spec.scratch_bytes},
        ],
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(_LOG_FILE_BYTES), "max-file": str(_LOG_FILES)},
        },
        # It is started once and never again.
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Init": True,
    }


def _mount(source: str, target: str) -> dict[str, JsonValue]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "private", "NonRecursive": True},
    }


def unfit_reasons(info: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return what the engine cannot enforce, by name; empty when it is fit.

    Args:
        info: the engine's ``GET /info``. A key that is missing counts as "cannot".
    """
    options = [str(each) for each in _list(info.get("SecurityOptions"))]
    rootless = any(option.startswith("name=rootless") for option in options)
    runtimes = info.get("Runtimes")
    problems = [
        (info.get("OSType") != "linux", "not-linux"),
        (not _seccomp(options), "no-default-seccomp-profile"),
        (rootless and str(info.get("CgroupVersion")) != "2", "rootless-without-cgroup-v2"),
        # The uid inside would be another one outside, and the control socket's peer could not be checked.
        (any(option.startswith("name=userns") for option in options), "user-namespace-remapping"),
        (info.get("MemoryLimit") is not True, "no-memory-limit"),
        (info.get("SwapLimit") is not True, "no-swap-limit"),
        (info.get("PidsLimit") is not True, "no-pids-limit"),
        (info.get("CpuCfsQuota", info.get("CPUCfsQuota")) is not True, "no-cpu-quota"),
        (not isinstance(runtimes, dict) or "runc" not in runtimes, "no-runc"),
        # Its image ids are not config digests, so what runs could not be compared with what was signed.
        (_has_containerd_store(info), "containerd-image-store"),
    ]
    return tuple(name for unfit, name in problems if unfit)


def _seccomp(options: Sequence[str]) -> bool:
    # A profile from a file could allow anything; Docker calls its own one default, later builtin.
    return any(
        option in {"name=seccomp,profile=default", "name=seccomp,profile=builtin"} for option in options
    )


def _has_containerd_store(info: Mapping[str, JsonValue]) -> bool:
    return any("io.containerd.snapshotter" in str(pair) for pair in _list(info.get("DriverStatus")))


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def differences(asked: Mapping[str, JsonValue], inspected: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return the restrictions that the engine did not take over as asked.

    Args:
        asked: what `create_body` returned.
        inspected: the engine's ``GET /containers/<id>/json`` of it.
    """
    found: list[str] = []
    config, host = inspected.get("Config"), inspected.get("HostConfig")
    if not isinstance(config, dict) or not isinstance(host, dict):
        return ("inspect",)
    asked_host = asked["HostConfig"]
    if not isinstance(asked_host, dict):
        return ("HostConfig",)
    found += [key for key in ("User", "Entrypoint", "WorkingDir", "Image") if config.get(key) != asked[key]]
    found += [key for key, value in asked_host.items() if not _same(value, host.get(key))]
    # These two are the engine's to fill in: what of /proc and /sys a container sees or may change.
    found += [key for key in ("MaskedPaths", "ReadonlyPaths") if not host.get(key)]
    if not _same_mounts(inspected.get("Mounts"), asked_host["Mounts"]):
        found.append("Mounts")
    return tuple(found)


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
