"""Reports: what models write stays text; the paper's tables; scores from verdicts."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from opencoder_eval.report import html, markdown, tables, write_report
from opencoder_eval.report.published import TABLES
from opencoder_eval.score import Result, summarize

HOSTILE = "<script>alert('x')</script> </pre></details> \" ' & | ` \0 \x1b[31m \ud800 ]]> <!-- \r\n* [a](javascript:b)"


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.depth = 0
        self.text: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.depth += tag not in ("meta",)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_hostile_text_is_text_in_html():
    shown = html.Shown(HOSTILE, 0, "Python", HOSTILE, HOSTILE, HOSTILE, HOSTILE + "code", HOSTILE, True)
    table = tables.Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), frozenset({0}), (HOSTILE,))
    page = "".join(html.document(HOSTILE, [table], [HOSTILE], [(HOSTILE, [shown])]))
    seen = _Seen()
    seen.feed(page)
    assert seen.depth == 0, "every element is closed where it was opened"
    assert not {"script", "a", "img"} & set(seen.tags)
    assert seen.attributes <= {"lang", "charset", "http-equiv", "content", "class", "id"}
    assert "<script>alert('x')</script>" in "".join(seen.text)
    assert "\0" not in page
    assert "\x1b" not in page
    page.encode("utf-8")
    assert "default-src 'none'" in page


def test_hostile_text_is_one_cell_in_markdown():
    text = markdown.table(tables.Table("t", ("a", "b"), ((HOSTILE, "x"),), frozenset({0})))
    row = text.splitlines()[4]
    assert row.replace("\\|", "").count("|") == 3
    assert "<script" not in row.replace("\\<", "")


def test_long_texts_are_shortened():
    shown = html.Shown("t", 0, "Python", "pass", "p" * 100_000, "", "", "", False)
    page = "".join(html.document("x", [], [], [("b", [shown])]))
    assert len(page) < 30_000
    assert "80,000 more characters" in page


def _summary(benchmark: str, score: float, **changes: Any) -> dict[str, Any]:
    language = {"tasks": 4, "run": 4, "pass_at": {"1": score}, "kinds": {"pass": 1}}
    settings = {"model": "ours", "mode": "completion", "limit": 0}
    base = {"benchmark": benchmark, "title": benchmark, "tasks": 4, "run": 4, "samples_per_task": 1, "seconds": 1.0}
    base |= {"pass_at": {"1": score}, "kinds": {"pass": 1, "timeout": 2}, "by_language": {"Python": language}}
    base |= {
        "canonical": [4, 4, 4],
        "timeouts": [3, 2],
        "isolated": True,
        "settings": settings,
        "versions": {},
        "notes": [],
    }
    return {**base, **changes}


def test_our_rows_are_in_the_papers_tables():
    table = tables.published_table(TABLES[0], [_summary("humaneval", 0.5), _summary("mbpp-3shot", 0.25)])
    assert table is not None
    assert table.rows[-1] == ("ours (measured here)", "50.0", "", "", "", "25.0", "", "")
    assert table.ours == {len(table.rows) - 1}
    assert table.rows[1] == ("OpenCoder-8B-Base", "66.5", "63.4", "79.9", "70.4", "60.6", "40.5", "9.5")
    assert tables.published_table(TABLES[1], [_summary("humaneval", 0.5)]) is None, (
        "a base model is in no table of instruct models"
    )


def test_the_average_of_languages_needs_all_of_them():
    languages = {
        name: {"tasks": 1, "run": 1, "pass_at": {"1": 0.5}, "kinds": {}}
        for name in ("Java", "CPP", "C#", "TypeScript", "JavaScript", "PHP", "Shell")
    }
    chat = {"model": "ours", "mode": "chat"}
    multiple = _summary("multipl-e-humaneval", 0.5, by_language=languages, settings=chat)
    row = tables.published_table(TABLES[2], [multiple])
    assert row is not None
    assert row.rows[-1][1:] == ("", *("50.0",) * 7, "")
    row = tables.published_table(TABLES[2], [multiple, _summary("humaneval", 0.9, settings=chat)])
    assert row is not None
    assert row.rows[-1][1:] == ("90.0", *("50.0",) * 7, "55.0")


def test_what_a_score_lacks_is_said_below_it():
    summary = _summary("humaneval", 0.5, run=3, canonical=[3, 4, 4], isolated=False, notes=["1 missing"])
    summary["settings"]["limit"] = 4
    text = tables.caveat(summary)
    for part in (
        "1 missing",
        "only the first 4 tasks",
        "1 of 4 tasks were not run",
        "1 canonical solutions fail",
        "without isolation",
    ):
        assert part in text
    assert tables.caveat(_summary("humaneval", 0.5)) == ""


def test_tasks_that_were_not_run_are_in_no_score():
    results = [
        Result("a", 0, "Python", "pass"),
        Result("b", 0, "Python", "wrong answer"),
        Result("c", 0, "Dart", "not run"),
        Result("d", 0, "Python", "timeout", retried=True),
        Result("e", 0, "Python", "pass", retried=True),
    ]
    found = summarize(results, (1, 10), 1)
    assert found["pass_at"] == {"1": 0.5}
    assert found["run"] == 4
    assert found["by_language"]["Dart"]["pass_at"] == {}
    assert found["by_language"]["Dart"]["run"] == 0
    assert found["timeouts"] == (2, 1)
    assert found["kinds"] == {"pass": 2, "wrong answer": 1, "not run": 1, "timeout": 1}


def test_a_report_of_nothing_and_of_corrupt_results_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no results there"):
        write_report(tmp_path)
    (tmp_path / "humaneval").mkdir()
    (tmp_path / "humaneval/summary.json").write_text("{")
    with pytest.raises(ValueError, match="score again"):
        write_report(tmp_path)


def test_bits_per_byte_are_reported_without_scores(tmp_path: Path):
    (tmp_path / "mbpp").mkdir()
    row = {"benchmark": "mbpp", "model": "m", "bits_per_byte": 0.51234, "tasks": 3, "bytes": 1234, "rejected": 0}
    (tmp_path / "mbpp/likelihood.json").write_text(json.dumps(row))
    paths = write_report(tmp_path)
    assert "0.5123" in paths[0].read_text()
