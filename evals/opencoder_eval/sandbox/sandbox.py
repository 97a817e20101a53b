"""The sandbox: one call runs one program and returns what came of it."""

from __future__ import annotations

import json
import os
import posixpath
import re
import secrets
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from opencoder_eval.sandbox import bubblewrap, process, seccomp
from opencoder_eval.sandbox.languages import Language, of_program
from opencoder_eval.sandbox.probe import probe
from opencoder_eval.sandbox.results import Execution, Limits, SandboxError

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
TOKEN_BYTES = 32
COMPILED = b"compiled"
# bwrap's own failures (no namespace, no mount) come before any program runs and have no exit code in its status.
REMEDIES = {
    "No permissions to create": "user",
    "Creating new namespace failed": "user",
    "setting up uid map": "user",
    "Can't mount proc": "proc",
}
REMEDY = {
    "user": "this system does not let users make namespaces. Ubuntu 24.04 and later: `sysctl -w "
    "kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile for bwrap; Debian 10: `sysctl -w "
    "kernel.unprivileged_userns_clone=1`; Docker: start with `--security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`",
    "proc": "this container masks /proc. Docker: start with `--security-opt systempaths=unconfined`",
    "": "`bwrap --unshare-all --ro-bind / / true` must work for this user",
}

_probed: dict[tuple[str, ...], dict[str, str]] = {}
_probing = threading.Lock()


