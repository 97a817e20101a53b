"""All benchmarks by name. A name says the variant; unknown ones name the nearest.

`expand` also takes groups: `paper` (the columns of the paper's tables 6 to 8), `all`, and families such as `multipl-e`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from opencoder_eval.benchmarks.base import Benchmark
from opencoder_eval.benchmarks.humaneval import HumanEval
from opencoder_eval.benchmarks.mbpp import TEST_IDS, TEST_IDS_OPENCODEEVAL, Mbpp, MbppPlus

Make = Callable[[str], Benchmark]

_BENCHMARKS: dict[str, Make] = {
    "humaneval": lambda n: HumanEval(n, "HumanEval"),
    "humanevalplus": lambda n: HumanEval(n, "HumanEval+", plus=True),
    "humaneval-opencodeeval": lambda n: HumanEval(n, "HumanEval (OpenCodeEval)", opencodeeval=True),
    "humanevalplus-opencodeeval": lambda n: HumanEval(n, "HumanEval+ (OpenCodeEval)", plus=True, opencodeeval=True),
    "mbpp": lambda n: Mbpp(n, "MBPP, all 974"),
    "mbpp-test": lambda n: Mbpp(n, "MBPP, test split", ids=TEST_IDS),
    "mbpp-sanitized": lambda n: Mbpp(n, "MBPP, sanitized 427", file="mbpp_sanitized"),
    "mbpp-3shot": lambda n: Mbpp(n, "MBPP, 3-shot", ids=TEST_IDS, few_shot=True),
    "mbpp-3shot-opencodeeval": lambda n: Mbpp(
        n, "MBPP, 3-shot (OpenCodeEval, ids 10 to 509)", ids=TEST_IDS_OPENCODEEVAL, few_shot=True, opencodeeval=True
    ),
    "mbpp-evalplus": lambda n: MbppPlus(n, "MBPP (EvalPlus, base inputs)", base=True),
    "mbppplus": lambda n: MbppPlus(n, "MBPP+"),
}
_GROUPS: dict[str, tuple[str, ...]] = {
    "evalplus": ("humaneval", "humanevalplus", "mbpp-evalplus", "mbppplus"),
    "paper": ("humaneval", "humanevalplus", "mbpp-evalplus", "mbppplus", "mbpp-3shot"),
}
# Benchmarks that ask the same questions share their samples.
_PROMPTS = {
    "humanevalplus": "humaneval",
    "mbppplus": "mbpp-evalplus",
    "humanevalplus-opencodeeval": "humaneval-opencodeeval",
}


def names() -> list[str]:
    """Every benchmark, in the order of the guide."""
    return list(_BENCHMARKS)


def get(name: str) -> Benchmark:
    """Raises: ValueError for an unknown name, with the nearest one."""
    if name not in _BENCHMARKS:
        raise ValueError(_unknown(name))
    return _BENCHMARKS[name](name)


def expand(text: str) -> list[str]:
    """Names from `a,b`, groups and families, in order, each once. Raises: ValueError for an unknown one."""
    out: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name == "all":
            out += names()
        elif name in _GROUPS:
            out += _GROUPS[name]
        elif name in _BENCHMARKS:
            out.append(name)
        else:
            raise ValueError(_unknown(name))
    if not out:
        raise ValueError(f"no benchmark is named; there are {', '.join(names())}")
    return list(dict.fromkeys(out))


def prompts_of(name: str) -> str:
    """The benchmark whose samples this one takes: itself, or the one with the same prompts."""
    return _PROMPTS.get(name, name)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), [*_GROUPS, *_BENCHMARKS, "all"], 1, 0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{name!r} is not a benchmark; {hint}`opencoder eval list` lists them"
