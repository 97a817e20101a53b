"""Every hostile program is held: it gets no rights, uses no more than its limits, and cannot forge its verdict."""

import os
import socket
import time
from pathlib import Path

import pytest
from opencoder_eval.sandbox import Limits

from .forging import FORGING, REPLACED, TESTS, UNITTEST
from .hostile import DENIED, EXHAUSTING, PRELUDE, QUICK


@pytest.mark.parametrize("name", EXHAUSTING)
def test_a_program_that_uses_up_the_machine_is_ended(sandbox, name):
    attack = EXHAUSTING[name]
    start = time.monotonic()
    seen = sandbox.run_python(attack.program, limits=attack.limits)
    assert seen.outcome == attack.outcome, seen
    assert time.monotonic() - start < attack.limits.wall_seconds + 6
    assert len(seen.stdout) <= attack.limits.output_bytes >= len(seen.stderr)


@pytest.mark.parametrize("name", DENIED)
def test_a_program_gets_no_more_than_it_needs(sandbox, name):
    seen = sandbox.run_python(PRELUDE + DENIED[name], limits=QUICK)
    assert seen.ok and seen.sentinel, (seen.detail, seen.stderr.decode()[-2000:])


@pytest.mark.parametrize("name", FORGING)
def test_a_program_that_fails_its_tests_cannot_pass(sandbox, name):
    seen = sandbox.run_python(FORGING[name], tests=TESTS, limits=QUICK)
    assert seen.outcome == "failed" and not seen.sentinel, seen


@pytest.mark.parametrize("name", REPLACED)
def test_what_a_program_replaces_is_put_back_before_its_tests(sandbox, name):
    seen = sandbox.run_python(REPLACED[name], tests=UNITTEST, limits=QUICK)
    assert seen.outcome == "failed" and not seen.sentinel, seen
    right = sandbox.run_python("def answer(): return 'right'", tests=UNITTEST.replace("wrong", "right"), limits=QUICK)
    assert right.ok, right


def test_expected_outputs_cannot_be_found_before_the_tests_run(sandbox):
    program = """
import gc, glob, os, sys
found = []
for place in ('/tmp', '/dev/shm', '/proc/self', '/proc/1', '/proc/self/fd', '/proc/self/task'):
    for path in glob.glob(place + '/**', recursive=False) + glob.glob(place + '/work/*') + glob.glob(place + '/home/*'):
        try:
            with open(path, 'rb') as file: found.append(file.read(1 << 20))
        except (OSError, ValueError): pass
seen, todo = set(), [*gc.get_objects(), sys._getframe(), *sys._current_frames().values()]
frame = sys._getframe()
while frame: todo.append(frame); frame = frame.f_back
while todo:
    value = todo.pop()
    if id(value) in seen or value is found: continue
    seen.add(id(value))
    if isinstance(value, bytes): found.append(value)
    if isinstance(value, str): found.append(value.encode('utf-8', 'replace'))
    todo += gc.get_referents(value)
wanted = 'expected-' + 'output-%d' % 4711
print(any(wanted.encode() in data for data in found))
def answer(): return 'wrong'
"""
    seen = sandbox.run_python(program, tests=TESTS, limits=Limits(cpu_seconds=20, wall_seconds=60))
    assert seen.stdout == b"False\n", seen
    here = sandbox.run_python(program + "\n" + TESTS, limits=Limits(cpu_seconds=20, wall_seconds=60))
    assert here.stdout == b"True\n", "the search finds them where they can be found"


def test_the_environment_of_the_evaluator_is_hidden(sandbox, monkeypatch):
    monkeypatch.setenv("OPENCODER_SECRET_KEY", "secret-4711")
    program = """
import glob, os
assert not [v for v in os.environ.values() if '4711' in v]
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        with open(path, 'rb') as file: assert b'secret-' + b'4711' not in file.read(), path
    except OSError: pass
"""
    assert sandbox.run_python(program).ok


