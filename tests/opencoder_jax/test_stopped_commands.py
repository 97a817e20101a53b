"""Every long command, stopped at random moments: one line and exit code 130, or killed outright; no process is left, and
the same command then ends with the bytes of one that was never stopped. Also few open files and a bare locale."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
from opencoder_data.tokenizer import Tokenizer
from oracle import golden

from opencoder_jax.checkpoint import Checkpoints, load_params, run_record
from opencoder_jax.config import replace
from opencoder_jax.hf import mapping as hf
from tests.opencoder_jax.training import ROOT, environment

pytestmark = pytest.mark.slow
TRIALS = 4
# Files that differ from run to run, as times do.
TIMED = ("sweep", "profile", "plan")


@dataclass(frozen=True)
class Command:
    name: str
    arguments: list[str]
    output: str


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Under a name that is not ASCII: corpus, tokenizer, run, release and a finished RefineCode run."""
    base = tmp_path_factory.mktemp("wörld-世界")
    (base / "corpus").mkdir()
    (base / "out").mkdir()
    files = sorted(p for p in ROOT.rglob("*.py") if not set(p.parts) & {".venv", ".venv-oracle"})[:120]
    for i, path in enumerate(files):
        (base / "corpus" / f"{i}-é.py").write_bytes(path.read_bytes())
    words = [str(base / "corpus"), "--vocab_size", "640", "--num_threads", "1"]
    run(["opencoder_data.tokenizer", "train", "--output", str(base / "tok"), "--input", *words])
    cfg = replace(golden.FAMILIES["gqa"], vocab_size=640)
    config = replace(golden.run_config(cfg), name="x")
    checkpoints = Checkpoints(base / "run", config.checkpoint)
    state = {"params": jax.device_put(hf.from_hf(cfg, golden.weights(cfg, 0)))}
    checkpoints.save(3, state, run_record(config, 3, {"tokenizer": Tokenizer(base / "tok").hash}))
    checkpoints.close()
    run(
        [
            "opencoder_jax.hf.export",
            f"--checkpoint={base / 'run'}",
            f"--tokenizer={base / 'tok'}",
            f"--to={base / 'hf'}",
        ]
    )
    refine = [f"--input={base / 'corpus'}", f"--output={base / 'refine'}", "--layout.partition_mb=0.2"]
    run(["opencoder_data.refinecode", *refine])
    (base / "micro.py").write_text(
        "from tests.opencoder_jax.training import micro_config\ndef config():\n    return micro_config()\n"
    )
    return base


def command(world: Path, name: str) -> Command:
    to, tok = str(world / "out" / name), f"--tokenizer={world / 'tok'}"
    corpus, micro = str(world / "corpus"), f"--config={world / 'micro.py'}"
    hold_out = ["--holdout=0.2", "--holdout_min_files=1", "--holdout_min_bytes=1", "--seq_len=64"]
    arguments = {
        "tokenizer": ["opencoder_data.tokenizer", "train", "--input", corpus, "--vocab_size=1024", f"--output={to}"],
        "pack": ["opencoder_data.pack", "--input", corpus, tok, f"--output={to}", "--unit_mb=1", "--seq_len=64"],
        "export": ["opencoder_jax.hf.export", f"--checkpoint={world / 'run'}", tok, f"--to={to}"],
        "import": ["opencoder_jax.hf.importer", f"--from={world / 'hf'}", f"--to={to}"],
        "generate": [
            "opencoder_jax.inference.generate",
            f"--checkpoint={world / 'run'}",
            tok,
            "--prompt=é",
            f"--json={to}.json",
        ],
        "split": [
            "opencoder_data.split",
            f"--run={world / 'refine'}",
            f"--output={to}",
            tok,
            *hold_out,
        ],
        "plan": ["opencoder_jax.perf.plan", micro, "--topology=h100:1x2", "--compiler=cpu", f"--out={to}"],
        "profile": ["opencoder_jax.perf.profile", micro, "--mesh.fsdp=1", f"--out={to}"],
        "sweep": [
            "opencoder_jax.perf.sweep.sweep",
            micro,
            "--meshes=fsdp=1;fsdp=2",
            "--fake",
            "--steps=3",
            f"--out={to}",
        ],
    }
    return Command(name, arguments[name], f"{to}.json" if name == "generate" else to)


NAMES = ("tokenizer", "pack", "export", "import", "generate", "split", "plan", "profile", "sweep")


