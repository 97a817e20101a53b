"""Under a bound on the address space few threads start, and these before memory is short."""

import os
import resource
import subprocess
import sys

PROBE = """
import os, sys
import opencoder_data.refinecode
from opencoder_data import address_space
import numpy, pyarrow as pa, pyarrow.parquet as pq, pyarrow.dataset, scipy.sparse.csgraph
import opencoder_data.refinecode.pipeline
def status(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
address_space.start_threads()
before = status("Threads:")
table = pa.table({"a": list(range(100_000)), "b": ["x"] * 100_000})
pq.write_table(table, sys.argv[1])
with open(sys.argv[1], "rb") as file:
    pq.read_table(file, filters=[("a", "=", 3)])
pq.ParquetFile(sys.argv[1]).read()
table.sort_by("a").group_by("b").aggregate([("a", "sum")])
print(before, status("Threads:"), status("VmSize:") // 1000, pa.default_memory_pool().backend_name, os.environ.get("OMP_NUM_THREADS"))
"""


def probe(path, memory, **environment):
    """(threads before work, after it, MB of address space, Arrow's allocator, OMP_NUM_THREADS) of a child."""
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "ARROW_DEFAULT_MEMORY_POOL")}
    limit = memory or resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True, env=clean | environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    before, after, size, pool, threads = done.stdout.split()
    return int(before), int(after), int(size), pool, threads


def test_a_bounded_process_has_all_its_threads_before_it_works_and_little_address_space(tmp_path):
    before, after, size, pool, threads = probe(tmp_path / "t.parquet", 1_200_000_000)
    assert (pool, threads) == ("system", "1") and size < 700
    # Arrow's second thread for reading starts when two reads happen to wait.
    assert after <= before + 1 and after <= 5


def test_what_the_environment_says_stays_and_an_unbounded_process_is_left_alone(tmp_path):
    assert probe(tmp_path / "t.parquet", 4_000_000_000, ARROW_DEFAULT_MEMORY_POOL="mimalloc")[3] == "mimalloc"
    assert probe(tmp_path / "t.parquet", 0)[4] == "None"
