"""A seccomp filter as bubblewrap loads it: a short list of system calls that no program under test needs fails with an errno.

Namespaces already keep the program in; the filter takes away kernel interfaces with a history of holes (io_uring, bpf,
userfaultfd, keyrings, nested namespaces), sockets that a network namespace does not confine (vsock), memory that
the watchdog cannot see (memfd, System V segments), and reading another process of the sandbox (ptrace).

source: classic BPF over `struct seccomp_data` {int nr; u32 arch; u64 ip; u64 args[6]}, linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import errno
import os
import struct

# name: number on x86_64, number on aarch64 (None: the call does not exist there).
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
# Programs that ask whether the kernel has these are told that it has not, and do without.
MISSING: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435),  # its flags are in memory, where a filter cannot look; libraries go on with clone
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00000080
CLONE, IOCTL, SOCKET = (56, 220), (16, 29), (41, 198)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into the terminal of whoever started us
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32_BIT = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24


def program(machine: str | None = None) -> bytes | None:
    """The filter for `machine` (default: this one's `uname -m`); None where its system call numbers are not known here."""
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        return None
    column, audit = ARCHITECTURES[machine]
    code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NR)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, X32_BIT), (_RETURN, 0, 0, _KILL)]
    for table, number in ((DENIED, errno.EPERM), (MISSING, errno.ENOSYS)):
        for numbers in table.values():
            if numbers[column] is not None:
                code += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERRNO | number)]
    code += _if_call(CLONE[column], [(_LOAD, 0, 0, _ARG0), (_ANY_BIT, 0, 1, NAMESPACES), *_fail(errno.EPERM)])
    code += _if_call(
        IOCTL[column],
        [(_LOAD, 0, 0, _ARG1), (_EQUAL, 1, 0, TIOCSTI), (_EQUAL, 0, 1, TIOCLINUX), *_fail(errno.EPERM)],
    )
    families = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
    allowed = [(_EQUAL, len(families) - i, 0, family) for i, family in enumerate(families)]
    code += _if_call(SOCKET[column], [(_LOAD, 0, 0, _ARG0), *allowed, *_fail(errno.EAFNOSUPPORT)])
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", op, true, false, value) for op, true, false, value in code)


def _fail(number: int) -> list[tuple[int, int, int, int]]:
    return [(_RETURN, 0, 0, _ERRNO | number)]


def _if_call(number: int, then: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """`then` for this system call; what it does not return is allowed."""
    return [(_EQUAL, 0, len(then) + 1, number), *then, (_RETURN, 0, 0, _ALLOW)]
