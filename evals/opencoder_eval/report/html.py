"""The report as one HTML file without scripts: what models wrote is text in it, never markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from opencoder_eval.report.tables import Table
from opencoder_eval.verdicts import PASS

# Shown of one text; the files of samples have it all.
MAX_SHOWN = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; } td { border-bottom: 1px solid #ddd; }
tr.ours { font-weight: 600; background: #eef4ff; } pre { background: #f6f6f6; padding: .6rem; overflow: auto; white-space: pre-wrap; }
details details { margin-left: 1rem; } summary { cursor: pointer; padding: .15rem 0; }
.pass { color: #176b2c; } .fail { color: #a31515; } .skip { color: #777; } .note { color: #555; }
"""


@dataclass(frozen=True)
class Shown:
    """One sample as a reader sees it."""

    task_id: str
    sample: int
    language: str
    kind: str
    prompt: str
    answer: str
    solution: str
    detail: str
    retried: bool


def escape(text: str) -> str:
    """For text and attribute values; characters that HTML cannot hold are shown as escapes."""
    return html.escape(_CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text), quote=True)


def document(
    title: str, tables: Sequence[Table], settings: Sequence[str], samples: Iterable[tuple[str, Iterable[Shown]]]
) -> Iterator[str]:
    """The parts of the file, in order. samples: by benchmark."""
    yield "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\n"
    yield "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    yield f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
    for table in tables:
        yield _table(table)
    yield "<h2>Settings</h2>\n<ul>" + "".join(f"<li>{escape(line)}</li>" for line in settings) + "</ul>\n"
    yield "<h2>Samples</h2>\n"
    for benchmark, shown in samples:
        yield f"<details id='{escape(benchmark)}'><summary><b>{escape(benchmark)}</b></summary>\n"
        for each in shown:
            yield _sample(benchmark, each)
        yield "</details>\n"
    yield "</body></html>\n"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = []
    for index, row in enumerate(table.rows):
        mark = " class='ours'" if index in table.ours else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.notes)
    return f"<h2>{escape(table.title)}</h2>\n<table><tr>{head}</tr>\n" + "\n".join(rows) + f"</table>{notes}\n"


def _sample(benchmark: str, s: Shown) -> str:
    style = "pass" if s.kind == PASS else "skip" if s.kind == "not run" else "fail"
    name = s.task_id if s.sample == 0 else f"{s.task_id} #{s.sample}"
    again = " (a timeout, tried twice)" if s.retried else ""
    parts = [f"<details id='{escape(f'{benchmark}/{s.task_id}/{s.sample}')}'><summary>{escape(name)} "]
    parts.append(f"<span class='{style}'>{escape(s.kind)}{again}</span></summary>\n")
    for heading, text in (("Prompt", s.prompt), ("Answer", s.answer), ("Code", s.solution), ("Verdict", s.detail)):
        if text and not (heading == "Code" and text == s.answer):
            parts.append(f"<h4>{heading}</h4><pre>{escape(_short(text))}</pre>\n")
    return "".join([*parts, "</details>\n"])


def _short(text: str) -> str:
    return (
        text
        if len(text) <= MAX_SHOWN
        else f"{text[:MAX_SHOWN]}\n[{len(text) - MAX_SHOWN:,} more characters in the samples]"
    )
