"""The tests of HumanEval+ and MBPP+: a time limit for each input, and without the 0.4 s that importing numpy takes in each of 542 programs.

They use numpy for `allclose` and to ask whether something is an array. The replacement decides plain numbers and flat lists
of them by numpy's own formula, and calls numpy for everything else, so that verdicts are the same.
"""

from __future__ import annotations

import re

# CPU time for one input: EvalPlus allows 4 s of wall time, or four times what the reference takes. The signal ends the
# process: a solution cannot catch it as an exception.
SECONDS_PER_INPUT = 8
TIMED = f"""
import signal as _signal
def _timed(inputs):
    for each in inputs:
        _signal.setitimer(_signal.ITIMER_PROF, {SECONDS_PER_INPUT})
        yield each
    _signal.setitimer(_signal.ITIMER_PROF, 0)
"""
_LOOP = re.compile(r"(?m)^( *for .* in )(enumerate\(.*\)):$")
IMPORT = "import numpy as np\n"

SHIM = '''\
class _QuickNumpy:
    """isinstance(x, np.ndarray) without numpy where nothing else has imported it; allclose for plain numbers."""

    def __getattr__(self, name):
        import sys
        if name == "ndarray" and "numpy" not in sys.modules:
            return ()
        import numpy
        return getattr(numpy, name)

    def allclose(self, out, exp, rtol=1e-05, atol=1e-08):
        verdict = self._close(out, exp, rtol, atol)
        if verdict is None:
            import numpy
            return numpy.allclose(out, exp, rtol=rtol, atol=atol)
        return verdict

    def _close(self, a, b, rtol, atol):
        plain = (int, float, bool)
        if type(a) in plain and type(b) in plain:
            if abs(a) >= 2 ** 63 and type(a) is int or abs(b) >= 2 ** 63 and type(b) is int:
                return None
            if a != a or b != b:
                return False
            if a in (float("inf"), -float("inf")) or b in (float("inf"), -float("inf")):
                return a == b
            return abs(a - b) <= atol + rtol * abs(b)
        if type(a) in (list, tuple) and type(b) in (list, tuple) and len(a) == len(b):
            each = [self._close(x, y, rtol, atol) if type(x) in plain else None for x, y in zip(a, b)]
            return None if None in each else all(each)
        return None


np = _QuickNumpy()
'''


def prepare(test: str) -> str:
    """The test with its import of numpy replaced and its loop over the inputs timed; unchanged where it has none."""
    return TIMED + _LOOP.sub(r"\1_timed(\2):", test.replace(IMPORT, SHIM, 1))
