"""The one place that says under which restrictions a container runs (DESIGN I5), as Docker's API puts them. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from station.sandbox.engine.dialect import Terms
from station.sandbox.gpu import devices
from station.sandbox.spec import MIB, ContainerSpec

LABEL_STATION: Final = "nl.pht.station"
LABEL_HOME: Final = "nl.pht.home"
LABEL_RUN: Final = "nl.pht.run"
LABEL_UID: Final = "nl.pht.uid"
LABEL_GPU: Final = "nl.pht.gpu"

DATA: Final = "/train/data"
CONTROL: Final = "/train/control"
SCRATCH: Final = "/train/scratch"

COMMAND: Final = ("/opt/train/bin/python", "-m", "pht_runtime")

_TMP_BYTES: Final = 256 * MIB
_INODES: Final = 65536
_OPEN_FILES: Final = 4096
_LOG_FILE_BYTES: Final = 1 * MIB
_LOG_FILES: Final = 2


def create_body(spec: ContainerSpec, terms: Terms) -> dict[str, JsonValue]:
    """Return the body of ``POST /containers/create``.

    Args:
        spec: checked by the launcher.
        terms: what the launcher adds.
    """
    return {
        "Image": terms.image_id,
        "User": f"{terms.uid}:{terms.uid}",
        "Entrypoint": list(COMMAND),
        "Cmd": [],
        "Env": [*environment(spec), *devices.environment(terms.gpu)],
        "WorkingDir": SCRATCH,
        "Labels": dict(terms.labels),
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
        "HostConfig": host_config(spec, terms),
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


def run_of(container: Mapping[str, Any]) -> str:
    """Return the run of a container of ours, as the engine lists it."""
    return str(container["Labels"].get(LABEL_RUN, ""))


def gpu_of(container: Mapping[str, Any]) -> str:
    """Return the device that a container of ours has; empty for none."""
    return str(container["Labels"].get(LABEL_GPU, ""))


def host_config(spec: ContainerSpec, terms: Terms) -> dict[str, JsonValue]:
    """Return the ``HostConfig``: every restriction, and nothing given away."""
    owner = f"uid={terms.uid},gid={terms.uid}"
    tmpfs = f"rw,nosuid,nodev,noexec,nr_inodes={_INODES},{owner},mode=0700"
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
        "SecurityOpt": ["no-new-privileges:true", *terms.selinux],
        "Devices": [],
        "DeviceCgroupRules": [],
        # The one exception to "no devices": what its lease names.
        "DeviceRequests": devices.requests(terms.gpu),
        "Sysctls": {},
        "Runtime": terms.runtime or "runc",
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
