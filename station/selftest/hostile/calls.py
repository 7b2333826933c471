"""System calls that Python has no function for, by number, on the two architectures that stations run on."""

import ctypes
import errno
import os

# The numbers of x86_64 and of aarch64 (the kernel's generic table), from asm/unistd.h.
NUMBERS = {
    "add_key": (248, 217), "bpf": (321, 280), "clock_settime": (227, 112), "clone3": (435, 435), "finit_module": (313, 273),
    "fsmount": (432, 432), "fsopen": (430, 430), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_setup": (425, 425), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pivot_root": (155, 41), "process_vm_readv": (310, 270), "ptrace": (101, 117), "reboot": (169, 142),
    "request_key": (249, 218), "setns": (308, 268), "settimeofday": (164, 170), "swapon": (167, 224),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "name_to_handle_at": (303, 264),
    "acct": (163, 89), "adjtimex": (159, 171), "syslog": (103, 116), "iopl": (172, -1), "sethostname": (170, 161),
    "quotactl": (179, 60), "fanotify_init": (300, 262), "memfd_create": (319, 279), "kcmp": (312, 272),
}  # fmt: skip
_COLUMN = {"x86_64": 0, "aarch64": 1}[os.uname().machine]

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def call(name: str, *arguments: "int | bytes | ctypes.Array[ctypes.c_char] | None") -> int:
    """Make a system call; raises `OSError` where the kernel says no."""
    number = NUMBERS[name][_COLUMN]
    if number < 0:
        raise OSError(errno.ENOSYS, "not on this architecture")
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def libc() -> ctypes.CDLL:
    """Return the C library, for the few functions that are none of the kernel's."""
    return _LIBC
