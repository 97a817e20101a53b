"""The filter, run by a small interpreter of classic BPF."""

import errno
import re
import struct
from pathlib import Path

import pytest
from opencoder_eval.sandbox import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
X86, ARM = 0xC000003E, 0xC00000B7


def decide(program: bytes, nr: int, arch: int, *arguments: int) -> int:
    """What the kernel would return for a system call."""
    data = struct.pack("=iIQ6Q", nr, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code = [struct.unpack_from("=HBBI", program, i) for i in range(0, len(program), 8)]
    at, value = 0, 0
    while True:
        op, true, false, k = code[at]
        at += 1
        if op == 0x20:
            (value,) = struct.unpack_from("=I", data, k)
        elif op == 0x06:
            return k
        else:
            held = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[op]
            at += true if held else false


@pytest.mark.parametrize(("machine", "arch", "column"), [("x86_64", X86, 0), ("aarch64", ARM, 1)])
def test_denied_calls_fail_and_others_pass(machine, arch, column):
    program = seccomp.program(machine)
    denied = {n[column]: errno.EPERM for n in seccomp.DENIED.values()} | {
        n[column]: errno.ENOSYS for n in seccomp.MISSING.values()
    }
    special = {seccomp.CLONE[column], seccomp.IOCTL[column], seccomp.SOCKET[column]}
    for nr in set(range(460)) - special:
        wanted = ERRNO | denied[nr] if nr in denied else ALLOW
        assert decide(program, nr, arch) == wanted, nr
    clone, ioctl, socket = seccomp.CLONE[column], seccomp.IOCTL[column], seccomp.SOCKET[column]
    assert decide(program, clone, arch, 0x01200011) == ALLOW and decide(program, clone, arch, 0x3D0F00) == ALLOW
    for bit in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(program, clone, arch, bit | 17) == ERRNO | errno.EPERM
    assert decide(program, ioctl, arch, 1, 0x5401) == ALLOW
    assert {decide(program, ioctl, arch, 1, x) for x in (0x5412, 0x541C)} == {ERRNO | errno.EPERM}
    families = [f for f in range(50) if decide(program, socket, arch, f) == ALLOW]
    assert families == [1, 2, 10, 16]


def test_other_architectures_are_killed():
    program = seccomp.program("x86_64")
    assert decide(program, 1, 0x40000003) == KILL and decide(program, 1, ARM) == KILL
    assert decide(program, 0x40000000 | 1, X86) == KILL
    assert decide(seccomp.program("aarch64"), 1, X86) == KILL


def test_an_architecture_without_numbers_has_no_filter():
    assert seccomp.program("riscv64") is None


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_the_numbers_are_those_of_the_kernels_headers(header, column):
    if not Path(header).exists():
        pytest.skip(f"{header} (package linux-libc-dev) is not installed")
    known = dict(re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    for name, numbers in (seccomp.DENIED | seccomp.MISSING).items():
        if numbers[column] is not None and name in known:
            assert int(known[name]) == numbers[column], name
