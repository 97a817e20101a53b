"""What all commands share: one line for errors, Ctrl-C in any state, children that end with their parent, few open files."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opencoder_data import command

ROOT = Path(__file__).parents[2]


def start(code: str, **options) -> subprocess.Popen[str]:
    """A command made of `code`; when it prints `ready` it is where the test wants it."""
    program = "import os, sys, time\nfrom opencoder_data import command\n" + code
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options["env"] = (options.get("env") or os.environ) | {"PYTHONUNBUFFERED": ""}
    return subprocess.Popen([sys.executable, "-c", program], **streams, **options)


def wait_until_ready(process: subprocess.Popen[str]) -> list[str]:
    """What is printed before and with `ready`."""
    assert process.stdout is not None
    words = []
    for line in process.stdout:
        words += line.split()
        if "ready" in words:
            return words
    raise AssertionError(process.stderr.read() if process.stderr else "")


def lives(pid: str | int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(lives, pids))


AGAIN = "free some space and run the same command again\n"


def fail(error: BaseException, capsys) -> tuple[int, str]:
    def work() -> int:
        raise error

    code = command.run(work)
    said = capsys.readouterr()
    assert said.out == ""
    return code, said.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("x=3: give 4"), "error: x=3: give 4\n"),
        (ValueError("one\ntwo\n\n  three"), "error: one two    three\n"),
        (ValueError(), "error: ValueError\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "error: /a/b: No space left on device; " + AGAIN),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device; " + AGAIN),
        (FileNotFoundError(errno.ENOENT, "No such file", b"/a/\xff"), "error: /a/\\udcff: No such file\n"),
        (ChildProcessError("a worker died"), "error: a worker died\n"),
        (
            UnicodeEncodeError("utf-8", "a\udcc3\udca9", 1, 2, "surrogates not allowed"),
            "error: 'aé' is not UTF-8, or the locale is not: set PYTHONUTF8=1, or give another name\n",
        ),
        (MemoryError(), "error: out of memory; close other programs or give smaller sizes\n"),
        (OSError(errno.EMFILE, "Too many open files", "/x"), f"error: too many open files; {command.MORE_FILES}\n"),
        (RuntimeError("loop: Too many open files"), f"error: too many open files; {command.MORE_FILES}\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, message, capsys):
    assert fail(error, capsys) == (2, message)


def test_a_cause_deep_down_is_found(capsys):
    error = ValueError("cannot read")
    error.__context__ = OSError(errno.EMFILE, "x")
    error.__suppress_context__ = True  # `raise ... from None` hides it from tracebacks only
    assert fail(error, capsys) == (2, f"error: too many open files; {command.MORE_FILES}\n")


def test_faults_of_the_program_pass(capsys):
    for error in (AssertionError("x"), TypeError("x"), RuntimeError("x"), KeyError("x")):
        with pytest.raises(type(error)):
            fail(error, capsys)


def test_the_code_of_the_work_is_returned():
    assert [command.run(lambda code=code: code) for code in (0, 1, 3)] == [0, 1, 3]


def test_interrupt_is_one_line_and_130(capsys):
    assert fail(KeyboardInterrupt(), capsys) == (130, command.STOPPED + "\n")


def test_handlers_are_as_before():
    before = signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1), sys.unraisablehook
    descriptors = len(os.listdir("/proc/self/fd"))
    command.run(lambda: 0)
    assert (signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1), sys.unraisablehook) == before
    time.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # an earlier run's may have been closed


WAITING = {
    "python": "time.sleep(60)",
    # A compiler, say: the main thread never looks at signals.
    "deaf": "import threading; threading.Thread(target=lambda: (time.sleep(0.3), print('ready', flush=True))).start()\n"
    "    import ctypes; lock = ctypes.CDLL(None).pthread_mutex_lock; held = ctypes.create_string_buffer(128)\n"
    "    lock(held); lock(held)",
    # A library that makes something else of it.
    "swallowed": "\n    try: time.sleep(60)\n    except BaseException: raise TypeError('list has no layout')",
    "destructor": "\n    class X:\n        def __del__(self): time.sleep(60)\n    X()\n    time.sleep(60)",
    "clean-up": "\n    try: time.sleep(60)\n    finally: time.sleep(0.2)",
    "exit": "import atexit, threading; threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)",
}


@pytest.mark.parametrize("state", list(WAITING))
def test_ctrl_c_in_any_state(state, tmp_path):
    """One line, 130, soon; the temporary directory is gone."""
    ready = "" if state == "deaf" else "print('ready', flush=True); "
    code = f"""
def wait():
    {ready}{WAITING[state]}
def work():
    with command.temporary_directory({str(tmp_path / "part")!r}):
        wait()
