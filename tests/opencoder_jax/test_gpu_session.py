"""The GPU session as far as a CPU goes: entries that fit, parts that fail, time that runs out, and a whole small session."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from opencoder_jax.perf.plan import topology
from opencoder_jax.perf.plan.estimate import estimate
from scripts.benchmarks import bench_gpu, bench_kernels, check_kernels, gpu_session
from scripts.benchmarks.gpu_session import DONE, FAILED, LATE, Part, Session

ROOT = Path(__file__).parents[2]
SLEEP = ["-n", "1", "-r", "1", "import time; time.sleep(60)"]
DEVICE = {"kind": "NVIDIA H100 80GB HBM3", "platform": "gpu", "jax": "0", "memory_gib": 79.1, "driver": "", "arena": 0}
# A machine that has JAX, Flax, Optax and Orbax alone.
BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"grain", "tensorboardX", "tqdm", "xxhash", "sentencepiece", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_every_entry_fits_its_gpu_by_the_analytical_estimate(gpu):
    machine = topology.parse(f"{gpu}:1x1")
    tries = bench_gpu.entries(machine.spec.memory / 2**30)
    assert {"8b_bf16", "1p5b"} <= set(tries)
    for name, several in tries.items():
        for one in several:
            config = bench_gpu.configured(name, one, [])
            needed = estimate(config, {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}, machine).memory
            assert needed < machine.memory_limit, (name, one.words, needed / 2**30)


def test_the_8b_on_80_gb_is_one_record_in_bf16_with_minimal_recomputation():
    config = bench_gpu.configured("8b_bf16", bench_gpu.entries(79.1)["8b_bf16"][0], [])
    assert (config.model.num_layers, config.model.embed_dim, config.data.seq_len) == (32, 4096, 8192)
    assert config.data.global_batch_size == 1
    assert (config.model.param_dtype, config.optimizer.moment_dtype) == ("bfloat16", "bfloat16")
    assert config.model.remat == "minimal"


def swiglu(spoil):
    """The case of swiglu at small size, whose xla backend is followed by `spoil`."""
    (case,) = (c for c in check_kernels.cases("tiny") if c.operation == "swiglu")

    def build(backend):
        run = case.build(backend)
        return run if backend == "reference" else lambda *args: spoil(run(*args))

    return check_kernels.Case(case.operation, case.name, build, case.arguments)


@pytest.mark.parametrize(
    ("spoil", "passes"),
    [
        (lambda x: x, True),
        (lambda x: x * jnp.bfloat16(1.02), False),
        (lambda x: x.at[0, 0].set(jnp.nan), False),
        (lambda x: x.at[:2].set(0), False),  # 2 of 256 rows were left out
        (lambda x: x + 1e-9 * (x**2).sum(), True),
    ],
)
def test_a_backend_passes_only_with_right_values_and_gradients(spoil, passes):
    (row,) = check_kernels.check(swiglu(spoil), contextlib.nullcontext)
    assert row["backend"] == "xla"
    assert row["passed"] is passes
    assert len(row["errors"]) == 4  # the result and three gradients


def test_an_error_beyond_any_rounding_never_passes():
    assert check_kernels.judge([0.01], [0.006])
    assert not check_kernels.judge([0.2], [0.2])  # the reference in bf16 went wrong as well


def test_finished_cells_are_kept_and_one_that_killed_its_process_is_not_tried_again(tmp_path):
    file = tmp_path / "rows.jsonl"
    kept = bench_kernels.Kept(file, 100)
    assert kept.get("a", lambda: (1.5, 7)) == (1.5, 7)
    with pytest.raises(KeyboardInterrupt):
        kept.get("b", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    again = bench_kernels.Kept(file, 100)
    assert again.get("a", lambda: pytest.fail("measured again")) == (1.5, 7)
    assert again.get("b", lambda: pytest.fail("tried again")) == "did not end in an earlier run"
    late = bench_kernels.Kept(file, -1)
    assert late.get("a", lambda: pytest.fail("measured again")) == (1.5, 7)
    assert late.get("c", lambda: pytest.fail("begun too late")) == bench_kernels.NO_TIME


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Calls the command with parts of our own; returns (exit code, record)."""
    monkeypatch.setattr(gpu_session, "machine", lambda: DEVICE)

    def call(parts: list[Part], *more: str) -> tuple[int, dict]:
        monkeypatch.setattr(Session, "parts", lambda self: parts)
        code = gpu_session.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *more])
        record = tmp_path / "out" / "session.json"
        return code, json.loads(record.read_text())["parts"] if record.exists() else {}

    return call


