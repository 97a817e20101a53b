"""Comments and strings told from code, per language."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.filter import scan
from opencoder_data.refinecode.filter.document_view import View, code_points, text_of
from opencoder_data.refinecode.filter.syntax import compat_syntax, default_syntax


def split(language: str, text: str) -> tuple[str, list[str]]:
    """(comments, strings) of `text`."""
    cp = code_points(text)
    mask = default_syntax(language).scan(cp)
    strings, at = [], 0
    while at < len(mask):
        end = at
        while end < len(mask) and mask[end] == scan.STRING:
            end += 1
        if end > at:
            strings.append(text[at:end])
        at = max(end, at + 1)
    return text_of(cp[mask == scan.COMMENT]), strings


CASES = [
    ("c", 'int a; /* x "y" */ char *s = "// no"; // yes\nint b;', '/* x "y" */// yes', ["// no"]),
    ("c", "char q = '\"'; char e = '\\''; // c", "// c", ['"', "\\'"]),
    ("c", 'char *s = "open\nint b; // c', "// c", ["open"]),
    ("cpp", 'auto s = R"x(a )" // b)x"; int n = 1\'000; // c', "// c", ['a )" // b']),
    ("csharp", 'var p = @"C:\\""x"; // c\nvar s = $"{a}";', "// c", ['C:\\""x', "{a}"]),
    ("go", "s := `raw \\` // c", "// c", ["raw \\"]),
    ("rust", "/* a /* b */ c */ let s = r#\"x \" // \"#; let l: &'a str; // d", "/* a /* b */ c */// d", ['x " // ']),
    ("java", '/** doc */ String s = "a\\"b"; // c', "/** doc */// c", ['a\\"b']),
    ("javascript", "var r = /[/*\"]/; var t = `a ${b + `c`} // d`; x = a / b; // e", "// e", ["a ", "c", " // d"]),
    ("javascript", "return /\\/\\* x/.test(y); /* z */", "/* z */", []),
    ("python", 'def f():\n    """doc"""\n    x = """text # no"""\n    y = "#"  # yes\n', '"""doc"""# yes', ["text # no", "#"]),
    ("python", "x = [\n    '''item''',\n]\n", "", ["item"]),
    ("shell", 'echo "${x#y} # no" # yes\nn=${#a}\n', "# yes", ["${x#y} # no"]),
    ("ruby", "=begin\nall\n=end\nputs 'a#b' # c\n", "=begin\nall\n=end# c", ["a#b"]),
    ("sql", "select 'it''s -- no' -- yes\n/* b */", "-- yes/* b */", ["it''s -- no"]),
    ("lua", "--[[ a\nb ]] x = 1 -- c", "--[[ a\nb ]]-- c", []),
    ("haskell", "{- a {- b -} -} x = 'c' -- d", "{- a {- b -} -}-- d", ["c"]),
    ("php", "<p>http://x # y</p><?php $a = 1; // b ?>text // c", "// b ", []),
    ("html", "<a><!-- x\ny --></a>", "<!-- x\ny -->", []),
    ("css", "a { /* b */ color: red } // c", "/* b */", []),
    ("batchfile", "rem one\necho rem two\nREM three\n", "rem oneREM three", []),
    ("ini", "; a\nkey = b ; c\n# d\n", "; a# d", []),
    ("pascal", "{ a } x := 'it''s'; (* b *) // c", "{ a }(* b *)// c", ["it''s"]),
    ("unknown language", "// a\nx = 1 // b\n# c\n/* d */", "// a# c/* d */", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "text", "comments", "strings"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)]
)
def test_comments_and_strings(language, text, comments, strings):
    assert split(language, text) == (comments, strings)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab \n\"'/*#\\{}()=;<>!-`$@rR?%[]", max_size=200))
def test_every_syntax_takes_every_text(text):
    cp = code_points(text)
    for language in (
        "c",
        "csharp",
        "cpp",
        "rust",
        "javascript",
        "python",
        "php",
        "shell",
        "sql",
        "haskell",
        "pascal",
        "lua",
    ):
        mask = default_syntax(language).scan(cp)
        assert len(mask) == len(text)
        assert set(mask.tolist()) <= {scan.CODE, scan.COMMENT, scan.STRING}


def test_compat_reproduces_the_line_rule_for_languages_without_lexer():
    text = "a = 1\n# one\nb = 2\n/* x\nc = 3\n"
    view = View(text, "no such lexer", "code", profile="compat")
    assert compat_syntax("no such lexer") is None
    assert view.comment == "# one\nb = 2\n/* x\n"  # after the first '#' all is comment, up to the block mark
    # The right profile ends a line comment with its line; how many line breaks it keeps is not a matter of this rule.
    assert View(text, "no such lexer", "code").comment.split() == ["#", "one", "/*", "x", "c", "=", "3"]


def test_compat_swallows_the_newline_of_line_comments_in_c():
    view = View("int a; // x\nint b;\n", "c", "code", profile="compat")
    assert view.code == "int a; int b;\n" and view.num_code_lines == 1
    assert View("int a; // x\nint b;\n", "c", "code").num_code_lines == 2
