"""What every command of the project does alike: errors in one line, Ctrl-C, open files, and children that end with it.

A command is a module whose last line is `command.end(main(...))` and whose `main` returns `command.run(...)`; the packages
call `interruptible_imports` when it is started by `python -m`. Exit codes: 0 done; 1 part of the work
failed, and the report says which; 2 rejected, one line says why and what to change; 5 what the command waits for did not
answer; 130 stopped by Ctrl-C; 143 ended by SIGTERM. A command may have others of its own (train: 3 and 4).

Only the standard library is imported, and little of it: this module is loaded before everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

EXIT_FAILED, EXIT_REJECTED, EXIT_SILENT, EXIT_INTERRUPTED = 1, 2, 5, 130
# A process pool, XLA and the readers of a training run need some hundred; below the first number nothing is started.
MIN_OPEN_FILES, WANTED_OPEN_FILES = 128, 16_384
# Seconds after Ctrl-C: the main thread may sit in a compiler that never looks; what it cleans up has an end too.
NOTICE_SECONDS, CLEAN_UP_SECONDS = 2.0, 15.0
MORE_FILES = "raise the limit (`ulimit -n 4096`) and run the same command again"
REMEDIES = {
    errno.EACCES: "give a place that this user may use, or change who may",
    errno.EROFS: "give a place that can be written",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
}
# Files that are being written have names that begin so.
TEMPORARY = ".tmp-"
STOPPED = "stopped by Ctrl-C; run the same command again"

# What a process that is ended from outside its main thread still has to take with it.
_children: set[subprocess.Popen[Any]] = set()
_temporary: set[Path] = set()


def run(work: Callable[[], int], *, stopped: str = STOPPED) -> int:
    """`work()` with its exit code; errors that a user can mend, and Ctrl-C, become one line on standard error.

    Args:
      work: raises ValueError or OSError for what the user must change.
      stopped: what to say after Ctrl-C: whether the same command goes on or begins anew.

    Returns: the exit code of `work`, EXIT_REJECTED or EXIT_INTERRUPTED. Other exceptions, which are faults of the
    program, pass.
    """
    escape_what_cannot_be_encoded()
    interrupts = _Interrupts(stopped)
    try:
        with interrupts:
            raise_file_limit()
            code = work()
            if sys.stdout is not None:
                sys.stdout.flush()  # what cannot be written is found out here, not at exit
            return code
    except KeyboardInterrupt:
        interrupts.say(stopped)
        return EXIT_INTERRUPTED
    except Exception as error:
        if interrupts.noticed:  # by a library that made another exception of it
            interrupts.say(stopped)
            return EXIT_INTERRUPTED
        line = one_line(error)
        if line is None:
            raise
        if isinstance(error, BrokenPipeError):
            _discard_output()
        say(f"error: {line}")
        return EXIT_REJECTED


def end(code: int) -> NoReturn:
    """Ends the process. After Ctrl-C nothing is waited for: threads of libraries may have hours of work left."""
    if code == EXIT_INTERRUPTED:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def interruptible_imports() -> None:
    """Until `run` begins, Ctrl-C is one line and the end: importing JAX takes seconds, and nothing is written yet."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: _end_now(STOPPED))


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line, without the usage, names the nearest option for a typo, and
    takes no abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith(
            ("the following arguments are required", "one of the arguments", "unrecognized arguments")
        ):
            message = self._typo() or message
        say(f"error: {message} (--help lists the options)")
        raise SystemExit(EXIT_REJECTED)

    def _typo(self) -> str | None:
        """What to say of the first option given that is nearly one of this parser's, or of its commands'."""
        import difflib

        parsers = [self]
        for action in self._actions:
            parsers += action.choices.values() if isinstance(action, argparse._SubParsersAction) else []
        known = {option for parser in parsers for option in parser._option_string_actions if option.startswith("--")}
        for argument in self._given:
            name = argument.partition("=")[0]
            near = difflib.get_close_matches(name, known, 1) if name.startswith("--") and name not in known else []
            if near:
                return f"{name}: no such option; did you mean {near[0]}?"
        return None


# --- children ---------------------------------------------------------------------------------------------------------


