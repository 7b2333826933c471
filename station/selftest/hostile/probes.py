"""Every probe by its name."""

from collections.abc import Callable

from . import gpu, identity, kernel, network, places, privileges, resources
from .attempts import Attempts

Probe = Callable[[Attempts, dict[str, object]], None]

PROBES: dict[str, Probe] = {
    probe.__name__.replace("_", "-"): probe
    for probe in (
        network.network_v4, network.network_v6, network.dns, network.raw, network.netlink, network.vsock, network.abstract,
        places.engine_socket, places.launcher_socket, places.host_paths, places.other_cohort, places.other_patient,
        places.cohort_written, places.control_socket, places.second_connection, places.write_outside, places.run_written, places.mounted_below,
        kernel.proc_processes, kernel.proc_reads, kernel.proc_writes, kernel.sys_files, kernel.devices, kernel.keyring,
        kernel.clock, kernel.modules, kernel.programs_in_the_kernel, kernel.userfaultfd, kernel.io_uring,
        privileges.users, privileges.set_user_id, privileges.capabilities, privileges.seccomp, privileges.namespaces,
        privileges.mounts, privileges.seen_mounts, privileges.other_processes, privileges.shared_memory,
        privileges.control_groups,
        resources.forks, resources.zombies, resources.memory, resources.disk, resources.inodes, resources.open_files,
        resources.file_size, resources.output, resources.processor, resources.core_dump, resources.ceilings,
        gpu.gpu_mark, gpu.gpu_residue, gpu.gpu_others,
        identity.names, identity.environment, identity.start, identity.left_behind, identity.second_program,
    )
}  # fmt: skip
