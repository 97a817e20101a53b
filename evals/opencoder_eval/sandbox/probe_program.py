"""Runs inside the sandbox, never here: tries what must not be possible and prints what was."""

import ctypes
import json
import os
import socket
import time

CLONE_NEWUSER, PTRACE_TRACEME, LANDLOCK, IO_URING, MEMFD = 0x10000000, 0, 444, 425, 319


def read(path):
    with open(path) as file:
        return file.read()


given = json.loads(read("given.json"))
holes = []
status = dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)
libc = ctypes.CDLL(None, use_errno=True)

if os.getuid() == 0 or int(status["CapEff"], 16) or int(status["CapBnd"], 16):
    holes.append("the program is root or has capabilities")
if status.get("NoNewPrivs") != "1":
    holes.append("setuid programs give rights")
for path in given["hidden"]:
    below = any(path == place or path.startswith(place + "/") for place in given["read_only"])
    if os.path.exists(path) and not below and not path.startswith("/usr/") and path not in ("/", "/tmp"):
        holes.append(f"{path} is visible")
for family, address in ((socket.AF_INET, ("127.0.0.1", given["port"])), (socket.AF_UNIX, "\0" + given["abstract"])):
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(address)
            holes.append(f"a socket of this machine was reached: {address!r}")
        except OSError:
            pass
interfaces = [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
# Tunnels of the kernel's own appear in every network namespace; they are down.
if any(name.startswith(("eth", "en", "wl", "docker", "veth")) for name in interfaces):
    holes.append(f"there is a network: {interfaces}")
try:
    os.kill(given["pid"], 0)
    if given["pid"] not in (os.getpid(), os.getppid()) and given["pid"] > 16:
        holes.append("processes of this machine can be signalled")
except OSError:
    pass
if sum(name.isdigit() for name in os.listdir("/proc")) > 4:
    holes.append("processes of this machine can be seen")
for path in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/proc/sys/kernel"):
    try:
        os.close(os.open(os.path.join(path, "opencoder-probe"), os.O_CREAT | os.O_WRONLY))
        holes.append(f"{path} can be written")
    except OSError:
        pass
try:
    names = {entry.split("=")[0] for entry in read("/proc/1/environ").split("\0")}
except OSError:
    names = set()
own = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "PWD", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE"}
own |= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LC_CTYPE", "_", "SHLVL", "OLDPWD", "JAVA_HOME"}
if leaked := (names | set(os.environ)) & set(given["variables"]) - own:
    holes.append(f"environment variables are visible: {', '.join(sorted(leaked)[:5])}")
if libc.unshare(CLONE_NEWUSER) == 0:
    holes.append("new user namespaces can be made")
space = os.statvfs("/tmp")
if space.f_frsize * space.f_blocks > given["file_bytes"] + (1 << 20):
    holes.append("the work directory is larger than its limit")
children = []
try:
    for _ in range(given["processes"] + 4):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    holes.append("more processes than the limit")
except OSError:
    pass
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
version = libc.syscall(LANDLOCK, None, 0, 1)
layers = {
    "namespaces": "bubblewrap",
    "seccomp": "filter" if status.get("Seccomp") == "2" else "no: not known for this architecture",
    "landlock": f"version {version}" if version > 0 else "no: not in this kernel",
}
print(json.dumps({"holes": holes, "layers": layers}))
