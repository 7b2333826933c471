"""What makes an engine unfit beyond what one kind of engine says of itself, and what an operator does about it. Pure."""

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from station.sandbox.spec import SelinuxLabel

NO_HOST_SOCKETS: Final = "runsc-without-host-uds"
NO_SELINUX: Final = "no-selinux"
NO_LABELS: Final = "no-selinux-labels-under-podman"
NOT_VISIBLE: Final = "processes-not-visible"

_GENERAL: Final = "Use an engine with cgroup limits and seccomp, without user namespace remapping."
_DELEGATE: Final = "Delegate the controllers to Podman's user: systemctl edit user@.service, then [Service] and Delegate=cpu cpuset io memory pids."
_EXPLAINED: Final[Mapping[str, str]] = {
    "rootless-without-cgroup-v2": "A rootless engine can limit nothing under cgroup v1: start the host with "
    "systemd.unified_cgroup_hierarchy=1, or use a rootful engine.",
    "rootless-without-subordinate-users": "Give Podman's user 65536 subordinate users and groups: "
    "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, then podman system migrate.",
    **{f"no-{name}-controller": _DELEGATE for name in ("cpu", "memory", "pids")},
    "no-crun-or-runc": "Name crun or runc as runtime in /etc/containers/containers.conf.",
    "rootless-docker": "A train's user is beyond the users that a rootless Docker has: use a rootful Docker, or a rootless Podman under "
    "cgroup v2.",
    NOT_VISIBLE: "The launcher must see the host's processes to hold a train to what was asked for, and /proc hides them: mount /proc with "
    "hidepid=0, or with gid= of a group that the launcher's user is in; in a systemd unit of the launcher, ProtectProc=default.",
    NO_HOST_SOCKETS: "gVisor connects a train to its control socket only when started with --host-uds=open: add it to the "
    "runtimeArgs of runsc in /etc/docker/daemon.json and restart Docker.",
    NO_SELINUX: "The engine does not use SELinux, so nobody would enforce the label: start it with SELinux (Docker: "
    '"selinux-enabled": true), or remove selinux_type and selinux_level from station.toml.',
    NO_LABELS: "Labels of one's own are asked of Docker only: remove selinux_type and selinux_level from station.toml; "
    "Podman labels its containers itself.",
    "no-runsc": "Install gVisor (Debian: apt-get install runsc) and name it in /etc/docker/daemon.json: "
    '{"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--host-uds=open"]}}}.',
    "no-crun": "Install crun and name it under runtimes in /etc/docker/daemon.json, or choose another engine.runtime.",
}
_OPTIONS: Final = ("--host-uds=open", "--host-uds=all", "-host-uds=open", "-host-uds=all")


def lacks_host_sockets(runtime: str, runtimes: JsonValue) -> bool:
    """Whether gVisor is started without what lets a train connect to its socket.

    Where its arguments are kept elsewhere (a shim's own configuration) they cannot be seen here: then a train does not connect.

    Args:
        runtime: the one that trains run under.
        runtimes: ``Runtimes`` of the engine's ``GET /info``.
    """
    found = runtimes.get(runtime) if isinstance(runtimes, dict) else None
    if runtime != "runsc" or not isinstance(found, dict) or not found.get("path"):
        return False
    arguments = found.get("runtimeArgs")
    return not any(option in _OPTIONS for option in (arguments if isinstance(arguments, list) else []))


def without_labels(engine: str, info: Mapping[str, JsonValue], label: SelinuxLabel) -> tuple[str, ...]:
    """Return why an engine would not enforce a label of the hospital's choice; nothing where there is none, or it would.

    Args:
        engine: the dialect's name.
        info: its ``GET /info``.
        label: what the hospital chose.
    """
    if not label.options:
        return ()
    options = info.get("SecurityOptions")
    listed = any(
        str(option).split(",")[0] == "name=selinux"
        for option in (options if isinstance(options, list) else [])
    )
    return (*(() if listed else (NO_SELINUX,)), *(() if engine == "docker" else (NO_LABELS,)))


def explained(name: str) -> str:
    """Return what an operator does about an engine that is unfit for a reason."""
    return _EXPLAINED.get(name, _GENERAL)
