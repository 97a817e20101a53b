"""Memory does not grow with the corpus, and `engine.memory_mb` holds for all processes together."""

import json
import os
import random
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import zstandard
from opencoder_data.refinecode.config import LayoutConfig, load
from opencoder_data.refinecode.engine import LocalExecutor, workers_within


def texts(seed):
    """Endless files of 1,000 lines of the standard library in random order, 40 KB each, none like another."""
    rng = random.Random(seed)
    lines = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        lines += path.read_text(errors="replace").splitlines(keepends=True)
    while True:
        first = rng.randrange(len(lines) - 4_000)
        yield "".join(rng.sample(lines[first : first + 4_000], 1_000))


def write_files(directory, num_bytes):
    """The same first files for any size."""
    directory.mkdir()
    written = 0
    for number, text in enumerate(texts(seed=1)):
        (directory / f"{number}.py").write_text(text)
        written += len(text)
        if written >= num_bytes:
            return


def command(source, output, *options):
    return [sys.executable, "-m", "opencoder_data.refinecode", f"--input={source}", f"--output={output}",
            "--engine.progress=false", *options]  # fmt: skip


def peak_of_one_process(source, output):
    """Largest resident size in bytes of a run with one worker, which is one process; from the kernel's own count."""
    stages = "--stages=ingest,preprocess,exact_dedup,sample"
    layout = ("--layout.batch_mb=0.5", "--layout.partition_mb=1", "--layout.shuffle_rows=2_000")
    process = subprocess.Popen(
        command(source, output, stages, "--engine.workers=1", *layout), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_memory_does_not_follow_the_corpus(tmp_path):
    """The space for data is 15 MB more than a run over 2 MB takes; the corpus has 60 MB."""
    for name, size in (("small", 2e6), ("large", 60e6)):
        write_files(tmp_path / name, size)
    small, large = (peak_of_one_process(tmp_path / n, tmp_path / f"{n}-out") for n in ("small", "large"))
    summary = json.loads((tmp_path / "large-out" / "summary.json").read_text())
    assert summary["files_kept"] > 0.99 * summary["files_in"] and summary["bytes_kept"] > 59e6
    assert large < small + 15e6, f"{small / 1e6:.0f} MB, then {large / 1e6:.0f} MB"


def test_workers_follow_the_bound():
    assert workers_within(10_000, LayoutConfig()) == 7
    with pytest.raises(ValueError, match=r"memory_mb=900 is too little for one worker, which takes 1450"):
        workers_within(900, LayoutConfig())
    config = load(None, ["engine.memory_mb=3000", "engine.workers=8"])
    assert LocalExecutor(config.engine, config.layout).workers == 2


def tree_bytes(root):
    """Proportional set size of a process and all its descendants: shared pages count once."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_corpus_of_four_times_the_bound_runs_within_it(tmp_path):
    """As in the published corpus most files are exact copies: each text occurs 16 times."""
    bound_mb, copies = 700, 16
    total = number = 0
    (tmp_path / "in").mkdir()
    for text in texts(seed=2):
        rows = [{"repo_name": f"owner{c}/r", "path": f"{number}.py", "content": text} for c in range(copies)]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with (tmp_path / "in" / f"{number // 16}.jsonl.zst").open("ab") as file:
            file.write(zstandard.ZstdCompressor(1).compress(lines))
        total += len(text) * copies
        number += 1
        if total > 4 * bound_mb * 1e6:
            break
    options = (
        f"--engine.memory_mb={bound_mb}",
        "--layout.batch_mb=1",
        "--layout.partition_mb=4",
        "--layout.shuffle_rows=30_000",
    )
    process = subprocess.Popen(command(tmp_path / "in", tmp_path / "out", *options), stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(0.2)
    assert process.returncode == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["bytes_in"] > 4 * bound_mb * 1e6 and summary["files_in"] == number * copies
    print(f"peak {peak / 1e6:.0f} MB of {bound_mb}")
    assert 100e6 < peak < bound_mb * 1e6