def start_worker() -> None:
    """Initializer of a process pool's workers: the parent answers Ctrl-C, and a worker ends when the parent does."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with(parent.sentinel)


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Processes started in this block never see Ctrl-C, not even before `start_worker`; ours waits for its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_workers() -> None:
    """Ends all `multiprocessing` children of this process: their work is in files that appear whole or not at all."""
    import multiprocessing

    children = multiprocessing.active_children()
    for child in children:
        child.kill()
    for child in children:
        child.join(5)


@contextlib.contextmanager
def child_process(arguments: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """`python -m ARGUMENTS` that ends when this process does, however it does; it is not running after the block.

    Ctrl-C at a terminal reaches this process alone; a child that is left behind by an exception is sent SIGINT, so that
    a trainer saves, and SIGKILL after `CLEAN_UP_SECONDS` or a second Ctrl-C. options: of Popen.
    """
    watched, held = os.pipe()
    command = [sys.executable, "-c", _CHILD, str(watched), *arguments]
    try:
        process = subprocess.Popen(command, pass_fds=(watched,), start_new_session=True, **options)
    except BaseException:
        os.close(watched)
        os.close(held)
        raise
    _children.add(process)
    os.close(watched)
    try:
        yield process
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLEAN_UP_SECONDS - 5)
        raise
    finally:
        process.kill()
        process.wait()
        _children.discard(process)
        os.close(held)


def end_with(descriptor: int) -> None:
    """Ends this process at once when the other end of a pipe, which only its parent holds, is closed: however the parent ends.

    Also while native code holds the interpreter, where the system can (Linux); elsewhere a thread must get its turn.
    """

    def watch() -> None:
        import select

        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll()
        os._exit(1)

    try:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        pass
    # The pipe may have been closed before.
    threading.Thread(target=watch, daemon=True, name="end with parent").start()


# --- files ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def temporary_directory(path: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A directory, at `path` or where the system keeps such, that goes with the block, also when Ctrl-C ends the process."""
    directory = Path(path) if path else Path(tempfile.mkdtemp(prefix="opencoder-"))
    _temporary.add(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _temporary.discard(directory)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to fill beside `path`, in a directory made for it where needed. It takes the place of `path`, synced, when the
    block ends without an exception, and goes when it does not; a killed process leaves it under a name with `TEMPORARY`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid():x}-{os.urandom(4).hex()}")
    try:
        part.open("xb").close()
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file whole or not at all, see `replacing`."""
    with replacing(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def progress(total: float | None = None, **options: Any) -> Iterator[Any]:
    """A tqdm bar; one that is left by an exception is erased, so that the error stands alone."""
    from tqdm import tqdm

    with tqdm(total=total, mininterval=1, **options) as bar:
        try:
            yield bar
        except BaseException:
            bar.leave = False
            raise


def raise_file_limit() -> None:
    """Raises the limit of open files as far as this user may. Raises: ValueError when nothing can run below it."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    wanted = WANTED_OPEN_FILES if unlimited else min(WANTED_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise ValueError(f"only {soft} files may be open at once, at least {MIN_OPEN_FILES} are needed; {MORE_FILES}")


def check_path(field: str, path: str) -> None:
    """Raises ValueError for a path that is not text in this locale, where a library takes text alone."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        raise ValueError(
            f"{field}={shown}: the name is not text in this locale; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename it"
        ) from None


# --- one line ---------------------------------------------------------------------------------------------------------


def one_line(error: Exception) -> str | None:
    """What to tell the user, or None for a fault of the program."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for each in chain:
        if getattr(each, "errno", None) in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(each):
            return f"too many open files; {MORE_FILES}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or give smaller sizes"
    if isinstance(error, UnicodeEncodeError) and any("\udc80" <= c <= "\udcff" for c in error.object):
        text = error.object.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return f"{text!r} is not UTF-8, or the locale is not: set PYTHONUTF8=1, or give another name"
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return "standard output is closed: what read it has ended; run the same command again"
    if isinstance(error, OSError) and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror
        text += f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    elif isinstance(error, (ValueError, OSError)):
        text = str(error) or type(error).__name__
    else:
        return None
    return " ".join(text.split("\n")).strip()


def escape_what_cannot_be_encoded() -> None:
    """Names and texts that the terminal's encoding does not have are escaped rather than an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def _discard_output() -> None:
    """The reader of standard output has gone: what is still buffered for it must not fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """A line on standard error, if anybody reads it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def _end_now(line: str) -> NoReturn:
    """From any thread: children, temporary directories and this process are gone, whatever the main thread does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN) if threading.current_thread() is threading.main_thread() else None
    if line:
        say(line)
    for process in list(_children):
        process.kill()
    if "multiprocessing" in sys.modules:
        kill_workers()
    for directory in list(_temporary):
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(EXIT_INTERRUPTED)


class _Interrupts:
    """Ctrl-C in this block: KeyboardInterrupt in the main thread; where that is not seen in time, and the second time,
    the process ends at once."""

    def __init__(self, line: str):
        self._line = line
        self._lock = threading.Lock()
        self._noticed, self._done = threading.Event(), threading.Event()
        self._active = False

    def __enter__(self) -> _Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job has none
            return self
        self._active = True
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.signal(signal.SIGINT, self._first)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._lost
        threading.Thread(target=self._watch, daemon=True, name="interrupts").start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._active:
            return
        self._done.set()
        signal.set_wakeup_fd(self._wakeup)
        sys.unraisablehook = self._unraisable
        if not self._noticed.is_set():
            signal.signal(signal.SIGINT, self._before)
        os.close(self._write)  # ends the thread, which closes the other end

    @property
    def noticed(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._noticed.is_set()

    def say(self, line: str) -> None:
        """The line, once."""
        with self._lock:
            line, self._line = self._line and line, ""
        if line:
            say(line)

    def _first(self, *_: object) -> None:
        self._noticed.set()
        signal.signal(signal.SIGINT, self._second)
        raise KeyboardInterrupt

    def _second(self, *_: object) -> None:
        with self._lock:
            line, self._line = self._line, ""
        _end_now(line)

    def _lost(self, unraisable: Any) -> None:
        """Ctrl-C fell into a destructor, out of which no exception comes."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._second()
        self._unraisable(unraisable)

    def _watch(self) -> None:
        """Woken by the system's signal handler, which runs whatever the main thread is busy with."""
        while (received := os.read(self._read, 1)) and received[0] != signal.SIGINT:
            pass
        if received and not (self._noticed.wait(NOTICE_SECONDS) and self._done.wait(CLEAN_UP_SECONDS)):
            with self._lock:
                line, self._line = self._line, ""
            _end_now(line)
        os.close(self._read)


_CHILD = "from opencoder_data.command import child_main; child_main()"


def child_main() -> None:
    """With arguments DESCRIPTOR MODULE ...: the module as `python -m` runs it, ending with the holder of the pipe."""
    import runpy

    interruptible_imports()
    watched, module, *rest = sys.argv[1:]
    os.set_inheritable(int(watched), False)
    end_with(int(watched))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
