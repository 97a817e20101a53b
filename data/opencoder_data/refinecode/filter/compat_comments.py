"""The released filter's comment splitter, reproduced."""

import numpy as np

from . import scan
from .syntax import compat_syntax


def comment_mask(view) -> np.ndarray:
    """uint8 per character of `view.source`: CODE, COMMENT or STRING, as the released filter splits them."""
    if view.language == "perl":
        return _line_mask(view, _perl)
    syntax = compat_syntax(view.language)
    if syntax is None:
        return _line_mask(view, _by_hand)
    return syntax.scan(view.source_cp)


def _line_mask(view, rule) -> np.ndarray:
    mask = np.zeros(len(view.source), np.uint8)
    for (a, b), comment in zip(view.spans.tolist(), rule(view), strict=True):
        if comment:
            mask[a:b] = scan.COMMENT
    return mask


def _by_hand(view):
    """Lines told apart by how they begin and end; after a one-line comment everything is comment until a line that
    begins or ends with a block mark (published defect)."""
    inside = False
    for line in view.content.split("\n")[: view.num_lines]:
        line = line.strip()
        if line.startswith(('"""', "/*")) or line.endswith(('"""', "*/")):
            inside = not inside
            yield True
        elif inside or line.startswith(("#", "//", "--")):
            inside = True
            yield True
        else:
            yield False


def _perl(view):
    """POD blocks from a line that begins with '=' to '=cut', and lines that begin with '#'."""
    inside = False
    for line in view.content.split("\n")[: view.num_lines]:
        line = line.strip()
        if line.startswith("=cut"):
            inside = False
            yield True
        elif line.startswith("="):
            inside = True
            yield True
        else:
            yield inside or line.startswith("#")
