"""The whole chain on a Ray cluster of two nodes gives the bytes of the embedded engine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opencoder_data.pipeline.executors import RayExecutor
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.pipeline import run_pipeline

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # read when ray is imported; the engine sets it for itself
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

COMMON = ("engine.progress=false", "layout.partition_mb=0.05", "layout.shuffle_rows=200", "sample.ratios=java=0.5")


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and two workers with one each: address."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes.address
    nodes.shutdown()


def where(seconds):
    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id()


def same_files(one: Path, two: Path) -> int:
    """Every file of a run but its timings and its record of the command has the same bytes; returns how many."""
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    compared = [n for n in names if n.name not in ("timings.json", "run.json")]
    for name in compared:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    return len(compared)


def test_tasks_go_to_both_workers(cluster):
    executor = RayExecutor(load(None, [f"engine.ray_address={cluster}", "engine.executor=ray"]).engine)
    try:
        assert executor.workers == 2
        assert len({node for _, node in executor.run(where, [(0.5,)] * 8)}) == 2
    finally:
        executor.close()


@pytest.mark.parametrize(
    "overrides", [(), ("fuzzy_dedup.level=repo",), ("fuzzy_dedup.level=chunk", "filter.time_limit_s=0")]
)
def test_two_ray_workers_give_the_same_files(cluster, overrides, tmp_path, corpus_writer):
    corpus_writer(tmp_path / "in", families=12)
    inputs = [str(tmp_path / "in")]
    run_pipeline(load(None, [*COMMON, *overrides, "engine.workers=1"]), inputs, str(tmp_path / "local"))
    on_ray = load(None, [*COMMON, *overrides, "engine.executor=ray", f"engine.ray_address={cluster}"])
    summary = run_pipeline(on_ray, inputs, str(tmp_path / "ray"))
    assert same_files(tmp_path / "local", tmp_path / "ray") > 100
    dropped = {d["stage"] for d in summary["files_dropped"]}
    assert {"ingest", "exact_dedup", "filter", "sample"} <= dropped and summary["files_kept"] > 10


def test_command_line_on_the_cluster_and_a_bad_file(cluster, tmp_path, corpus_writer):
    corpus_writer(tmp_path / "in", families=4)
    (tmp_path / "in" / "broken.tar.gz").write_bytes(b"\x1f\x8b broken")
    command = [
        sys.executable,
        "-m",
        "opencoder_data.refinecode",
        f"--input={tmp_path / 'in'}",
        "--engine.progress=false",
    ]
    for name, engine in (("local", []), ("ray", ["--engine.executor=ray", f"--engine.ray_address={cluster}"])):
        done = subprocess.run(
            [*command, f"--output={tmp_path / name}", *engine], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "unreadable_archive" in done.stdout
    assert same_files(tmp_path / "local", tmp_path / "ray") > 20


def test_unreachable_cluster_is_one_clear_line(tmp_path, corpus_writer, capsys):
    from opencoder_data.refinecode.__main__ import main

    corpus_writer(tmp_path / "in", families=1)
    arguments = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--engine.executor=ray"]
    assert main([*arguments, "--engine.ray_address=127.0.0.1:1"]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("error: engine.ray_address")
