"""What a file says of its own language: the interpreter in its first line, mode lines of Emacs and Vim."""

import re

# Editors look for mode lines in the first and last lines; Emacs looks for local variables in the last page.
_LINES = 5
_LAST_PAGE = 3_000
_EMACS = re.compile(r"-\*-[ \t]*(.*?)[ \t]*-\*-")
_EMACS_MODE = re.compile(r"(?:^|[ \t;])mode[ \t]*:[ \t]*([^:;\s]+)", re.IGNORECASE)
_VIM = re.compile(r"(?:^|[ \t])(?:vi|[vV]im(?:[<=>]?\d+)?|(?<=[ \t])ex):[ \t]*(.*)$")
_VIM_SET = re.compile(r"set?[ \t]+([^:]*):")
_VIM_TYPE = re.compile(r"(?:filetype|ft|syntax|syn)[ \t]*=[ \t]*([\w.+#-]+)$")
_LOCAL = re.compile(r"^(.*)Local Variables:.*$", re.MULTILINE)

# Major modes and file types under names that are not aliases at Linguist.
MODES = {
    "cperl": "perl", "f90": "fortran", "makefile-gmake": "makefile", "makefile-automake": "makefile", "makefile-bsdmake": "makefile",
    "gnumakefile": "makefile", "shell-script": "shell", "nxml": "xml", "latex": "tex", "plain-tex": "tex", "plaintex": "tex",
    "context": "tex", "lisp-interaction": "emacs lisp", "elisp": "emacs lisp", "cs": "csharp", "vb": "visual basic .net",
    "dosbatch": "batchfile", "bat": "batchfile", "expect": "tcl", "js2": "javascript", "js3": "javascript", "typescriptreact": "tsx",
    "javascriptreact": "javascript", "help": "vim help file", "c++": "cpp", "c#": "csharp", "objc": "objective-c", "caml": "ocaml",
    "tuareg": "ocaml", "python3": "python", "python2": "python", "enh-ruby": "ruby", "web": "html", "mhtml": "html", "eruby": "html+erb",
    "rst": "restructuredtext", "sml": "standard ml", "bash": "shell", "sh": "shell", "zsh": "shell", "ksh": "shell", "csh": "tcsh",
    "lisp": "common lisp", "perl6": "raku", "vim": "vim script", "autoconf": "m4", "config": "m4", "asm": "assembly", "nasm": "assembly",
    "nroff": "roff", "nxhtml": "html", "cc": "cpp", "dcl": "digital command language", "conf-unix": "ini", "dosini": "ini",
}  # fmt: skip
# Modes that name no language.
_NONE = frozenset(
    {
        "text",
        "fundamental",
        "outline",
        "conf",
        "conf-mode",
        "view",
        "auto-fill",
        "flyspell",
        "read-only",
        "indented-text",
    }
)


def by_shebang(head: str, interpreters: dict[str, str]) -> str | None:
    """Language of the interpreter in the first line: ``#!/usr/bin/env -S python3.11 -u`` gives python.

    A script of the shell that hands itself over to another interpreter within its first lines (``exec tclsh "$0" "$@"``)
    is in that one's language.
    """
    first = re.split(r"\r\n?|\n", head, maxsplit=1)[0]
    words = first[2:].split() if first.startswith("#!") else []
    if not words:
        return None
    program = words[0].rsplit("/", 1)[-1]
    if program == "env":
        rest = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        program = rest[0].rsplit("/", 1)[-1] if rest else ""
    if program == "osascript" and "-l" in words:
        return "javascript" if words[-1].lower() == "javascript" else interpreters.get(program)
    if program in ("sh", "bash", "ksh", "dash"):
        handed = re.search(
            r"^\s*(?:\S+\s+)?exec\s+(?:\S*/)?([\w.+-]+)\b.*[\s\"'{]\$\{?0[}\"'\s]",
            "\n".join(head.splitlines()[1:8]),
            re.MULTILINE,
        )
        if handed:
            other = _interpreter(handed.group(1), interpreters)
            if other:
                return other
    return _interpreter(program, interpreters)


def _interpreter(program: str, interpreters: dict[str, str]) -> str | None:
    return interpreters.get(program) or interpreters.get(program.rstrip("0123456789.-"))


def by_mode_line(text: str, names: dict[str, str]) -> str | None:
    """Language of the first mode line that names one: Emacs (``-*- mode: c++ -*-``, local variables), Vim (``vim: ft=sh``)."""
    lines = text[:_LAST_PAGE].splitlines()[:_LINES]
    if any("UseVimball" in line for line in lines):
        return None  # its mode lines belong to the files inside
    lines += text[len("".join(lines)) :][-_LAST_PAGE:].splitlines()[-_LINES:]
    for line in lines:
        for stated in (_emacs(line), _vim(line)):
            found = _named(stated, names)
            if found:
                return found
    return _named(_local_variables(text[-_LAST_PAGE:]), names)


def _emacs(line: str) -> str | None:
    match = _EMACS.search(line)
    if match is None:
        return None
    body = match.group(1)
    if ":" not in body:
        return body.rstrip(";").strip() or None
    mode = _EMACS_MODE.search(body)
    return mode.group(1) if mode else None


def _vim(line: str) -> str | None:
    match = _VIM.search(line)
    if match is None:
        return None
    body = match.group(1)
    if re.match(r"set?[ \t]", body):
        inner = _VIM_SET.match(body)
        if inner is None:
            return None  # this form ends with a colon
        body = inner.group(1)
    options = re.findall(r"(?:\\.|[^\s:\\])+", body)
    for option in options:
        kind = _VIM_TYPE.match(option)
        if kind:
            return kind.group(1).split(".")[0]
    return None


def _local_variables(page: str) -> str | None:
    start = _LOCAL.search(page)
    if start is None:
        return None
    prefix = start.group(1)
    for line in page[start.end() :].splitlines()[1:]:
        if not line.startswith(prefix.rstrip()):
            return None
        key, _, value = line[len(prefix.rstrip()) :].strip().partition(":")
        if key.strip().lower() == "end":
            return None
        if key.strip().lower() == "mode":
            return value.split()[0] if value.split() else None
    return None


def _named(stated: str | None, names: dict[str, str]) -> str | None:
    if not stated:
        return None
    name = stated.lower().removesuffix("-mode").removesuffix("-ts")
    if name in _NONE:
        return None
    return MODES.get(name) or names.get(name)
