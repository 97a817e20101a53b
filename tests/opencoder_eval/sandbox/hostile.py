"""Hostile programs: what each tries, and how the sandbox must end it."""

from typing import NamedTuple

from opencoder_eval.sandbox import Limits

MiB = 1 << 20
QUICK = Limits(
    cpu_seconds=1, wall_seconds=30, memory_bytes=128 * MiB, output_bytes=4096, file_bytes=4 * MiB, processes=16
)
SHORT = Limits(
    cpu_seconds=1, wall_seconds=1, memory_bytes=128 * MiB, output_bytes=4096, file_bytes=4 * MiB, processes=16
)


class Attack(NamedTuple):
    program: str
    outcome: str
    limits: Limits = QUICK


# --- using up the machine ---------------------------------------------------------------------------------------------
EXHAUSTING = {
    "loops for ever": Attack("while True: pass", "timeout"),
    "sleeps for ever": Attack("import time; time.sleep(1e6)", "timeout", SHORT),
    "loops in a regular expression": Attack("import re; re.match('(a+)+b', 'a' * 64)", "timeout"),
    "loops in a child while it waits": Attack(
        "import os\nif not os.fork():\n    while True: pass\nos.wait()", "timeout"
    ),
    "spreads its CPU time over children": Attack(
        "import os, time\nfor _ in range(8):\n    if not os.fork():\n        while True: pass\ntime.sleep(1e6)",
        "timeout",
    ),
    "ignores every signal that can be ignored": Attack(
        "import signal\nfor s in signal.valid_signals() - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
    ),
    "stops itself": Attack("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout", SHORT),
    "closes its output and loops": Attack("import os\nos.close(1); os.close(2)\nwhile True: pass", "timeout"),
    "loops in a destructor": Attack("class C:\n def __del__(self):\n  while True: pass\nc = C()", "timeout"),
    "loops in an exit handler": Attack("import atexit\n@atexit.register\ndef f():\n while True: pass", "timeout"),
    "leaves a thread that never ends": Attack(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,)).start()", "timeout", SHORT
    ),
    "bombs with forks": Attack("import os\nwhile True:\n try: os.fork()\n except OSError: pass", "timeout"),
    "uses up memory": Attack("kept = []\nwhile True: kept.append(bytearray(b'x' * 2**20))", "memory"),
    "uses up memory in children": Attack(
        "import os, time\nfor _ in range(8):\n if not os.fork():\n  kept = b'x' * (40 << 20); time.sleep(1e6)\ntime.sleep(1e6)",
        "memory",
    ),
    "uses up memory in one call": Attack("x = [0] * 10**11", "memory"),
    "prints for ever": Attack("while True: print('x' * 100000)", "output_limit"),
    "prints errors for ever": Attack("import sys\nwhile True: sys.stderr.write('x' * 100000)", "output_limit"),
    "prints from a child for ever": Attack(
        "import os\nif not os.fork():\n while True: os.write(1, b'x' * 65536)\nos.wait()", "output_limit"
    ),
    "recurses until it crashes": Attack(
        "import sys\nsys.setrecursionlimit(10**9)\nf = lambda x: [*map(f, [x])]\nf(1)", "failed"
    ),
    "crashes the interpreter": Attack("import ctypes; ctypes.string_at(0)", "failed"),
    "floods the channel of its verdict": Attack(
        "import os\nfor f in range(3, 64):\n try:\n  while True: os.write(f, b'x' * 65536)\n except OSError: pass",
        "output_limit",
    ),
}