command.end(command.run(work, stopped='stopped: again'))
"""
    process = start(code)
    wait_until_ready(process)
    assert (tmp_path / "part").exists()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "stopped: again\n")
    assert time.monotonic() - began < 6
    assert not (tmp_path / "part").exists()


def test_the_second_ctrl_c_ends_at_once():
    code = """
def work():
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        for word in ('cleaning', 'still'):
            try:
                print(word, flush=True)
                time.sleep(30)
            except KeyboardInterrupt: pass
command.end(command.run(work))
"""
    process = start(code)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, command.STOPPED + "\n")


def test_a_background_job_of_a_shell_keeps_ignoring_it():
    code = "command.end(command.run(lambda: (print('ready', flush=True), time.sleep(0.5))[0] or 0))"
    process = start(code, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    "module", ["opencoder_data.pack", "opencoder_data.tokenizer", "opencoder_data.refinecode.handover"]
)
def test_ctrl_c_while_modules_are_imported(module, tmp_path):
    """The import of numpy represents all that take seconds: here it waits."""
    (tmp_path / "numpy.py").write_text("import time; print('ready', flush=True); time.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--help"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, command.STOPPED + "\n")


CHILD = """
import subprocess
def work():
    with command.child_process(['timeit', '-n1', '-r1', 'import time; time.sleep(60)'], stderr=subprocess.DEVNULL) as child:
        time.sleep(0.5)
        print(child.pid, 'ready', flush=True)
        child.wait()
    return 0
command.end(command.run(work))
"""
POOL = """
import concurrent.futures, multiprocessing
def work():
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('spawn'), command.start_worker) as pool:
        with command.starting_workers():
            futures = [pool.submit(time.sleep, 60) for _ in range(2)]
        while not all(f.running() for f in futures): time.sleep(0.01)
        time.sleep(0.5)
        print(*(p.pid for p in multiprocessing.active_children()), 'ready', flush=True)
        try: futures[0].result()
        except BaseException:
            command.kill_workers()
            raise
    return 0
if __name__ == '__main__': command.end(command.run(work))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("code", [CHILD, POOL, POOL.replace("with command.starting_workers()", "if True")])
def test_no_child_outlives_a_command(code, sent):
    process = start(code, start_new_session=True)
    pids = wait_until_ready(process)[:-1]
    assert pids
    if code != CHILD:
        for pid in pids:  # as Ctrl-C at a terminal does
            os.kill(int(pid), signal.SIGINT)
        time.sleep(0.2)
    assert all(map(lives, pids))
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert gone(pids)
    if sent == signal.SIGINT:
        assert (process.returncode, said) == (130, command.STOPPED + "\n")


def test_a_child_runs_as_a_module_does(tmp_path):
    (tmp_path / "shows.py").write_text("import sys; print(__name__, sys.argv[1:], __spec__.name); sys.exit(7)\n")
    with command.child_process(["shows", "a", "--b=c d"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate()[0] == "__main__ ['a', '--b=c d'] shows\n"
    assert process.returncode == 7


def test_a_child_does_not_outlive_its_block():
    with command.child_process(["timeit", "-n1", "-r1", "import time; time.sleep(60)"]) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL


def limited(soft: int, hard: int):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_limit_of_open_files_is_raised_or_rejected():
    code = "import resource\ncommand.end(command.run(lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE)) or 0))"
    process = start(code, preexec_fn=limited(24, 1024))
    assert process.communicate(timeout=20) == ("(1024, 1024)\n", "")
    process = start(code, preexec_fn=limited(24, 24))
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out, said.count("\n")) == (2, "", 1)
    assert "only 24 files" in said
    assert "ulimit -n" in said


@pytest.mark.parametrize("lines", [1, 10_000])  # found out at the end, or on the way
def test_a_reader_that_has_gone_is_one_line(lines):
    process = start(
        f"time.sleep(0.3); command.end(command.run(lambda: [print('x' * 99) for _ in range({lines})] and 0))"
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == "error: Broken pipe\n"
    assert process.wait(20) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_can_be_printed(encoding):
    process = start(
        "command.end(command.run(lambda: print('\\u4e2d\\udcff') or 0))",
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    out, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    assert out in ("\\u4e2d\\udcff\n", "中\\udcff\n")


def test_the_parser_says_one_line_and_takes_no_abbreviation(capsys):
    parser = command.Parser(prog="x")
    parser.add_argument("--output", required=True)
    for arguments, message in (([], "--output"), (["--out=1"], "--output"), (["--output=1", "--zz=2"], "--zz=2")):
        with pytest.raises(SystemExit) as raised:
            parser.parse_args(arguments)
        said = capsys.readouterr().err
        assert raised.value.code == 2
        assert message in said
        assert said.startswith("error: ")
        assert said.count("\n") == 1
