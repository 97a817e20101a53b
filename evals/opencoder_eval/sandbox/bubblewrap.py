"""The bubblewrap command of a run: what of this machine a program sees, and with which rights."""

from __future__ import annotations

import glob
import itertools
import math
import os
import shutil
from collections.abc import Mapping, Sequence

from opencoder_eval.sandbox.results import Limits, SandboxError

NOBODY = 65534
WORK = "/tmp/work"
OPEN_FILES, STACK_BYTES = 512, 32 << 20
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp/home",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # The same verdict each time, and no threads that the limit on processes would stop.
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Of /etc: what programs of /usr need to start; no names of users, hosts or keys.
ETC = """
alternatives ld.so.cache ld.so.conf ld.so.conf.d localtime mime.types magic terminfo fonts
php mono fpc*.cfg ldc2.conf R emacs vim groovy racket ghc erlang lua perl python3* java-*-openjdk
"""
VAR = ("/var/lib/ghc", "/var/lib/php")
DEVICES = ("null", "zero", "full", "random", "urandom")
PASSWD = f"root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:{NOBODY}:{NOBODY}:nobody:/tmp/home:/bin/sh\n".encode()
GROUP = f"root:x:0:\nnogroup:x:{NOBODY}:\n".encode()
HOSTS = b"127.0.0.1 localhost sandbox\n::1 localhost\n"
SYSTEM_FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP, "/etc/hosts": HOSTS}


def environment() -> dict[str, str]:
    """Of every program."""
    java = shutil.which("java", path="/usr/bin:/bin")
    home = {} if java is None else {"JAVA_HOME": os.path.dirname(os.path.dirname(os.path.realpath(java)))}
    return {**ENVIRONMENT, **home}


def program() -> str:
    """The path of bwrap. Raises: SandboxError if it is not installed."""
    found = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin")
    if found is None:
        raise SandboxError(
            "bubblewrap is not installed, and untrusted programs run in it only: `apt-get install bubblewrap` "
            "(or your system's package of that name)"
        )
    return found


def outer(environment: Mapping[str, str]) -> list[str]:
    """The part of the command that is the same for all runs, from the change of user to the mounts.

    environment: of the programs.
    Raises: SandboxError if bwrap or setpriv is missing.
    """
    command = []
    if os.geteuid() == 0:
        # Real root is not held by limits on processes, and a namespace made by it can read root's files.
        setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin")
        if setpriv is None:
            raise SandboxError("started as root, and setpriv (package util-linux) is missing: run as another user")
        command += [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--"]
    command += [program(), "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--disable-userns"]
    command += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--cap-drop", "ALL"]
    command += ["--die-with-parent", "--new-session", "--clearenv"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    for name in [*itertools.chain(*(sorted(glob.glob(f"/etc/{name}")) for name in ETC.split())), *VAR]:
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.exists(name):
            command += ["--ro-bind", name, name]
    command += ["--proc", "/proc", "--size", "65536", "--tmpfs", "/dev"]
    for name in DEVICES:
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        command += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    command += ["--symlink", "/tmp/.shm", "/dev/shm", "--remount-ro", "/dev"]
    return command


def inner(limits: Limits, read_only: Sequence[str], files: Sequence[tuple[int, str]]) -> list[str]:
    """The part of a run: the one place that can be written, then files (descriptor, path), then all else is sealed."""
    command = ["--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs", "/tmp"]
    for name in ("/tmp/.shm", "/tmp/home", WORK):
        command += ["--perms", "0700", "--dir", name]
    for name in read_only:
        command += ["--ro-bind", name, name]
    for descriptor, path in files:
        command += ["--perms", "0644", "--file", str(descriptor), path]
    return [*command, "--remount-ro", "/", "--chdir", WORK]


def resource_limits(limits: Limits, *, address_space: bool) -> list[str]:
    """`prlimit` with the limits that the kernel keeps for each process; the whole tree is watched from outside.

    They are set inside the sandbox: before it, they would bound all sandboxes of the user together.
    address_space: also bound virtual memory; virtual machines (Java, Go, Node) do not start with it.
    """
    prlimit = shutil.which("prlimit", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if prlimit is None:
        raise SandboxError("prlimit (package util-linux) is missing: install it")
    seconds = math.ceil(limits.cpu_seconds) + 1
    command = [prlimit, f"--nproc={limits.processes}", f"--nofile={OPEN_FILES}", "--core=0"]
    command += [f"--fsize={limits.file_bytes}", f"--cpu={seconds}:{seconds + 1}", f"--stack={STACK_BYTES}"]
    if address_space:
        command.append(f"--as={limits.memory_bytes + (3 << 30)}")
    return [*command, "--"]