# --- getting out, or more rights: each line of a program must fail ----------------------------------------------------
# `denied` ends the program with an error if the action works.
PRELUDE = """
import ctypes, mmap, os, resource, signal, socket, struct, subprocess, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)

def denied(action, *arguments, errors=(OSError, ValueError)):
    try:
        result = action(*arguments)
    except errors:
        return
    raise SystemExit(f"possible: {action} {arguments} gave {result!r}")

def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "denied")

def empty(path):
    if os.path.lexists(path):
        raise SystemExit(f"{path} is visible")
"""
DENIED = {
    "writes to the system": """
for path in ("/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/proc", "/bin/", "/lib/"):
    denied(lambda: Path(path, "opencoder-test").write_text("x"))
denied(lambda: Path("/etc/passwd").write_text("x"))
denied(os.unlink, "/usr/bin/env")
denied(os.rename, "/usr/bin/env", "/usr/bin/env2")
denied(os.chmod, "/usr/bin/env", 0o777)
denied(os.utime, "/usr/bin/env")
""",
    "replaces a module of the standard library": """
denied(lambda: Path(os.__file__).write_text("x"))
denied(lambda: Path(os.__file__).with_name("sitecustomize.py").write_text("x"))
""",
    "looks for homes, secrets and sockets of services": """
for path in ("/root", "/home", "/etc/shadow", "/etc/ssh", "/etc/ssl/private", "/run", "/var/run", "/var/log", "/mnt",
             "/media", "/srv", "/boot", "/sys", "/work", "/opt", "/tmp/.X11-unix", "/var/spool", "/var/lib/docker"):
    empty(path)
assert "root" not in os.listdir("/tmp")
""",
    "reads what processes before it left in /tmp": "assert sorted(os.listdir('/tmp')) == ['.shm', 'home', 'work'], os.listdir('/tmp')",
    "connects to the internet": """
for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM)):
    address = "1.1.1.1" if family == socket.AF_INET else "2606:4700:4700::1111"
    denied(socket.socket(family, kind).connect, (address, 53))
denied(socket.getaddrinfo, "example.com", 80)
denied(socket.create_connection, ("169.254.169.254", 80), 1)
""",
    "opens raw, packet, kernel and virtual machine sockets": """
denied(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for family in (socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG, socket.AF_CAN, socket.AF_BLUETOOTH, 9, 21, 41, 44):
    denied(socket.socket, family, socket.SOCK_RAW)
    denied(socket.socket, family, socket.SOCK_STREAM)
    denied(socket.socket, family, socket.SOCK_SEQPACKET)
""",
    "mounts and remounts": """
def mount(*arguments):
    if libc.mount(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "denied")
def umount(path):
    if libc.umount2(path, 2) == -1:
        raise OSError(ctypes.get_errno(), "denied")
denied(mount, b"none", b"/tmp", b"tmpfs", 0, None)
denied(mount, b"none", b"/usr", None, 32 | 4096, None)
denied(mount, b"/proc/1/root", b"/tmp", None, 4096, None)
denied(umount, b"/tmp")
denied(umount, b"/proc")
denied(call, 430, b"tmpfs", 0)
""",
    "makes namespaces": """
def unshare(flags):
    if libc.unshare(flags) == -1:
        raise OSError(ctypes.get_errno(), "denied")
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x10000000 | 0x00020000 | 0x40000000):
    denied(unshare, flag)
    denied(call, 56 if os.uname().machine == "x86_64" else 220, flag | 17, 0, 0, 0, 0)
denied(call, 435, (0x10000000).to_bytes(8, "little") + bytes(80), 88)
""",
    "joins other namespaces": """
for name in ("mnt", "pid", "net", "user", "uts", "ipc", "cgroup", "time"):
    def join():
        with open(f"/proc/1/ns/{name}") as file:
            if libc.setns(file.fileno(), 0) == -1:
                raise OSError(ctypes.get_errno(), "denied")
    denied(join)
""",
    "changes its root": "denied(os.chroot, '/tmp')",
    "becomes another user": """
denied(os.setuid, 0)
denied(os.seteuid, 0)
denied(os.setgid, 0)
denied(os.setgroups, [0])
denied(os.setresuid, 0, 0, 0)
""",
    "gets rights from setuid programs": """
assert os.statvfs("/usr").f_flag & os.ST_NOSUID and os.statvfs("/tmp").f_flag & os.ST_NOSUID
assert "NoNewPrivs:\\t1" in open("/proc/self/status").read()
seen = subprocess.run(["su", "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
assert seen.returncode and "0" != seen.stdout.strip(), seen
Path("own").write_text("x"); os.chmod("own", 0o4755)
""",
    "traces and reads other processes": """
numbers = (101, 310, 311) if os.uname().machine == "x86_64" else (117, 270, 271)
denied(call, numbers[0], 16, 1, 0, 0)
denied(call, numbers[0], 0, 0, 0, 0)
denied(call, numbers[1], 1, 0, 0, 0, 0, 0)
denied(call, numbers[2], 1, 0, 0, 0, 0, 0)
denied(call, 438, 3, 0, 0)
for name in ("mem", "environ", "maps", "syscall", "stack", "auxv"):
    denied(lambda: open(f"/proc/1/{name}", "rb").read(1))
for name in ("root", "cwd", "exe", "fd/0"):
    denied(os.readlink, f"/proc/1/{name}")
""",
    "uses parts of the kernel that had holes": """
x86 = os.uname().machine == "x86_64"
for number in (425, 426, 427, *((321, 298, 323, 248, 250, 246, 175) if x86 else (280, 241, 282, 217, 219, 104, 105))):
    denied(call, number, 0, 0, 0, 0, 0)
""",
    "keeps memory where it is not counted": """
x86 = os.uname().machine == "x86_64"
denied(os.memfd_create, "x")
denied(call, 29 if x86 else 194, 0, 1 << 30, 0o1600)
denied(call, 68 if x86 else 186, 0, 0o1600)
denied(call, 64 if x86 else 190, 0, 4, 0o1600)
denied(call, 240 if x86 else 180, b"/queue", 0o102, 0o600, None)
""",
    "fills one file": "denied(lambda: open('big', 'wb').write(bytes(8 << 20)))",
    "fills the work directory": """
def fill(directory):
    for i in range(64):
        with open(f"{directory}/{i}", "wb", buffering=0) as file:
            if file.write(bytes(1 << 20)) < 1 << 20:
                raise OSError("full")
denied(fill, ".")
denied(fill, "/tmp")
denied(fill, "/dev/shm")
denied(fill, "/dev")
denied(fill, os.environ["HOME"])
""",
    "opens very many files": "denied(lambda: [open('/dev/null') for _ in range(2000)])",
    "starts very many threads": """
import threading, time
denied(lambda: [threading.Thread(target=time.sleep, args=(9,), daemon=True).start() for _ in range(64)], errors=RuntimeError)
""",
    "starts very many processes": """
def many():
    for _ in range(64):
        if not os.fork():
            signal.pause()
try:
    denied(many)
finally:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(-1, signal.SIGKILL)
""",
    "raises its own limits": """
for name in ("RLIMIT_NPROC", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_CORE"):
    denied(resource.setrlimit, getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
denied(os.nice, -5)
denied(lambda: Path("/proc/self/oom_score_adj").write_text("-900"))
denied(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
""",
    "changes the kernel through procfs": """
for path in ("sys/kernel/core_pattern", "sys/vm/overcommit_memory", "sysrq-trigger", "sys/kernel/ns_last_pid", "sys/user/max_user_namespaces"):
    denied(lambda: Path("/proc", path).write_text("1"))
for path in ("kcore", "kmsg", "timer_list", "self/mem", "vmallocinfo"):
    denied(lambda: open(f"/proc/{path}", "rb").read(1))
""",
    "looks for devices": """
assert sorted(os.listdir("/dev")) == ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
denied(os.mknod, "disk", 0o60600, os.makedev(8, 0))
denied(os.mknod, "/tmp/mem", 0o20600, os.makedev(1, 1))
""",
    "types into the terminal that started it": """
import fcntl
denied(open, "/dev/tty")
for descriptor in (0, 1, 2):
    denied(fcntl.ioctl, descriptor, 0x5412, b"x")
    denied(fcntl.ioctl, descriptor, 0x541C, b"x")
assert not any(map(os.isatty, range(3)))
""",
    "uses descriptors that were left open": """
import stat
for descriptor in range(3, 512):
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        continue
    assert stat.S_ISFIFO(mode), (descriptor, os.readlink(f"/proc/self/fd/{descriptor}"))
    denied(os.read, descriptor, 1)
""",
    "leaves the work directory by links": """
os.symlink("/etc/shadow", "shadow"); denied(open, "shadow")
os.symlink("/proc/1/root", "up"); denied(os.listdir, "up/root")
os.symlink("/usr/bin", "bin"); denied(lambda: Path("bin/x").write_text("x"))
denied(os.link, "/usr/bin/env", "env")
descriptor = os.open(".", os.O_RDONLY)
for _ in range(8):
    descriptor = os.open("..", os.O_RDONLY, dir_fd=descriptor)
assert sorted(os.listdir(descriptor)) == sorted(os.listdir("/"))
""",
    "opens files by handle": """
x86 = os.uname().machine == "x86_64"
denied(call, 303 if x86 else 264, -100, b"/usr", bytes(128), bytes(8), 0)
denied(call, 304 if x86 else 265, 3, bytes(128), 0)
""",
    "sets the clock, the host name, reboots, loads modules": """
import time
denied(time.clock_settime, time.CLOCK_REALTIME, 0)
denied(socket.sethostname, "x")
x86 = os.uname().machine == "x86_64"
denied(call, 169 if x86 else 142, 0xfee1dead, 672274793, 0)
denied(call, 167 if x86 else 224, b"/tmp/x", 0)
denied(call, 103 if x86 else 116, 3, bytes(100), 100)
assert socket.gethostname() == "sandbox"
""",
    "enters the kernel by another door": """
if os.uname().machine == "x86_64":
    # int 0x80: 32-bit system calls have other numbers, which a filter for 64-bit ones would let through.
    code = bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3])
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pid = os.fork()
    if not pid:
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS
""",
    "signals processes of the machine": """
denied(os.kill, 1, signal.SIGKILL) if os.getpid() == 1 else None
for pid in range(16, 4000):
    denied(os.kill, pid, 0)
for pid in filter(str.isdigit, os.listdir("/proc")):
    assert int(pid) in (1, os.getpid()), pid
""",
    "listens where the machine could connect": """
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
client = socket.create_connection(server.getsockname()); client.close()
denied(socket.socket().bind, ("127.0.0.1", 80)) if open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read() == "1024\\n" else None
""",
}
