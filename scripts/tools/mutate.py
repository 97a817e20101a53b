"""Mutation tests: `python scripts/tools/mutate.py opencoder_jax/step.py --seconds=220`.

Changes one place of a module at a time (`mutants`) in a copy of the project and runs the tests that are mapped to it
(`mutation_map.toml`) until one fails. A mutant that no test notices has survived: a missing test, or a change that changes
nothing, which then belongs in the map with its reason. Results are kept in `.mutants/`, so that a run may be cut into pieces
and `--survivors` tries again only what survived.

A mutant costs seconds, as the process that is forked for it has imported JAX and the other libraries already (no device is
touched before the fork), what its compiler made of unchanged programs is read from a cache, and tests that killed mutants
before run first. mutmut 3.8 and cosmic-ray 8.7 do not fit: the first leaves out decorated functions and module-level code
(custom_vjp, shard_map, the rule table), the second starts a process per mutant, 6 s of imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import mutants as operators
import xxhash
from mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".mutants"
MAP = Path(__file__).with_name("mutation_map.toml")
DEFAULT_TESTS = "not slow and not oracle and not aot and not seqio and not cluster"
LIBRARIES = (
    "numpy", "jax", "jax.numpy", "flax.nnx", "optax", "orbax.checkpoint", "grain", "tensorboardX", "pyarrow.parquet", "numba",
    "hypothesis", "pytest", "tokenizers", "sentencepiece", "scipy", "regex", "re2", "tree_sitter", "xxhash",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="path of a source file, listed in mutation_map.toml")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after this long; the next call goes on")
    parser.add_argument("--sample", type=int, default=0, help="only so many mutants, drawn by --seed (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true", help="try survivors of earlier calls again")
    parser.add_argument("--match", default="", help="only mutants whose key contains this text")
    parser.add_argument("--report", action="store_true", help="print the result so far and run nothing")
    args = parser.parse_args()
    state = State(args.module)
    chosen = [m for m in state.chosen(args.sample, args.seed) if args.match in m.key]
    if not args.report:
        run(state, chosen, args.seconds, retry=args.survivors)
    return report(state, chosen)


class State:
    """Mutants of a module, what became of them, and the tests that are to kill them."""

    def __init__(self, module: str):
        table = tomllib.loads(MAP.read_text())
        self.module = module
        self.tests: list[str] = table["tests"][module]
        self.equivalent: dict[str, str] = {
            m["key"]: m["reason"] for m in table.get("equivalent", []) if m["module"] == module
        }
        self.source = (ROOT / module).read_bytes()
        self.mutants = operators.find(self.source)
        unknown = set(self.equivalent) - {m.key for m in self.mutants}
        if unknown:
            raise SystemExit(f"{MAP}: no such mutants in {module}: {sorted(unknown)}")
        self._file = STATE / (module.replace("/", "_") + ".json")
        stored = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.results: dict[str, dict[str, Any]] = stored.get("results", {})
        self.durations: dict[str, float] = stored.get("durations", {})
        self.baseline: dict[str, Any] = stored.get("baseline", {})

    def save(self) -> None:
        STATE.mkdir(exist_ok=True)
        part = self._file.with_suffix(".part")
        stored = {"results": self.results, "durations": self.durations, "baseline": self.baseline}
        part.write_text(json.dumps(stored, indent=1))
        part.replace(self._file)

    def chosen(self, sample: int, seed: int) -> list[Mutant]:
        """A sample of the mutants that are not known to be equivalent; always the same for the same file and seed."""
        left = [m for m in self.mutants if m.key not in self.equivalent]
        random.Random(seed).shuffle(left)
        return left[: sample or None]

    def order(self, scope: str) -> list[str]:
        """The five tests most likely to kill a mutant of this scope per second of their time."""
        score: Counter[str] = Counter()
        for key, result in self.results.items():
            if by := result.get("by"):
                near = key.split(" | ")[0] == scope
                score[by] += (8.0 if near else 1.0) / (self.durations.get(by, 1.0) + 0.3)  # type: ignore[assignment]
        return [name for name, _ in score.most_common(5)]


def run(state: State, chosen: list[Mutant], seconds: float, *, retry: bool) -> None:
    """Tries every chosen mutant that has no result yet (or survived, with retry) until the time is over."""
    begin = time.monotonic()
    copy = make_copy(state.module)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(STATE / "jax_cache")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in LIBRARIES:
        __import__(name)
    # JAX warns of forks; its threads start with a device, and there is none yet.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    target = copy / state.module
    target.write_bytes(state.source)
    digest = xxhash.xxh3_64_hexdigest(b"".join(p.read_bytes() for p in sorted(copy.rglob("*.py"))))
    if state.baseline.get("digest") != digest:
        baseline = attempt(copy, state.tests, [], 1200)
        if baseline["code"] != 0:
            raise SystemExit(f"the tests fail without a mutant:\n{baseline['output'][-3000:]}")
        state.durations = baseline["durations"]
        state.baseline = {"digest": digest, "seconds": baseline["seconds"]}
        state.save()
    limit = max(60.0, 4 * state.baseline["seconds"])
    print(f"{state.module}: {len(chosen)} mutants, tests without one {state.baseline['seconds']:.0f} s", flush=True)
    for m in chosen:
        known = state.results.get(m.key)
        if known and not (retry and known["status"] == "survived"):
            continue
        if time.monotonic() - begin > seconds:
            return
        target.write_bytes(m.apply(state.source))
        result = attempt(copy, state.tests, state.order(m.scope), limit)
        status = "timeout" if result["code"] is None else "survived" if result["code"] == 0 else "killed"
        state.results[m.key] = {"status": status, "by": result["by"], "seconds": round(result["seconds"], 1)}
        state.save()
        print(f"{status:9} {result['seconds']:5.1f} s  {m.line}: {m.key}  {result['by'] or ''}", flush=True)


def make_copy(module: str) -> Path:
    """The working tree without what git ignores, compiled, but for the module that will change."""
    copy = STATE / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    shutil.rmtree(copy, ignore_errors=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(copy)], check=True)
    for compiled in (copy / module).parent.glob(f"__pycache__/{Path(module).stem}.*.pyc"):
        compiled.unlink()  # a mutant of the same size in the same second would pass for it
    return copy


def attempt(copy: Path, tests: list[str], first: list[str], limit: float) -> dict[str, Any]:
    """Runs the tests in a forked process. Returns code (None: not done in time), seconds, by (the test that failed),
    durations by test, output."""
    answer, log = STATE / "answer.json", STATE / "output.txt"
    answer.unlink(missing_ok=True)
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 70
        try:
            code = _in_child(copy, tests, first, answer, log)
        finally:
            os._exit(code)
    code = None
    while time.monotonic() - begin < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.05)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    seconds = time.monotonic() - begin
    told = json.loads(answer.read_text()) if answer.exists() else {"by": None, "durations": {}}
    return {"code": code, "seconds": seconds, **told, "output": log.read_text(errors="replace")}


class _Plugin:
    """Runs likely tests first and notes which test failed, and how long each took."""

    def __init__(self, first: list[str]):
        self.first, self.by, self.durations = first, None, Counter()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        place = {name: i for i, name in enumerate(self.first)}
        items.sort(key=lambda item: place.get(item.nodeid, len(place)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.durations[report.nodeid] += report.duration
        if report.failed and self.by is None:
            self.by = report.nodeid


def _in_child(copy: Path, tests: list[str], first: list[str], answer: Path, log: Path) -> int:
    import pytest

    with log.open("w") as out:
        for number in (1, 2):
            os.dup2(out.fileno(), number)
    os.chdir(copy)
    # Bytecode of the tests is written once, by the run without a mutant; none of the module itself.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[:0] = [str(copy), str(copy / "kernels"), str(copy / "data")]
    plugin = _Plugin(first)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
    options += ["-m", DEFAULT_TESTS, f"--basetemp={STATE / 'tests'}"]
    code = int(pytest.main([*options, *tests], plugins=[plugin]))
    if code == 5:
        raise SystemExit("no tests found")
    answer.write_text(json.dumps({"by": plugin.by, "durations": dict(plugin.durations)}))
    sys.stdout.flush()
    return code


def report(state: State, chosen: list[Mutant]) -> int:
    """Prints the score and the survivors; 1 when fewer than 95 % of the mutants that were tried are killed."""
    tried = [m for m in chosen if m.key in state.results]
    status = Counter(state.results[m.key]["status"] for m in tried)
    for m in sorted(tried, key=lambda m: m.start):
        if state.results[m.key]["status"] == "survived":
            print(f"survived  {state.module}:{m.line}: {m.key}")
    share = 1 - status["survived"] / max(len(tried), 1)
    print(
        f"{state.module}: {len(tried)} of {len(chosen)} mutants tried, {status['killed']} killed, {status['timeout']} out of time, "
        f"{status['survived']} survived: {share:.1%}; {len(state.equivalent)} more are equivalent"
    )
    return int(share < 0.95)


if __name__ == "__main__":
    sys.exit(main())
