"""What came of one solution."""

from __future__ import annotations

from dataclasses import dataclass

# Kinds of verdict. NOT_RUN counts neither as passed nor as failed: the toolchain or the judge is missing here.
PASS, WRONG, EXCEPTION, TIMEOUT = "pass", "wrong answer", "exception", "timeout"
SYNTAX, NO_CODE, MEMORY, OUTPUT, MISSING = "syntax", "no code", "memory", "output", "missing"
NOT_RUN = "not run"
FAILURES = (WRONG, EXCEPTION, TIMEOUT, SYNTAX, NO_CODE, MEMORY, OUTPUT, MISSING)


@dataclass(frozen=True)
class Verdict:
    """kind: PASS, one of FAILURES, or NOT_RUN. detail: the end of the error output. seconds: wall time."""

    kind: str
    detail: str = ""
    seconds: float = 0.0
    isolated: bool = True
