"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opencoder_eval.report.tables import Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def escape(text: str) -> str:
    """Text in a cell: nothing in it is markup, and it has one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(table: Table) -> str:
    """A GitHub table; rows that were measured here are bold."""
    lines = [f"## {escape(table.title)}", "", _row(table.head), "|" + "---|" * len(table.head)]
    for index, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        lines.append(_row([f"**{c}**" if index in table.ours and c else c for c in cells], escaped=True))
    lines += ["", *(f"- {escape(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def document(title: str, tables: Sequence[Table], settings: Sequence[str]) -> str:
    """The whole report."""
    parts = [f"# {escape(title)}\n", *(table(t) for t in tables)]
    return "\n".join([*parts, "## Settings\n", *(f"- {escape(line)}" for line in settings)]) + "\n"


def _row(cells: Sequence[str], *, escaped: bool = False) -> str:
    return "| " + " | ".join(cells if escaped else [escape(c) for c in cells]) + " |"
