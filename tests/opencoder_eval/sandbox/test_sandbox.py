"""What a run gives back: outcomes, output, limits, and nothing left behind."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opencoder_eval.sandbox import Limits, Sandbox, SandboxError, bubblewrap

MiB = 1 << 20


def test_a_program_that_passes_its_tests(sandbox):
    seen = sandbox.run_python("def f(x):\n    return x + 1\nprint('said')", tests="assert f(1) == 2")
    assert seen.ok and seen.sentinel and seen.isolated and seen.exit_code == 0 and seen.signal is None
    assert seen.stdout == b"said\n" and seen.stderr == b"" and seen.detail == ""
    assert 0 < seen.wall_seconds < 20


@pytest.mark.parametrize(
    ("program", "tests", "detail"),
    [
        ("def f(x): return x", "assert f(1) == 2", "AssertionError"),
        ("def f(x) return x", "", "SyntaxError: expected ':'"),
        ("def f(x): return y", "f(1)", "NameError: name 'y' is not defined"),
        ("x = 1", "assert x ==", "SyntaxError: invalid syntax"),
        ("\0", "", "source code string cannot contain null bytes"),
        ("x = '\ud800'", "", "SyntaxError"),
        ("raise ValueError('a\\nlast line')", "", "last line"),
        ("import sys; sys.exit(3)", "", "exit code 3"),
        ("import os; os.abort()", "", "ended by SIGABRT"),
        ("(" * 1000, "", "SyntaxError: too many nested parentheses"),
    ],
)
def test_a_failure_says_why(sandbox, program, tests, detail):
    seen = sandbox.run_python(program, tests=tests)
    assert seen.outcome == "failed" and not seen.sentinel and detail in seen.detail, seen


def test_a_failing_function_has_its_line_in_the_traceback(sandbox):
    seen = sandbox.run_python("def f():\n    return 1 / 0  # here\n", tests="f()")
    assert b'program.py", line 2, in f\n    return 1 / 0  # here' in seen.stderr


def test_programs_with_input_and_output_need_not_reach_their_end(sandbox):
    program = "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit()"
    seen = sandbox.run_python(program, stdin=b"1 2\n3\n", end=False)
    assert seen.ok and not seen.sentinel and seen.stdout == b"6\n"
    assert sandbox.run_python(program, stdin=b"1").outcome == "failed"
    assert sandbox.run_python("raise SystemExit(2)", end=False).outcome == "failed"


def test_large_input_is_written_while_output_is_read(sandbox):
    data = os.urandom(3 * MiB)
    limits = Limits(output_bytes=4 * MiB)
    seen = sandbox.run(["cat"], stdin=data, limits=limits)
    assert seen.ok and seen.stdout == data
    assert sandbox.run(["true"], stdin=data).ok, "a program that does not read its input"


def test_output_beyond_the_limit_is_dropped_and_does_not_slow_the_program(sandbox):
    seen = sandbox.run_python("print('x' * 1000000)", limits=Limits(output_bytes=100_000))
    assert seen.ok and seen.stdout == b"x" * 100_000 and seen.wall_seconds < 5


def test_files_are_in_the_work_directory(sandbox):
    files = {"data/a.txt": b"A", "b": b"\0" * 10}
    seen = sandbox.run_python(
        "print(open('data/a.txt').read(), len(open('b', 'rb').read()))\nopen('c', 'w')", files=files
    )
    assert seen.ok and seen.stdout == b"A 10\n", seen
    assert sandbox.run(["sh", "-c", "ls; pwd"], files=files).stdout == b"b\ndata\n/tmp/work\n"


def test_a_program_sees_the_usual_names(sandbox):
    program = """
    import inspect, sys, threading, multiprocessing
    assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
    assert __file__ == sys.argv[0] and sys.argv[1:] == []
    def f(): return 1
    assert inspect.getsource(f).startswith("def f")
    assert threading.current_thread() is threading.main_thread()
    assert multiprocessing.get_context("fork").Pool(2).map(abs, [-1, 2]) == [1, 2]
    import pickle
    class C: pass
    assert type(pickle.loads(pickle.dumps(C()))) is C
    """
    assert sandbox.run_python(textwrap.dedent(program)).ok


def test_hash_order_is_the_same_in_each_run(sandbox):
    outputs = {sandbox.run_python("print({*'abcdefgh'}, hash('x'))").stdout for _ in range(3)}
    assert len(outputs) == 1


def test_a_command_that_does_not_exist_fails(sandbox):
    seen = sandbox.run(["no-such-program"])
    assert seen.outcome == "failed" and "no-such-program" in seen.detail


def test_cpu_time_counts_and_waiting_does_not(sandbox):
    limits = Limits(cpu_seconds=0.5, wall_seconds=30)
    assert sandbox.run_python("import time; time.sleep(1.2)", limits=limits).ok
    seen = sandbox.run_python("while True: pass", limits=limits)
    assert seen.outcome == "timeout" and "CPU" in seen.detail and 0.4 < seen.cpu_seconds < 3


def test_shared_memory_of_children_is_counted_once(sandbox):
    program = """
