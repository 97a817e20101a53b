"""The whole chain on a private Ray cluster of two workers gives the bytes of the embedded engine."""

import os

import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.pipeline import run_pipeline

pytest.importorskip("ray")


@pytest.mark.cluster
def test_two_ray_workers_give_the_same_rows(tmp_path, corpus_writer):
    corpus_writer(tmp_path / "in", families=12)
    common = ["engine.progress=false", "layout.partition_mb=0.05", "filter.time_limit_s=0"]
    run_pipeline(load(None, [*common, "engine.workers=1"]), [str(tmp_path / "in")], str(tmp_path / "local"))
    ray = load(None, [*common, "engine.executor=ray", "engine.workers=2"])
    run_pipeline(ray, [str(tmp_path / "in")], str(tmp_path / "ray"))
    compared = 0
    for folder, _, names in os.walk(tmp_path / "local"):
        for name in names:
            if name.endswith(".parquet"):
                path = os.path.join(folder, name)
                twin = path.replace(str(tmp_path / "local"), str(tmp_path / "ray"))
                with open(path, "rb") as a, open(twin, "rb") as b:
                    assert a.read() == b.read(), path
                compared += 1
    assert compared > 30
