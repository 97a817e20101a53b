"""Jupyter notebooks as structured cells, with the markers that the tokenizer knows as special tokens.

The paper keeps notebooks in this form (markdown, code, result) and dropped the script form. Layout of our own::

    <jupyter_start><jupyter_text>markdown<jupyter_code>source<jupyter_output>text of the result<jupyter_text>...

A code cell without textual output is followed by ``<jupyter_output><empty_output>``.
"""

import json
from typing import Any

START, TEXT, CODE, OUTPUT, EMPTY = (
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
)
_MAX_OUTPUT = 2_000


class NotebookError(ValueError):
    """Not a notebook that can be read."""


def structured_cells(content: str) -> str:
    """Cells of a notebook of format 2 to 4 in one string; images and other binary results are left out.

    Raises NotebookError when the JSON or its shape is broken or no cell holds text.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"no valid JSON: {str(error)[:120]}") from None
    if not isinstance(notebook, dict):
        raise NotebookError("the JSON is not an object")
    cells = _cells(notebook)
    if cells is None:
        raise NotebookError("it has no cells")
    parts = [START]
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _text(cell.get("source", cell.get("input")))
        if not source.strip():
            continue
        if cell.get("cell_type") == "code":
            parts += [CODE, source, OUTPUT, _outputs(cell.get("outputs")) or EMPTY]
        elif cell.get("cell_type") in ("markdown", "heading", "html"):
            parts += [TEXT, source]
    if len(parts) == 1:
        raise NotebookError("all cells are empty")
    return "".join(parts)


def _cells(notebook: dict[str, Any]) -> list[Any] | None:
    """Format 4 has cells, formats 2 and 3 have worksheets with cells; None where there is no list of cells."""
    sheets = notebook.get("worksheets")
    holders = [notebook, *(sheets if isinstance(sheets, list) else [])]
    found = [
        holder["cells"] for holder in holders if isinstance(holder, dict) and isinstance(holder.get("cells"), list)
    ]
    return [cell for cells in found for cell in cells] if found else None


def _text(value: Any) -> str:
    """Notebook strings are a string or a list of lines; markers inside are broken so that they stay text."""
    if isinstance(value, list):
        value = "".join(v for v in value if isinstance(v, str))
    if not isinstance(value, str):
        return ""
    if "\0" in value or not _encodable(value):
        value = value.replace("\0", "").encode("utf-8", "replace").decode()
    for marker in (START, TEXT, CODE, OUTPUT, EMPTY):
        value = value.replace(marker, marker.replace("<", "< "))
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _outputs(outputs: Any) -> str:
    texts = []
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        plain = data.get("text/plain") if isinstance(data, dict) else None
        text = _text(output.get("text") or plain)
        if not text and output.get("output_type") in ("error", "pyerr"):
            text = f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"
        if text:
            texts.append(text)
    joined = "\n".join(texts)
    return joined if len(joined) <= _MAX_OUTPUT else joined[:_MAX_OUTPUT] + "\n..."
