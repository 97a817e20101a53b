"""The one command line finds every command, says what is wrong in one line, and needs no JAX to do so."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time

import pytest

from opencoder_jax import cli

WITHOUT = """
import sys
import time
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {modules!r}:
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Absent())
from opencoder_jax.cli import main
sys.exit(main({arguments!r}))
"""


def run(arguments: list[str], *modules: str) -> subprocess.CompletedProcess[str]:
    """`opencoder ARGUMENTS` in a process that cannot import `modules`."""
    code = WITHOUT.format(modules=set(modules) or {""}, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_module_that_runs(name):
    module = cli.COMMANDS[name].module
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_and_imports_neither_jax_nor_the_data_engine(arguments):
    done = run(arguments, "jax", "flax", "numpy", "pyarrow", "grain")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)


def test_help_of_a_group_and_of_a_data_command_without_jax():
    done = run(["data", "--help"], "jax", "pyarrow")
    assert done.returncode == 0
    assert "data pack" in done.stdout
    assert "train, resume" not in done.stdout
    done = run(["data", "pack", "--help"], "jax", "flax")
    assert done.returncode == 0
    assert "--seq_len" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian", "--config=tiny"], "error: trian: no such command; did you mean train? there are: train, "),
        (["data", "pakc"], "error: data pakc: no such command; did you mean data pack? there are: train, "),
        (["zzz"], "error: zzz: no such command; there are: train, "),
    ],
)
def test_unknown_commands_are_one_line_and_code_2(arguments, line):
    done = run(arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_arguments_and_exit_codes_are_the_commands_own():
    done = run(["train", "--config=8bb"])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--config=8bb: no such configuration; did you mean 8b?" in done.stderr
    done = run(["import", "--help"])
    assert done.returncode == 0
    assert "--from" in done.stdout


def test_help_takes_less_than_three_tenths_of_a_second():
    """The fastest of ten, since other work may be running."""
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "opencoder_jax.cli", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
        if seconds[-1] < 0.3:
            return
    raise AssertionError(f"{min(seconds):.2f} s")
