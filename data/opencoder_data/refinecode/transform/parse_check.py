"""A parser's word on what is about to be cut: does it lie inside comments?

Comments that open a file end where they end whatever follows, so that only the text up to the last cut comment and the line after
it is parsed: a kilobyte or two. Languages without a grammar, or whose grammar misreads comments, have no second opinion.
"""

from functools import cache

from tree_sitter import Node, Parser
from tree_sitter_language_pack import get_parser

# Language -> grammar, where a grammar's comments were found to agree with the language (docs/experiments/2026-11-25-notices.md).
_SAME = (
    "ada agda bash c clojure cmake cpp csharp css cuda d dart elixir elm erlang fennel fish gdscript gleam "
    "glsl go graphql groovy haskell haxe hcl hlsl html java javascript julia kotlin lua luau make nim nix ocaml odin "
    "pascal perl php pony powershell proto puppet purescript python qmljs r racket ruby rust scala scheme scss solidity sql "
    "starlark swift tcl thrift toml tsx typescript v vhdl vim wgsl xml yaml zig"
)
GRAMMARS: dict[str, str] = {name: name for name in _SAME.split()} | {
    "shell": "bash",
    "zsh": "bash",
    "common lisp": "commonlisp",
    "emacs lisp": "elisp",
    "f#": "fsharp",
    "fortran free form": "fortran",
    "makefile": "make",
    "objective-c": "objc",
    "opencl": "c",
    "arduino": "cpp",
    "metal": "cpp",
    "protocol buffer": "proto",
    "svg": "xml",
    "xslt": "xml",
    "maven pom": "xml",
    "xml property list": "xml",
    "ant build system": "xml",
    "vim script": "vim",
    "dockerfile": "dockerfile",
    "qml": "qmljs",
    "jsx": "javascript",
    "systemverilog": "verilog",
    "verilog": "verilog",
    "gradle": "groovy",
    "cython": "python",
    "terraform": "hcl",
    "tex": "latex",
}
_NOT_COMMENTS = ("comment_start", "comment_end")


@cache
def _parser(language: str) -> Parser | None:
    name = GRAMMARS.get(language)
    return get_parser(name) if name else None  # pyright: ignore[reportArgumentType]


def is_in_comments(text: str, cuts: list[tuple[int, int]], end: int, language: str) -> bool:
    """Whether each line of each of the `cuts` (character spans, in order) is inside a comment, as far as is known.

    `end` is where the last comment that is cut ends.
    """
    parser = _parser(language)
    if parser is None:
        return True
    next_line = text.find("\n", end)
    head = text[: end + 200 if next_line < 0 else min(next_line + 1, end + 200)]
    if "\n" not in text:
        head = head.replace("\r", "\n")
    root = parser.parse(head.encode("utf-8", "surrogatepass")).root_node
    ascii_only = head.isascii()
    for start, stop in cuts:
        cursor = start
        while cursor < stop:
            line_end = head.find("\n", cursor, stop)
            line_end = stop if line_end < 0 else line_end
            line = head[cursor:line_end]
            words = line.strip()
            if words:
                left = cursor + len(line) - len(line.lstrip())
                right = left + len(words)
                if not ascii_only:
                    left, right = (len(head[:at].encode("utf-8", "surrogatepass")) for at in (left, right))
                if not _in_comment(root, left, right):
                    return False
            cursor = line_end + 1
    return True


def _in_comment(root: Node, left: int, right: int) -> bool:
    node = root.descendant_for_byte_range(left, right - 1)
    while node is not None and node.id != root.id:
        if "comment" in node.type.lower() or node.type in ("pod", "haddock", "shebang", "marginalia"):
            return True
        node = node.parent
    return False
