"""Rows of the paper's tables 6 to 8 (arXiv 2411.04905), in percent, and which of our benchmarks each column is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """columns: (heading, benchmark, language or ""). rows: model and one value a column, None where none was published.
    mode: how our rows of this table were asked."""

    title: str
    mode: str
    columns: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


BASE = Published(
    "Base models, greedy, pass@1 (paper, table 6)",
    "completion",
    (
        ("HumanEval", "humaneval", ""),
        ("HumanEval+", "humanevalplus", ""),
        ("MBPP", "mbpp-evalplus", ""),
        ("MBPP+", "mbppplus", ""),
        ("MBPP 3-shot", "mbpp-3shot", ""),
        ("BigCodeBench full", "bigcodebench-complete-full", ""),
        ("BigCodeBench hard", "bigcodebench-complete-hard", ""),
    ),
    (
        ("OpenCoder-1.5B-Base", (54.3, 49.4, 70.6, 58.7, 51.8, 24.5, 5.4)),
        ("OpenCoder-8B-Base", (66.5, 63.4, 79.9, 70.4, 60.6, 40.5, 9.5)),
        ("Qwen2.5-Coder-1.5B", (43.9, 36.6, 69.2, 58.6, 59.2, 34.6, 9.5)),
        ("Qwen2.5-Coder-7B", (61.6, 53.0, 76.9, 62.9, 68.8, 45.8, 16.2)),
        ("DeepSeek-Coder-1.3B-Base", (34.8, 26.8, 55.6, 46.9, 46.2, 26.1, 3.4)),
        ("DeepSeek-Coder-6.7B-Base", (47.6, 39.6, 70.2, 56.6, 60.6, 41.1, 11.5)),
        ("Yi-Coder-1.5B", (41.5, 32.9, 27.0, 22.2, 51.6, 23.5, 3.4)),
        ("Yi-Coder-9B", (53.7, 46.3, 48.4, 40.7, 69.4, 42.9, 14.2)),
        ("StarCoder2-3B", (31.7, 27.4, 60.2, 49.1, 46.4, 21.4, 4.7)),
        ("StarCoder2-7B", (35.4, 29.9, 54.4, 45.6, 55.2, 27.7, 8.8)),
        ("StarCoder2-15B", (46.3, 37.8, 66.2, 53.1, 15.2, 38.4, 12.2)),
    ),
)
INSTRUCT = Published(
    "Instruct models, greedy, pass@1 (paper, table 7)",
    "chat",
    (
        ("HumanEval", "humaneval", ""),
        ("HumanEval+", "humanevalplus", ""),
        ("MBPP", "mbpp-evalplus", ""),
        ("MBPP+", "mbppplus", ""),
        ("BigCodeBench full", "bigcodebench-instruct-full", ""),
        ("BigCodeBench hard", "bigcodebench-instruct-hard", ""),
        ("LiveCodeBench 2305-2409", "livecodebench-2305-2409", ""),
    ),
    (
        ("OpenCoder-1.5B-Instruct", (72.5, 67.7, 72.7, 61.9, 33.3, 11.5, 12.8)),
        ("OpenCoder-8B-Instruct", (83.5, 78.7, 79.1, 69.0, 40.3, 16.9, 23.2)),
        ("Qwen2.5-Coder-1.5B-Instruct", (70.7, 66.5, 69.2, 59.4, 32.5, 6.8, 15.7)),
        ("Qwen2.5-Coder-7B-Instruct", (88.4, 84.1, 83.5, 71.7, 41.0, 18.2, 37.6)),
    ),
)
_MULTIPL_E = "multipl-e-humaneval"
LANGUAGES = Published(
    "MultiPL-E, instruct models, pass@1 (paper, table 8)",
    "chat",
    (
        ("Python", "humaneval", "Python"),
        ("Java", _MULTIPL_E, "Java"),
        ("C++", _MULTIPL_E, "CPP"),
        ("C#", _MULTIPL_E, "C#"),
        ("TypeScript", _MULTIPL_E, "TypeScript"),
        ("JavaScript", _MULTIPL_E, "JavaScript"),
        ("PHP", _MULTIPL_E, "PHP"),
        ("Bash", _MULTIPL_E, "Shell"),
        ("average", "", ""),
    ),
    (
        ("OpenCoder-1.5B-Instruct", (72.5, 64.6, 50.9, 61.4, 63.5, 62.1, 55.3, 29.7, 57.5)),
        ("OpenCoder-8B-Instruct", (83.5, 72.2, 61.5, 75.9, 78.0, 79.5, 73.3, 44.3, 71.0)),
        ("Qwen2.5-Coder-1.5B-Instruct", (None,) * 8 + (56.7,)),
        ("Qwen2.5-Coder-7B-Instruct", (None,) * 8 + (76.5,)),
    ),
)
TABLES = (BASE, INSTRUCT, LANGUAGES)
