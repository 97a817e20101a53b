"""The sandbox: one call runs one program and returns what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opencoder_eval.sandbox.results import Execution, Limits


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
        self.python = python
        self.read_only = tuple(read_only)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is still running."""

    def run(
        self,
        command: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
    ) -> Execution:
        """`command` in a work directory with `files` (relative path -> content)."""
        raise NotImplementedError

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
        raise NotImplementedError

    def run_language(
        self,
        language: str,
        program: str,
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
    ) -> Execution:
        """`program` of a language of `LANGUAGES`, compiled and run; `not_run` if its toolchain is missing.

        Raises: KeyError for an unknown language.
        """
        raise NotImplementedError