class Sandbox:
    """Isolation for untrusted programs; safe to use from several threads at once.

    Args:
      unsafe: run without isolation; every result then has isolated=False.
      python: interpreter for run_python; it must be outside of home directories. None: the system's.
      read_only: further directories of this machine that programs may read (a virtual environment for python, say).

    Raises: SandboxError if isolation cannot be had here; the text has the remedy.
    """

    def __init__(self, *, unsafe: bool = False, python: str | None = None, read_only: Sequence[str] = ()):
        self.unsafe = unsafe
        self.read_only = tuple(read_only)
        self.python = python or shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or "/usr/bin/python3"
        self._bootstrap = _without_comments(BOOTSTRAP.read_text())
        self._filter = seccomp.program()
        directories = [d for d in (f"{name}/bin" for name in self.read_only) if os.path.isdir(d)]
        self._environment = bubblewrap.environment()
        self._environment["PATH"] = ":".join([*directories, self._environment["PATH"]])
        self._outer = [] if unsafe else bubblewrap.outer(self._environment)
        # What holds a program: name of the layer -> its state. Empty without isolation.
        self.layers: dict[str, str] = {}
        if not unsafe:
            self.layers = self._probe()

    def _probe(self) -> dict[str, str]:
        """Once per process and configuration."""
        key = (*self._outer, self.python, *self.read_only)
        with _probing:
            if key not in _probed:
                _probed[key] = probe(self)
            return _probed[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left of a run when it returns, so that there is nothing to do."""

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        address_space: bool = False,
    ) -> Execution:
        """`command` in a work directory with `files` (relative path -> content); `ok` is exit code 0.

        address_space: bound virtual memory too; see bubblewrap.resource_limits.
        Raises: SandboxError if it cannot be started, ValueError for a file outside of the work directory.
        """
        limits = limits or Limits()
        seen = self._execute(command, files or {}, stdin, limits, address_space=address_space)
        return self._execution(seen, limits)

    def run_python(
        self,
        program: str,
        *,
        tests: str = "",
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        end: bool = True,
    ) -> Execution:
        """`program` as `__main__`, then `tests` in the same namespace; `tests` are never in a file that `program` can read.

        end: the last line must be reached. False: exit code 0 is enough (programs that are judged by their output).
        """
        limits = limits or Limits()
        source, test = _encode(program), _encode(tests)
        token = secrets.token_bytes(TOKEN_BYTES)
        read, write = _result_pipe()
        secret = _memory(token + write.to_bytes(4, "little") + len(source).to_bytes(8, "little") + source + test)
        flags = ("" if self.unsafe else "c") + ("e" if end else "") + "-"
        command = [self.python, "-s", "-c", self._bootstrap, str(secret), flags]
        seen = self._execute(
            command,
            {**(files or {}), "program.py": source},
            stdin,
            limits,
            address_space=True,
            pass_fds=(write, secret),
            result=read,
        )
        return self._execution(seen, limits, token if end else None)

    def run_language(
        self,
        language: str,
        program: str,
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        end: bool = False,
    ) -> Execution:
        """`program` of a language of `LANGUAGES`, compiled and run in one sandbox; `not_run` if its toolchain is missing.

        limits: default: those of the language.
        end: the last line of the program must be reached, not only exit code 0; for languages with `Language.end`.
        Raises: KeyError for an unknown language, ValueError for `end` where it cannot be had.
        """
        how = of_program(language, program)
        missing = [name for name in sorted(how.programs() | {"bash"}) if self.which(name) is None]
        if missing:
            return Execution("not_run", isolated=not self.unsafe, detail=f"{', '.join(missing)} not installed")
        limits = limits or how.limits
        token = secrets.token_hex(TOKEN_BYTES // 2)
        read, write = _result_pipe()
        if end:
            if not how.end:
                raise ValueError(f"{language}: programs cannot be made to report their last line")
            program += how.end.replace("{fd}", str(write)).replace("{token}", token)
        found = re.search(how.stem, program) if how.stem else None
        stem = found[1] if found else "program"
        seen = self._execute(
            ["bash", "-c", _script(how, stem, write, keep=end)],
            {**(files or {}), how.file.replace("{stem}", stem): _encode(program)},
            stdin,
            limits,
            pass_fds=(write,),
            result=read,
            environment=how.environment,
        )
        compiled, _, reported = bytes(seen.result).partition(b"\n")
        seen.result = bytearray(reported)
        execution = self._execution(seen, limits, token.encode() if end else None)
        return _judged(how, execution, compiled == COMPILED)

    def which(self, program: str) -> str | None:
        """Where programs in the sandbox find this executable."""
        return shutil.which(program, path=self._environment["PATH"])

    def _execute(
        self,
        command: Sequence[str],
        files: Mapping[str, bytes],
        stdin: bytes,
        limits: Limits,
        *,
        address_space: bool = False,
        pass_fds: Sequence[int] = (),
        result: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> process.Finished:
        readers = {} if result is None else {"result": result}
        bounded = [*bubblewrap.resource_limits(limits, address_space=address_space), *command]
        if self.unsafe:
            names = {**self._environment, **(environment or {})}
            return _execute_unsafe(bounded, files, stdin, limits, pass_fds, readers, names)
        opened = list(pass_fds)
        readers["status"], status = os.pipe()
        opened.append(status)
        options = ["--json-status-fd", str(status)]
        if self._filter is not None:
            opened.append(_memory(self._filter))
            options += ["--seccomp", str(opened[-1])]
        for name, value in (environment or {}).items():
            options += ["--setenv", name, value]
        placed = []
        for path, data in {**bubblewrap.SYSTEM_FILES, **{_inside(p): d for p, d in files.items()}}.items():
            opened.append(_memory(data))
            placed.append((opened[-1], path))
        arguments = [*self._outer, *options, *bubblewrap.inner(limits, self.read_only, placed), "--", *bounded]
        return process.execute(arguments, stdin=stdin, limits=limits, pass_fds=opened, readers=readers)

    def _execution(self, seen: process.Finished, limits: Limits, token: bytes | None = None) -> Execution:
        code, number = seen.returncode, None
        if not self.unsafe and seen.killed is None:
            code = _status(seen)
        if code < 0 or 128 < code <= 128 + signal.SIGRTMAX:
            code, number = None, -code if code < 0 else code - 128
        sentinel = token is not None and bytes(seen.result) == token
        outcome, detail = seen.killed, seen.detail
        if outcome is None and number == signal.SIGXCPU:
            outcome, detail = "timeout", f"used more than {limits.cpu_seconds:g} s of CPU time"
        if outcome is None:
            outcome, detail = "failed", _last_line(seen.stderr)
            if number is not None:
                detail = f"ended by {_signal_name(number)}"
            elif code != 0:
                detail = detail or f"exit code {code}"
                if token is not None and detail.startswith("MemoryError"):
                    outcome = "memory"
            elif token is None or sentinel:
                outcome, detail = "ok", ""
            elif seen.result:
                detail = "wrote to the result channel"
            else:
                detail = "ended before its last line, with exit code 0"
        return Execution(
            outcome,
            exit_code=code if seen.killed is None else None,
            signal=number if seen.killed is None else int(signal.SIGKILL),
            stdout=bytes(seen.stdout),
            stderr=bytes(seen.stderr),
            wall_seconds=seen.wall_seconds,
            cpu_seconds=seen.cpu_seconds,
            sentinel=sentinel,
            isolated=not self.unsafe,
            detail=detail,
        )


def _script(how: Language, stem: str, result: int, *, keep: bool) -> str:
    """The commands, for bash (other shells have no descriptors above 9): what compilers print goes to standard error; the word COMPILED tells that the program starts.

    keep: the program gets the result descriptor.
    """

    def command(words: Sequence[str]) -> str:
        return shlex.join(word.replace("{stem}", stem) for word in words)

    steps = [f"{command(words)} >&2 {result}>&- </dev/null || exit" for words in how.compile]
    close = "" if keep else f" {result}>&-"
    return "\n".join([*steps, f"echo {COMPILED.decode()} >&{result}", f"exec {command(how.run)}{close}"])


def _judged(how: Language, execution: Execution, compiled: bool) -> Execution:
    """With what the exit code does not tell: failures that are only printed, and errors of the program's text."""
    if execution.outcome == "failed" and not compiled:
        return replace(execution, outcome="compile_error")
    text = (execution.stdout + b"\n" + execution.stderr).decode("utf-8", "replace")
    if execution.outcome == "ok":
        for pattern in how.fails:
            if found := re.search(pattern, text):
                line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
                return replace(execution, outcome="failed", detail=line[:300])
    elif execution.outcome == "failed" and how.syntax and re.search(how.syntax, text):
        return replace(execution, outcome="compile_error")
    return execution


def _execute_unsafe(
    command: Sequence[str],
    files: Mapping[str, bytes],
    stdin: bytes,
    limits: Limits,
    pass_fds: Sequence[int],
    readers: Mapping[str, int],
    environment: Mapping[str, str],
) -> process.Finished:
    """Without isolation: a temporary directory, limits and the watchdog."""
    with tempfile.TemporaryDirectory(prefix="opencoder-unsafe-", ignore_cleanup_errors=True) as directory:
        for path, data in files.items():
            place = Path(directory, posixpath.relpath(_inside(path), bubblewrap.WORK))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        environment = {**environment, "HOME": directory, "TMPDIR": directory}
        return process.execute(
            command,
            stdin=stdin,
            limits=limits,
            pass_fds=pass_fds,
            readers=readers,
            cwd=directory,
            environment=environment,
        )


def _status(seen: process.Finished) -> int:
    """The program's exit code by bwrap's report. Raises: SandboxError if there is none: the program never ran."""
    for line in bytes(seen.status).splitlines():
        if b'"exit-code"' in line:
            return int(json.loads(line)["exit-code"])
    said = _last_line(seen.stderr) or f"ended with {seen.returncode}"
    remedy = next((REMEDY[key] for text, key in REMEDIES.items() if text in said), REMEDY[""])
    raise SandboxError(f"bubblewrap cannot isolate here ({said}): {remedy}")


def _inside(path: str) -> str:
    """The absolute path in the sandbox. Raises: ValueError if it is not below the work directory."""
    whole = posixpath.normpath(posixpath.join(bubblewrap.WORK, path))
    if not whole.startswith(bubblewrap.WORK + "/") or "\0" in path:
        raise ValueError(f"{path!r}: not a relative path below the work directory")
    return whole


def _result_pipe() -> tuple[int, int]:
    """Read end, write end. Whoever has the write end may open it again (some languages need that), but not to read."""
    read, write = os.pipe()
    os.fchmod(write, 0o222)
    return read, write


def _memory(data: bytes) -> int:
    """A descriptor from which `data` can be read; it has no name in any file system."""
    descriptor = os.memfd_create("input")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _last_line(text: bytes | bytearray) -> str:
    lines = bytes(text).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_comments(source: str) -> str:
    """The bootstrap as it is passed on a command line: less to compile in each run."""
    import ast

    return ast.unparse(ast.parse(source))
