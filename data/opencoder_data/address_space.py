"""A process whose address space is bounded (`ulimit -v`, RLIMIT_AS) starts few threads, and these before memory is short.

A thread of a C++ library that finds no space ends the process (std::system_error), whatever Python would have caught. Measured
with pyarrow 25 and numpy 2 on two cores: OpenBLAS takes 40 MB for each thread, glibc 64 MB of heap for each, Arrow's default
allocator 1 GB at its first use.
"""

import contextlib
import ctypes
import os

_SETTINGS = {
    "OMP_NUM_THREADS": "1",  # OpenBLAS of numpy and scipy, Arrow's pool for computing
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "2",  # with one, reading a data set can wait for itself
    "MALLOC_ARENA_MAX": "1",
}
_M_ARENA_MAX = -8  # of malloc.h
_started: set[int] = set()


def bounded() -> bool:
    """Whether this process has a limit on its address space."""
    try:
        import resource
    except ImportError:  # not a Unix
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def fit() -> None:
    """Before numpy and pyarrow are imported: few threads and small heaps, here and in processes started from here.

    What the user has set in the environment stays.
    """
    if not bounded():
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(OSError, AttributeError, ValueError):  # another C library: heaps as it has them
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, int(os.environ["MALLOC_ARENA_MAX"]))


def start_threads() -> None:
    """Arrow's threads start now, once in a process, rather than when a hostile input has filled the memory."""
    if os.getpid() in _started or not bounded():
        return
    _started.add(os.getpid())
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(int(os.environ["OMP_NUM_THREADS"]) if os.environ.get("OMP_NUM_THREADS", "").isdigit() else 1)
    table = pa.table({"a": [0, 1], "b": ["x", "y"]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    # One read of each kind that the stages use.
    pq.ParquetFile(pa.BufferReader(sink.getvalue())).read()
    pq.read_table(pa.BufferReader(sink.getvalue()), filters=[("a", "=", 1)])
    table.sort_by("a")