def test_files_of_this_machine_are_hidden(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    paths = [str(secret), str(Path.home()), os.getcwd(), __file__]
    seen = sandbox.run_python(f"import os\nassert not [p for p in {paths!r} if os.path.exists(p)]")
    assert seen.ok, seen.stderr


def test_services_of_this_machine_are_out_of_reach(sandbox):
    with (
        socket.socket() as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        for server in (tcp, udp):
            server.bind(("127.0.0.1", 0))
        tcp.listen()
        name = f"opencoder-test-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        program = f"""
denied(socket.create_connection, ("127.0.0.1", {tcp.getsockname()[1]}), 1)
denied(socket.socket(socket.AF_UNIX).connect, "\\0{name}")
socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {udp.getsockname()[1]}))
denied(os.kill, {os.getpid()}, 0) if {os.getpid()} > 16 else None
"""
        seen = sandbox.run_python(PRELUDE + program, limits=QUICK)
        assert seen.ok, seen.stderr
        udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.recv(10)


@pytest.mark.parametrize(
    "program",
    [
        "import os, time\nif not os.fork():\n os.setsid()\n time.sleep(1e6)",
        "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork():\n  [os.close(i) for i in range(3)]\n  time.sleep(1e6)\n os._exit(0)",
        "import subprocess\nsubprocess.Popen(['sleep', '1000001'], start_new_session=True)",
    ],
)
def test_daemons_end_with_the_program(sandbox, program):
    start = time.monotonic()
    seen = sandbox.run_python(program + "\n", limits=QUICK)
    assert seen.exit_code == 0 and time.monotonic() - start < 10, seen
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"1000001" in _bytes(p)]
    assert not left


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", ".", "a\0b"])
def test_files_are_placed_in_the_work_directory_only(sandbox, path):
    with pytest.raises(ValueError, match="below the work directory"):
        sandbox.run(["true"], files={path: b"x"})


@pytest.mark.parametrize(
    ("program", "outcomes"),
    [
        (":(){ :|:& };:; wait; sleep 1000", {"timeout", "failed"}),
        ("rm -rf --no-preserve-root / 2>/dev/null; ls /usr/bin/env >/dev/null", {"ok", "timeout"}),
        ('for f in $(seq 3 60); do eval "echo compiled >&$f" 2>/dev/null; done; exit 3', {"failed"}),
        ("cat /etc/shadow /root/.bashrc /proc/1/environ 2>/dev/null && exit 0; exit 4", {"failed"}),
        ("exec 3<>/dev/tcp/1.1.1.1/80", {"failed"}),
        (
            "for d in / /dev /etc /usr /usr/bin /proc; do echo x 2>/dev/null >$d/opencoder-test && exit 0; done; exit 5",
            {"failed"},
        ),
        ("yes", {"output_limit"}),
        ("kill -9 -1; exit 3", {"failed"}),
    ],
)
def test_hostile_shell_programs_are_held(sandbox, program, outcomes):
    seen = sandbox.run_language("Shell", program, limits=QUICK)
    assert seen.outcome in outcomes, seen
    assert os.path.exists("/usr/bin/env") and os.path.exists(__file__)


@pytest.mark.parametrize(
    "program",
    [
        '#include "/dev/zero"\n',
        '#include "/dev/random"\n',
        "int main[-1u] = {1};\n",
        'asm(".incbin \\"/etc/shadow\\"");\nint main(void) { return 0; }\n',
        '#define A(x) x x x x x x x x x x\nchar *s = A(A(A(A(A(A(A(A(A("0123456789")))))))));\nint main(void) { return 0; }\n',
    ],
)
def test_hostile_programs_for_a_compiler_are_held(sandbox, needs, program):
    needs("gcc")
    limits = Limits(cpu_seconds=2, wall_seconds=30, memory_bytes=256 << 20, file_bytes=16 << 20)
    seen = sandbox.run_language("C", program, limits=limits)
    assert seen.outcome in ("compile_error", "timeout", "memory", "output_limit"), seen