def test_parts_that_fail_or_hang_do_not_end_the_others_and_are_tried_again(session, tmp_path, capsys):
    ran = ["-n", "1", "-r", "1", f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"]
    parts = [
        Part("broken", "timeit", lambda _: ["-n", "1", "nonsense + 1"], 30),
        Part("hangs", "timeit", lambda _: SLEEP, 1),
        Part("good", "timeit", lambda _: ran, 30),
    ]
    code, record = session(parts, "--minutes=2")
    assert code == 1
    assert {name: part["state"] for name, part in record.items()} == {"broken": FAILED, "hangs": LATE, "good": DONE}
    assert "NameError" in record["broken"]["why"]
    assert "stopped after 1 s" in record["hangs"]["why"]
    assert (tmp_path / "ran").read_text() == "x"
    assert "| broken | failed |" in (tmp_path / "out" / "README.md").read_text().replace("  ", "")
    mended = [Part(part.name, "timeit", lambda _: ran, 30) for part in parts]
    code, record = session(mended)
    assert code == 0
    assert {part["state"] for part in record.values()} == {DONE}
    assert (tmp_path / "ran").read_text() == "xxx"  # what was done before has not run again
    assert session(mended, "--again", "good")[0] == 0
    assert (tmp_path / "ran").read_text() == "xxxx"
    assert session(mended, "--again", "goood")[0] == 2
    assert "no such part; there are: broken, hangs, good" in capsys.readouterr().err


def test_a_part_without_time_is_not_begun(session):
    code, record = session([Part("late", "timeit", lambda _: SLEEP, 100)], "--minutes=0.01")
    assert code == 1
    assert record["late"]["state"] == LATE
    assert "no time left" in record["late"]["why"]


def test_wrong_use_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "session.json").write_text("{")
    monkeypatch.setattr(gpu_session, "machine", lambda: DEVICE)
    assert gpu_session.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 2
    assert "not a record of a session" in capsys.readouterr().err
    monkeypatch.setattr(gpu_session, "machine", lambda: DEVICE | {"platform": "cpu", "kind": "cpu"})
    assert gpu_session.main([]) == 2
    monkeypatch.setattr(gpu_session, "machine", lambda: DEVICE | {"memory_gib": 40.0})
    assert gpu_session.main([]) == 2
    said = capsys.readouterr().err
    assert "'cpu', not a GPU; --smoke" in said
    assert "40 GiB; the smallest entries need 70" in said


@pytest.mark.slow
def test_a_small_session_runs_without_what_the_trainer_needs_besides_jax(tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(BARE)
    out = tmp_path / "out"
    arguments = ["scripts/benchmarks/gpu_session.py", "--smoke", f"--out={out}", f"--work={tmp_path / 'work'}"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "bare"), "JAX_PLATFORMS": "cpu"}

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )

    done = call()
    assert done.returncode == 0, done.stdout + done.stderr
    states = {name: part["state"] for name, part in json.loads((out / "session.json").read_text())["parts"].items()}
    assert states == {"correctness tiny": DONE, "step tiny": DONE, "kernels tiny": DONE}
    checked = json.loads((out / "correctness_tiny.json").read_text())["rows"]
    assert {r["operation"] for r in checked if r["backend"] == "mosaic_gpu" and r["passed"]} == {
        "attention", "swiglu", "rms_norm", "linear_cross_entropy",
    }  # fmt: skip
    (row,) = json.loads((out / "steps.json").read_text())
    assert row["median_seconds"] > row["plan_seconds"] > 0
    assert row["compiled_bytes"] > 2**20
    assert "| tiny " in (out / "steps.md").read_text()
    assert "## Operations that take longest" in (out / "profile_tiny.md").read_text()
    assert "linear_cross_entropy | forward + backward | xla |" in (out / "kernels_tiny.md").read_text()
    assert call().stdout.count("done before") == 3
