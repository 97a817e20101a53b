"""A cut may bring together what is a notice only together: such headers need a second look, and then stay as they are."""

import pytest
from opencoder_data.refinecode.transform import header
from opencoder_data.refinecode.transform.header import remove_header


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Neither the first nor the last line is a notice by itself; "(c) 2020 Foo" is.
        ("// (c)\n// under the MIT license.\n// 2020 Foo\nint x;\n", "int x;\n"),
        ("// (c)\n// under the MIT license.\n// by Foo\n// Foo library\nint x;\n", "// Foo library\nint x;\n"),
    ],
)
def test_a_header_that_needs_two_passes(before, after, monkeypatch):
    looks = []
    spans = header.notice_spans
    monkeypatch.setattr(header, "notice_spans", lambda text, syntax: looks.append(text) or spans(text, syntax))
    assert remove_header(before, "c") == after
    assert len(looks) == 3, "two that cut, and one that finds nothing left"
    assert remove_header(after, "c") == after


def test_a_header_that_no_number_of_passes_would_end_stays(monkeypatch):
    """Cut half-way it would be cut again in the next run: the file is left alone."""
    text = "// (c)\n// under the MIT license.\n// 2020 Foo\nint x;\n"
    monkeypatch.setattr(header, "_PASSES", 1)
    assert remove_header(text, "c") == text