def start(arguments: list[str], variables: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command_line = [sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command_line, env=environment(variables), cwd=ROOT, start_new_session=True, **streams, **options
    )


def run(arguments: list[str], variables: dict[str, str] | None = None, code: int = 0) -> str:
    process = start(arguments, variables or {})
    out, error = process.communicate(timeout=240)
    assert process.returncode == code, out[-2000:] + error[-4000:]
    return error


def processes(mark: str) -> list[int]:
    """Those that have `mark` in their environment and are not zombies."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and mark.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def digest(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def parameters(path: Path) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(load_params(path)[0])
    return {str(name): hashlib.sha256(bytes(memoryview(x).cast("B"))).hexdigest() for name, x in leaves}


def result(done: Command) -> Any:
    """What a rerun must equal: all bytes; the parameters of a checkpoint, which records times; that there is a report."""
    path = Path(done.output)
    if done.name == "import":
        return parameters(path)
    if done.name in TIMED:
        return sorted(p.name for p in path.iterdir() if p.suffix in (".md", ".json") and "result" not in p.name)
    return digest(path)


def lines(error: str) -> list[str]:
    """Of standard error, without progress bars."""
    parts = [line.strip() for line in re.split(r"[\r\n]", error)]
    return [line for line in parts if line and not re.search(r"B/s|part/s|it/s", line)]


def remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True) if Path(path).is_dir() else Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_stopped_at_random_moments_it_ends_with_the_same_bytes(world, name):
    one, draw = command(world, name), random.Random(name)
    began = time.monotonic()
    run(one.arguments)
    took, expected = time.monotonic() - began, result(one)
    remove(one.output)
    for trial in range(TRIALS):
        sent = (signal.SIGINT, signal.SIGKILL)[trial % 2]
        mark = f"OPENCODER_TEST={name}-{trial}-{os.getpid()}"
        process = start(one.arguments, dict([mark.split("=")]))
        try:
            process.wait(draw.uniform(0.2, 1.05 * took))
        except subprocess.TimeoutExpired:
            (os.killpg if trial % 4 < 2 else os.kill)(process.pid, sent)
        _, error = process.communicate(timeout=60)
        deadline = time.monotonic() + 10
        while processes(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes(mark) == []
        assert "Traceback" not in error
        if sent == signal.SIGINT and process.returncode:
            assert (process.returncode, len(lines(error))) == (130, 1), error
            assert lines(error)[0].startswith("stopped by Ctrl-C"), error
        elif Path(one.output).exists() and name in ("export", "import", "tokenizer", "generate"):
            assert result(one) == expected  # whole or absent
            remove(one.output)
    error = run(one.arguments)
    assert result(one) == expected, error
    left = [p.name for p in (world / "out").iterdir() if ".part" in p.name]
    assert left == []


@pytest.mark.parametrize("name", NAMES)
def test_few_open_files_are_one_line(world, name):
    """Rejected at 24; at the least number that is let in, and above, done or one line that names the remedy."""
    import resource

    for limit in (24, 127, 128, 200):
        one = command(world, name)
        remove(one.output)
        before: Callable[[], None] = lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # noqa: E731
        process = start(one.arguments, {}, preexec_fn=before)
        _, error = process.communicate(timeout=240)
        said = [line for line in lines(error) if line.startswith("error: ")]
        if limit < 128:
            assert (process.returncode, len(lines(error))) == (2, 1), error
        if process.returncode:
            assert process.returncode == 2, error
            assert len(said) == 1
            assert "ulimit -n" in said[0]
    remove(one.output)


@pytest.mark.parametrize("name", NAMES)
def test_a_bare_locale_changes_nothing(world, name):
    """All paths hold characters that are not ASCII."""
    one = command(world, name)
    results = []
    for variables in ({"LANG": "C.UTF-8"}, {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}):
        remove(one.output)
        run(one.arguments, variables)
        results.append(result(one))
    remove(one.output)
    assert results[0] == results[1]


def test_the_demo_goes_on_after_every_kind_of_stop(world):
    """Stopped in its first steps: no process of a step is left."""
    (world / "src").mkdir(exist_ok=True)
    for i, path in enumerate(sorted((world / "corpus").iterdir())):
        shutil.copy(path, world / "src" / f"{i}.py")
    arguments = [f"--source={world / 'src'}", f"--out={world / 'demo'}"]
    for trial, sent in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)):
        mark = f"OPENCODER_TEST=demo-{trial}-{os.getpid()}"
        process = subprocess.Popen(
            [sys.executable, "scripts/demo/demo.py", *arguments],
            env=environment(dict([mark.split("=")])), cwd=ROOT, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        step = next(line for line in process.stdout if line.startswith("["))
        assert "1-refine" in step
        time.sleep((1.0, 3.0, 0.1, 8.0)[trial])
        (os.killpg if trial == 3 else os.kill)(process.pid, sent)
        process.stdout.read()
        error = process.stderr.read() if process.stderr else ""
        code = process.wait(60)
        deadline = time.monotonic() + 15
        while processes(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes(mark) == []
        if sent == signal.SIGINT:
            assert (code, len(lines(error))) == (130, 1), error
    assert json.loads((world / "demo" / "source.json").read_text()) == [str(world / "src")]
