"""Asks tree-sitter, in a process of its own, whether spans of a text are comments, strings or code.

Hostile text must neither hang nor end a worker: the child has `SECONDS` of processor time per text, dies of it or of a
fault of the parser, and the text counts as one that cannot be parsed. Texts that a parser's error recovery takes quadratic
time or deep recursion for are not given to it.
"""

import atexit
import os
import re
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

MAX_BYTES = 1_000_000
MAX_LINE = 100_000
MAX_DEPTH = 500
MAX_RUN = 500
SECONDS = 2.0

_LEVEL = np.zeros(256, np.int8)
_LEVEL[list(b"([{")] = 1
_LEVEL[list(b")]}")] = -1
_RUN = re.compile(rb"([~+*!&<-])(?:\s*\1){%d}" % MAX_RUN)
_MARKS = [b"~", b"+", b"-", b"*", b"!", b"&", b"<"]
_CHILD = Path(__file__).with_name("parse_child.py")


class TreeParser:
    """`look` in a child process, started on first use and again after it has died. Not for several threads at a time."""

    def __init__(self, seconds: float = SECONDS):
        self.seconds = seconds
        self.lost = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def look(
        self, grammar: str, source: bytes, spans: list[tuple[int, int]], bare: frozenset[str] = frozenset()
    ) -> tuple[bool, bytes] | None:
        """(`source` parses without error, one kind per span as in `parse_child`); None where it is not parsed.

        spans: byte ranges. bare: names of nodes that are told as `BARE`.
        """
        if not parseable(source):
            return None
        self._start()
        assert self._pipe
        try:
            self._pipe.send((grammar, source, spans, bare, self.seconds))
            return self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            self.lost += 1
            return None

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if child is not None:
            child.kill()
            child.wait()

    def _start(self) -> None:
        if self._child is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):  # a text in one piece: fewer changes between the processes
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_BYTES)
            self._pipe = Connection(ours.detach())
            path = os.pathsep.join(p for p in sys.path if p)
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )


def parseable(source: bytes) -> bool:
    """Whether size, longest line, nesting of brackets and runs of one operator are within what is given to a parser."""
    if len(source) > MAX_BYTES:
        return False
    codes = np.frombuffer(source, np.uint8)
    ends = np.flatnonzero(codes == 10)
    if np.diff(ends, prepend=-1, append=codes.size).max() > MAX_LINE:
        return False
    level = np.cumsum(_LEVEL[codes], dtype=np.int32)
    if level.size and max((level - np.minimum.accumulate(level)).max(), -level.min()) > MAX_DEPTH:
        return False
    return all(source.count(mark) < MAX_RUN for mark in _MARKS) or not _RUN.search(source)


_PARSER: TreeParser | None = None


def tree_parser() -> TreeParser:
    """This process's parser, ended with it."""
    global _PARSER
    if _PARSER is None:
        _PARSER = TreeParser()
        atexit.register(_PARSER.close)
    return _PARSER
