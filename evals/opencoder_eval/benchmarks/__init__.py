"""All benchmarks by name. A name says the variant; unknown ones name the nearest.

`expand` also takes groups: `paper` (the columns of the paper's tables 6 to 8), `all`, and families such as `multipl-e`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable

from opencoder_eval.benchmarks import infilling, livecodebench, mceval, mdeval
from opencoder_eval.benchmarks.base import Benchmark
from opencoder_eval.benchmarks.bigcodebench import BigCodeBench
from opencoder_eval.benchmarks.codearena import CodeArena
from opencoder_eval.benchmarks.humaneval import HumanEval
from opencoder_eval.benchmarks.infilling import Infilling
from opencoder_eval.benchmarks.livecodebench import LiveCodeBench
from opencoder_eval.benchmarks.mbpp import TEST_IDS, TEST_IDS_OPENCODEEVAL, Mbpp, MbppPlus
from opencoder_eval.benchmarks.mceval import McEval
from opencoder_eval.benchmarks.mdeval import MdEval
from opencoder_eval.benchmarks.multipl_e import LANGUAGES, PAPER, MultiplE


def _slug(language: str) -> str:
    """A language's name as part of a benchmark's: `csharp`, `common-lisp`."""
    return language.lower().replace("#", "sharp").replace(" ", "-")


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
for _source in ("humaneval", "mbpp"):
    _title = {"humaneval": "HumanEval", "mbpp": "MBPP"}[_source]
    for _suffix, _codes in (("", PAPER), ("-18", tuple(LANGUAGES)), *((f"-{code}", (code,)) for code in LANGUAGES)):
        _which = f"{len(_codes)} languages" if len(_codes) > 1 else LANGUAGES[_codes[0]]
        _BENCHMARKS[f"multipl-e-{_source}{_suffix}"] = functools.partial(
            MultiplE, title=f"MultiPL-E {_title}, {_which}", source=_source, codes=_codes
        )
_BENCHMARKS["mceval"] = functools.partial(McEval, title="McEval generation, 40 languages")
for _language in mceval.LANGUAGES:
    _BENCHMARKS[f"mceval-{_slug(_language)}"] = functools.partial(
        McEval, title=f"McEval generation, {_language}", languages=(_language,)
    )
for _variant in mdeval.VARIANTS:
    _BENCHMARKS[f"mdeval-{_variant}"] = functools.partial(
        MdEval, title=f"MdEval {_variant}, 18 languages", variant=_variant
    )
for _language in mdeval.LANGUAGES:
    _BENCHMARKS[f"mdeval-repair-{_slug(_language)}"] = functools.partial(
        MdEval, title=f"MdEval repair, {_language}", variant="repair", languages=(_language,)
    )
for _variant in ("complete", "instruct"):
    for _subset in ("full", "hard"):
        _BENCHMARKS[f"bigcodebench-{_variant}-{_subset}"] = functools.partial(
            BigCodeBench, title=f"BigCodeBench {_variant}, {_subset}", variant=_variant, subset=_subset
        )
_BENCHMARKS["livecodebench-2305-2409"] = functools.partial(
    LiveCodeBench, title="LiveCodeBench, May 2023 to September 2024", window=("2305", "2409")
)
_BENCHMARKS["livecodebench"] = functools.partial(LiveCodeBench, title="LiveCodeBench, all")
for _variant in infilling.VARIANTS:
    _BENCHMARKS[f"humaneval-infilling-{_variant}"] = functools.partial(
        Infilling, title=f"HumanEval infilling, {_variant}", variant=_variant
    )
_BENCHMARKS["codearena"] = functools.partial(CodeArena, title="CodeArena, wins against GPT-4 Turbo")
_GROUPS: dict[str, tuple[str, ...]] = {
    "evalplus": ("humaneval", "humanevalplus", "mbpp-evalplus", "mbppplus"),
    "paper": ("humaneval", "humanevalplus", "mbpp-evalplus", "mbppplus", "mbpp-3shot", "multipl-e-humaneval"),
    "infilling": tuple(f"humaneval-infilling-{v}" for v in infilling.VARIANTS),
    "bigcodebench": tuple(f"bigcodebench-{v}-{s}" for v in ("complete", "instruct") for s in ("full", "hard")),
    "mdeval": ("mdeval-repair", "mdeval-ident", "mdeval-loc", "mdeval-review"),
    "multipl-e": ("multipl-e-humaneval", "multipl-e-mbpp"),
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
    if name not in _BENCHMARKS and livecodebench.NAME.fullmatch(name):
        return LiveCodeBench(name, f"LiveCodeBench, {name[-9:]}", livecodebench.window_of(name))
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
        elif name in _BENCHMARKS or livecodebench.NAME.fullmatch(name):
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