import os, time
kept = bytearray(os.urandom(1 << 20) * 60)
children = []
for _ in range(8):
    if not (child := os.fork()):
        time.sleep(0.5); os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
"""
    assert sandbox.run_python(program, limits=Limits(memory_bytes=256 * MiB)).ok


def test_runs_in_threads_do_not_disturb_each_other(sandbox):
    limits = Limits(processes=8)
    program = "import os, time\nfor _ in range(6):\n if not os.fork(): time.sleep(.2); os._exit(0)\nfor _ in range(6): os.wait()\nprint({})"
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda i: sandbox.run_python(program.format(i), limits=limits), range(12)))
    assert [s.stdout for s in seen] == [f"{i}\n".encode() for i in range(12)], seen


def _left() -> tuple[int, set[str], int]:
    """Descriptors of this process, its children, mounts."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), set(children), len(Path("/proc/self/mounts").read_text().splitlines())


@pytest.mark.parametrize("runs", [60, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_runs_leave_nothing_behind(sandbox, runs):
    sandbox.run_python("pass")
    temporary = set(os.listdir("/tmp"))
    before = _left()
    programs = [
        "pass",
        "import os; os._exit(0)",
        "import os\nif not os.fork():\n os.setsid()\n while 1: pass",
        "open('x', 'w')",
    ]
    limits = Limits(cpu_seconds=2, wall_seconds=60)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda i: sandbox.run_python(programs[i % 4], limits=limits).outcome, range(runs)))
    assert outcomes == ["ok", "failed", "ok", "ok"] * (runs // 4)
    assert _left() == before
    assert not {name for name in set(os.listdir("/tmp")) - temporary if "opencoder" in name}
    alive = [p for p in Path("/proc").glob("[0-9]*") if _is_ours(p)]
    assert not alive


def _is_ours(process: Path) -> bool:
    """A sandbox that was started by this process."""
    try:
        return (
            b"bwrap" in (process / "cmdline").read_bytes()
            and f"\nPPid:\t{os.getpid()}\n" in (process / "status").read_text()
        )
    except OSError:
        return False


@pytest.mark.slow
def test_a_run_costs_at_most_15_ms_above_the_interpreter(sandbox):
    bare, isolated = [], []
    for _ in range(40):
        start = time.perf_counter()
        subprocess.run([sandbox.python, "-c", "pass"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        middle = time.perf_counter()
        assert sandbox.run_python("pass").ok
        isolated.append(time.perf_counter() - middle)
        bare.append(middle - start)
    cost = statistics.median(isolated) - statistics.median(bare)
    print(f"bare {statistics.median(bare):.4f} s, sandbox {statistics.median(isolated):.4f} s")
    assert cost <= 0.015


def test_the_sandbox_ends_with_a_killed_evaluator(sandbox):
    program = (
        "from opencoder_eval.sandbox import Sandbox, Limits\nprint('started', flush=True)\n"
        "Sandbox().run(['sleep', '1234567'], limits=Limits(wall_seconds=600))"
    )
    evaluator = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert _wait(lambda: _sleeping("1234567"), 60)
    evaluator.kill()
    evaluator.communicate()
    assert _wait(lambda: not _sleeping("1234567"), 20)


def _sleeping(argument: str) -> list[Path]:
    return [p for p in Path("/proc").glob("[0-9]*/cmdline") if _read(p) == f"sleep\0{argument}\0".encode()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _wait(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# --- without a sandbox ------------------------------------------------------------------------------------------------


def test_unsafe_runs_say_so():
    with Sandbox(unsafe=True) as unsafe:
        seen = unsafe.run_python("print(1)", tests="assert True", files={"a/b": b"x"})
        assert seen.ok and seen.sentinel and not seen.isolated and not unsafe.layers
        assert not unsafe.run(["true"]).isolated
        assert not unsafe.run_language("Shell", "exit 1").isolated
        assert unsafe.run_python("while True: pass", limits=Limits(cpu_seconds=0.3)).outcome == "timeout"


def test_unsafe_runs_leave_no_directory():
    before = {name for name in os.listdir("/tmp") if name.startswith("opencoder-unsafe-")}
    Sandbox(unsafe=True).run_python("open('x', 'w')")
    assert {name for name in os.listdir("/tmp") if name.startswith("opencoder-unsafe-")} <= before


def test_without_bubblewrap_nothing_runs(monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name, **_: None if name == "bwrap" else f"/usr/bin/{name}")
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        Sandbox()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("bwrap: No permissions to create new namespace, likely because ...", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "--security-opt seccomp=unconfined"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        ("bwrap: something new", "must work for this user"),
    ],
)
def test_a_system_that_forbids_namespaces_is_named_with_the_remedy(monkeypatch, tmp_path, said, remedy):
    broken = tmp_path / "bwrap"
    broken.write_text(f"#!/bin/sh\ncat <<'END' >&2\n{said}\nEND\nexit 1\n")
    for place in (broken, tmp_path, *tmp_path.parents[:3]):
        place.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "program", lambda: str(broken))
    with pytest.raises(SandboxError, match=remedy):
        Sandbox()


@pytest.mark.parametrize(
    ("weaker", "hole"),
    [
        (["--unshare-net"], "a socket of this machine was reached"),
        (["--unshare-pid"], "processes of this machine can be seen"),
        (["--tmpfs", "/tmp"], "the work directory is larger"),
        (["--seccomp"], None),
    ],
)
def test_a_weaker_sandbox_is_found_out(sandbox, monkeypatch, weaker, hole):
    """bubblewrap without one of its options: the probe names what became possible."""
    real = Sandbox._execute

    def execute(self, command, *arguments, **options):
        original = bubblewrap.inner
        with monkeypatch.context() as patch:
            patch.setattr(bubblewrap, "inner", lambda *a: _without(original(*a), weaker))
            return real(self, command, *arguments, **options)

    outer = bubblewrap.outer
    monkeypatch.setattr(bubblewrap, "outer", lambda *a: [*_without(outer(*a), weaker), "--setenv", "WEAKER", weaker[0]])
    monkeypatch.setattr(Sandbox, "_execute", execute)
    if hole is None:
        monkeypatch.setattr("opencoder_eval.sandbox.seccomp.program", lambda *_: None)
        assert Sandbox().layers["seccomp"].startswith("no")
        return
    with pytest.raises(SandboxError, match=hole) as raised:
        Sandbox()
    assert "nothing untrusted was run" in str(raised.value)


def _without(command: list[str], weaker: list[str]) -> list[str]:
    """The command without the option; a sized mount loses its size."""
    kept = list(command)
    if weaker == ["--tmpfs", "/tmp"]:
        if "--tmpfs" in kept and "/tmp" in kept and "--size" in kept:
            at = [i for i, word in enumerate(kept) if word == "--size" and kept[i + 3] == "/tmp"]
            for i in at:
                del kept[i : i + 2]
        return kept
    for option in weaker:
        while option in kept:
            i = kept.index(option)
            del kept[i]
    return kept


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; all other tests ran as a plain one")
def test_a_plain_user_has_the_same_sandbox(sandbox):
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
    )
    if version.stdout != b"True\n":
        pytest.skip("the system's python3 is older than 3.11, and other users cannot read ours")
    program = """
import os, sys
from opencoder_eval.sandbox import Limits, Sandbox
sandbox = Sandbox()
assert os.geteuid() == 23456 and sandbox.layers["namespaces"]
limits = Limits(cpu_seconds=1, memory_bytes=128 << 20, processes=8)
hidden = os.path.join(os.environ["HOME"], "key")
open(hidden, "w").write("x")
checks = [
    (f"import os; assert not os.path.exists({hidden!r}) and os.getuid() == 65534", "ok"),
    ("while True: pass", "timeout"),
    ("k = []\\nwhile True: k.append(bytearray(b'x' * 2**20))", "memory"),
    ("import os\\nn = 0\\ntry:\\n while True:\\n  if not os.fork(): os.read(0, 1); os._exit(0)\\n  n += 1\\nexcept OSError: assert n < 8", "ok"),
    ("import os; os._exit(0)", "failed"),
]
for program, outcome in checks:
    seen = sandbox.run_python(program, limits=limits)
    assert seen.outcome == outcome, (program, seen)
seen = sandbox.run_language("Shell", "echo hello > /dev/stdout", end=True)
assert seen.ok and seen.sentinel, seen
print("held")
"""
    package = Path(bubblewrap.__file__).parents[2]
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        shutil.copytree(package / "opencoder_eval", Path(directory, "opencoder_eval"))
        subprocess.run(["chown", "-R", "23456:23456", directory], check=True)
        done = subprocess.run(
            ["setpriv", "--reuid=23456", "--regid=23456", "--clear-groups", "/usr/bin/python3", "-c", program],
            env={"PATH": "/usr/bin:/bin", "HOME": directory, "PYTHONPATH": directory},
            cwd=directory,
            capture_output=True,
            text=True,
        )
    assert done.stdout == "held\n", done.stderr[-2000:]


def test_the_example_of_the_guide_runs(sandbox, needs, capsys):
    needs("lua")
    guide = Path(__file__).parents[3] / "docs/guides/sandbox.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(example, str(guide), "exec"), {})
    assert capsys.readouterr().out == "ok \nfailed\n"
