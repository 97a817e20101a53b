"""HTML signals (prefix `qsc_codehtml_`, 3 published)."""

import html
from functools import cache

import re2

from .document_view import View
from .markup import visible
from .registry import Value, ratio, signal


@cache
def MARKUP():
    """What is not visible text."""
    attributes = rb"(?:[^>\"']|\"[^\"]*\"|'[^']*')*"
    return re2.compile(
        rb"(?i)<!--(?:(?s:.*?)-->|(?s:.*))|<script\b" + attributes + rb">(?s:.*?)</script\s*>|<style\b" + attributes
        + rb">(?s:.*?)</style\s*>|<template\b" + attributes + rb">|<[!?][^>]*>|</?[a-z]" + attributes + rb">"
    )  # fmt: skip


def visible_chars(view: View) -> int:
    """Characters of the text outside tags, comments, scripts and style sheets, entities resolved; whitespace between two
    tags counts as one character."""
    total, spans = visible(view.cp, view.table)
    if total < 0:
        return visible_by_pattern(view)
    return total + sum(len(html.unescape(view.content[a:b].replace("\0", " "))) for a, b in spans.tolist())


def visible_by_pattern(view: View) -> int:
    """`visible_chars` by `MARKUP`: slower, and linear on every text."""
    stripped: bytes = MARKUP().sub(b"\x00", view.utf8.replace(b"\x00", b" "))  # pyright: ignore[reportAssignmentType]
    total = 0
    for piece in stripped.decode("utf-8", "replace").split("\x00"):
        if piece.isspace():
            total += 1
        elif piece:
            total += len(html.unescape(piece) if "&" in piece else piece)
    return total


@signal("qsc_codehtml_cate_ast")
def parses(view: View) -> Value:
    """The file parses (an HTML parser accepts everything; what has not one tag is rejected in the default profile)."""
    return 1.0 if view.compat else float("<" in view.content and b"</" in view.utf8)


@signal("qsc_codehtml_frac_words_text")
def frac_words_text(view: View) -> Value:
    """Characters of visible text ÷ characters."""
    return ratio(_size(view), len(view.content))


@signal("qsc_codehtml_num_chars_text")
def num_chars_text(view: View) -> Value:
    """Characters of visible text."""
    return float(_size(view))


def _size(view: View) -> int:
    size = getattr(view, "_visible", None)
    if size is None:
        size = visible_chars(view)
        view._visible = size  # pyright: ignore[reportAttributeAccessIssue]
    return size
