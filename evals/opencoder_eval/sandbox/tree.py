"""Memory and CPU time of a process and its descendants, from /proc."""

from __future__ import annotations

import os
from typing import NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


# A file that a kernel may be built without.
HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


class Usage(NamedTuple):
    """memory_bytes: resident, shared pages counted once per process. cpu_seconds: with children that were waited for."""

    memory_bytes: int
    cpu_seconds: float
    processes: int


def usage_of_tree(root: int, exact_above: int) -> Usage:
    """What `root` and its descendants use now.

    Args:
      exact_above: bytes; a tree whose resident sizes add up to more is measured again with shared pages divided among
        their processes (slower), where the kernel lets this user read that.
    """
    pids = descendants(root)
    memory, cpu = 0, 0.0
    for pid in pids:
        stat = _read(pid, "stat")
        if stat is None:
            continue
        fields = stat.rpartition(b")")[2].split()  # from field 3 of proc(5) on
        cpu += sum(map(int, fields[11:15])) * TICK
        memory += int(fields[21]) * PAGE
    if memory > exact_above:
        memory = sum(_proportional(pid) for pid in pids)
    return Usage(memory, cpu, len(pids))


def descendants(root: int) -> list[int]:
    """`root` and all below it."""
    if not HAS_CHILDREN:
        return _descendants_by_parents(root)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    todo += map(int, file.read().split())
            except OSError:
                continue
    return found


def _descendants_by_parents(root: int) -> list[int]:
    """As `descendants`, from the parents of all processes of the machine."""
    children: dict[int, list[int]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        stat = _read(int(pid), "stat")
        if stat is not None:
            children.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(int(pid))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def _read(pid: int, name: str) -> bytes | None:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return None


def _proportional(pid: int) -> int:
    """Bytes of memory with shared pages divided among those that share; the resident size where that may not be read."""
    rollup = _read(pid, "smaps_rollup")
    for line in (rollup or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    stat = _read(pid, "stat")
    return 0 if stat is None else int(stat.rpartition(b")")[2].split()[21]) * PAGE
