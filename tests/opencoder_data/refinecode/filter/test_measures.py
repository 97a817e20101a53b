"""The compiled passes against the patterns and plain definitions they mean."""

import re
import time
from collections import Counter

import numpy as np
import pytest
import re2
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.filter import compute_signals, needles, signals_code, structure
from opencoder_data.refinecode.filter import document_kernels as d
from opencoder_data.refinecode.filter import measures as m
from opencoder_data.refinecode.filter.document_view import View, _ascii_table, _word_table, class_table, code_points
from opencoder_data.refinecode.filter.kernels import CAPITAL, RE_WORD, SMALL, depth, operator_run
from opencoder_data.refinecode.filter.markup import visible
from opencoder_data.refinecode.filter.normalise import by_runs, by_table
from opencoder_data.refinecode.filter.runs import next_run
from opencoder_data.refinecode.filter.signals_html import visible_by_pattern, visible_chars
from opencoder_data.refinecode.filter.stop_words import STOP_WORDS
from opencoder_data.refinecode.filter.text_kernels import base64_runs, concatenates, hex_byte_runs
from opencoder_data.refinecode.filter.unpublished_kernels import commented_code, consonant_chars

_some = settings(max_examples=200, deadline=None)


def pieces(*parts: str, most: int = 60):
    """Texts put together from `parts`."""
    return st.lists(st.sampled_from(parts), max_size=most).map("".join)


_MARKUP = pieces(
    "<", ">", "</", "<a", "<A b='", '"', "'", "<!--", "-->", "<!", "<?x", "script", "<script", "</script", "</SCRIPT >",
    "<style>", "</style\n>", "<stylex>", "<template", "&amp;", "&", "x", " ", "\n", "\x00", "é", "/", "<1", "\u2003",
)  # fmt: skip


@_some
@given(_MARKUP)
def test_visible_text_is_what_the_pattern_leaves(text):
    view = View(text, "html", "code")
    assert visible(view.cp, view.table)[0] >= 0
    assert visible_chars(view) == visible_by_pattern(view)


@pytest.mark.parametrize("unit", ['<a "', "<a '\"", "<!a ", "<script>", "<style></style ", "<"])
def test_markup_that_never_ends_is_searched_in_linear_time(unit):
    for times in (1, 2, 7, 500):
        view = View(unit * times, "html", "code")
        assert visible_chars(view) == visible_by_pattern(view)
    start = time.process_time()
    assert visible_chars(View(unit * 40_000, "html", "code")) >= 0
    assert time.process_time() - start < 1


@_some
@given(pieces("do", "to", "TODO", "fix", "me", "FixMe", "\n", " ", "é", "your code here", "İ", "x"))
def test_lines_with_a_text_are_counted_once_per_group(text):
    table, shift, window = needles.needles(("todo", "fixme"), ("your code here", "x"))
    got = needles.lines_with(code_points(text), table, shift, window, 2)
    lines = text.lower().split("\n")
    assert got[0] == sum("todo" in line or "fixme" in line for line in lines)
    assert got[1] == sum("your code here" in line or "x" in line for line in lines)


@_some
@given(pieces("a", "bb", "aaaaaa", " ", "é", "aaa\n"), st.integers(0, 20))
def test_next_run_finds_the_first_long_run(text, start):
    member = np.zeros(128, np.bool_)
    member[[ord("a"), ord("b")]] = True
    found = re.compile("[ab]{5,}").search(text, start)
    expected = found.span() if found else (len(text), len(text))
    assert next_run(code_points(text), member, start, 5) == expected or start > len(text)


@_some
@given(
    st.one_of(
        st.text(max_size=60),
        pieces(
            "é", "ﬁ", "ß", "a", "\u0301", "Σ", "İ", "가", "\u1161", "Ａ", "…", "ªº", "K", "“x”", "\ufeff", "中", "A"
        ),
    )
)
def test_the_table_normalises_as_the_runs_do(text):
    out = by_table(code_points(text))
    if out is not None:
        plain = m.word_measures(code_points(by_runs(text)), _word_table(), False)
        table = m.word_measures(out, _word_table(), False)
        assert table[:2] == plain[:2] and table[2].tolist() == plain[2].tolist()


def test_the_classes_of_all_characters_are_those_of_str_and_re():
    table = class_table()
    assert (table[:128] == _ascii_table()).all()
    every = "".join(map(chr, range(0x110000)))
    assert np.flatnonzero(table & RE_WORD).tolist() == [x.start() for x in re.finditer(r"\w", every)]
    assert np.flatnonzero(table & CAPITAL).tolist() == [ord(c) for c in every if c.isupper()]
    assert np.flatnonzero(table & SMALL).tolist() == [
        ord(c) for c in every if c.islower() or (c.istitle() and not c.isupper())
    ]


@pytest.mark.parametrize("text", ["function_to_apply = (é\n", "return_x (; é", "if_ é (", "_ . é _ ! ?"])
def test_an_underscore_is_part_of_a_word_beside_other_alphabets_too(text):
    line = text.split("\n")[0]
    assert commented_code(code_points(text), class_table())[1] == (_COMMENTED.search(line) is not None)
    sentences = len(re.findall(r"\b[^.!?。！？؟]+", text))
    assert d.document_measures(code_points(text), class_table())[d.SENTENCES] == sentences


def test_the_table_serves_common_text_and_leaves_what_depends_on_neighbours():
    assert by_table(code_points("Ärger – «naïve» ‘q’ \ufeff Жук 中文")) is not None
    for text in ("e\u0301", "ΣΑΣ", "\u1100\u1161", "か\u3099", "İ", "ﬁ", "…", "𝐀"):
        assert by_table(code_points(text)) is None, text


@_some
@given(pieces("41", "0x4f", "0x", ",", " ", "\n", ", ", "\\x41", "\\", "z", "x41", "_", "é", "4", "12 ", "ab,"))
def test_no_run_of_hexadecimal_bytes_is_missed(text):
    if re2.compile(rb"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,|\b\s*)){8,}").search(text.encode()):
        assert hex_byte_runs(code_points(text))


@pytest.mark.parametrize("text", ["41," * 8, "41 " * 8, "0x41," * 8, "z\\x41" + "\\x41" * 8])
def test_runs_of_hexadecimal_bytes_are_found(text):
    assert hex_byte_runs(code_points(text))
    assert not hex_byte_runs(code_points(text[: len(text) // 2]))


@_some
@given(pieces('"a"', "'", "+", " ", "\n", "\t", "= ", "x", '"b" + "c"', most=15))
def test_no_concatenation_is_missed(text):
    pattern = re2.compile(rb"=\s*[\"'][^\n]+?[\"']\s*\+\s*[\"'][^\n]+?[\"'][^\n]*")
    found = sum(pattern.search(line.encode()) is not None for line in text.split("\n"))
    if found:
        assert concatenates(code_points(text))
    code = "x\n" + text
    got = compute_signals(code, language="plain", doc_type="code")["qsc_code_frac_lines_string_concat"]
    split = View(code, "plain", "code")
    lines = sum(pattern.search(line.encode()) is not None for line in split.code.split("\n"))
    assert got == (round(lines / split.num_code_lines, 8) if split.num_code_lines else None)


_COMMENTED = re.compile(r"[;{}]\s*$|^\W*(?:if|for|while|return|import|def|function|var|let|const)\b.*[(=:]")


@_some
@given(
    pieces(
        "if",
        "for",
        "function",
        " ",
        "// ",
        "(",
        "=",
        ":",
        ";",
        "{",
        "}",
        "\n",
        "x",
        "é",
        "\r",
        "\x1d",
        "import os",
        "_",
    )
)
def test_commented_code_is_what_the_pattern_finds(text):
    lines = [line for line in text.split("\n") if line.strip()]
    found = sum(_COMMENTED.search(line) is not None for line in lines) if re.search("[;({]", text) else 0
    assert commented_code(code_points(text), class_table()) == (len(lines), found)


@_some
@given(pieces("bcdfghj", "bcd", "A", "a", " ", "fghj", "é", "_", "\n", "zz"))
def test_consonants_are_counted_by_words(text):
    words = re.findall("[A-Za-z]+", text)
    expected = sum(len(w) for w in words if re.search("[b-df-hj-np-tv-xz]{7}", w))
    assert consonant_chars(code_points(text)) == expected


@_some
@given(pieces("A" * 39, "A", "B" * 25, "\n", " ", "=" * 40, "é", most=12))
def test_base64_runs_join_full_lines_only(text):
    lengths = [len(x) for x in re.findall(r"(?:[A-Za-z0-9+/=]{40,}\n)*[A-Za-z0-9+/=]*", text) if len(x) >= 64]
    assert base64_runs(code_points(text), False) == (sum(lengths), max(lengths, default=0))
    joined = [len(x) for x in re.findall(r"[A-Za-z0-9+/=\n]{64,}", text)]
    assert base64_runs(code_points(text), True) == (sum(joined), max(joined, default=0))


@_some
@given(pieces("(http://", "(https://a.b/c", ")", "x", " ", "\n", "<", ">", "(", "\u2003", "é", "<b>", "\r"))
def test_links_and_tags_are_what_the_patterns_find(text):
    expected = 0
    for pattern in (rb"\(https?://[^\s]+\)", rb"<[^\n]*?>"):
        expected += sum(len(x.group().decode()) for x in re2.compile(pattern).finditer(text.encode()))
    assert d.document_measures(code_points(text), class_table())[d.LINK_CHARS] == expected


@_some
@given(
    st.one_of(
        st.text(max_size=80),
        pieces("the", "NASA", " ", "A1", "…", "Ⓐ", "【", "】", "ǅ", "\x1d", "and", "The", ".", "中", "\n"),
    )
)
def test_raw_words_are_those_of_the_pattern(text):
    words = regex.findall(r"\w+|[^\w\s]+", text)
    got = d.raw_words(code_points(text), class_table(), d.stop_table("en")).tolist()
    expected = [len(words), sum(map(str.isupper, words)), sum(w in ("【", "】") for w in words)]
    assert got == [*expected, sum(w in STOP_WORDS["en"] for w in words)]


@_some
@given(pieces("a b", " \t", "\n", "• x", "•", "x", "\u2003", "◦y\n", "\r\n", "▪"))
def test_lines_of_documents(text):
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    stripped = [line.strip() for line in lines]
    counts = Counter(stripped)
    got = d.document_measures(code_points(text), class_table())
    assert got[d.FILLED_LINES] == sum(map(bool, stripped))
    assert got[d.REPEATED_LINES] == sum(counts[s] > 1 for s in stripped if s)
    assert got[d.REPEATED_CHARS] == sum(len(s) for s in stripped if counts[s] > 1)
    assert got[d.BULLETS] == sum(line.lstrip().startswith(("•", "◦", "▪")) for line in text.split("\n"))


@_some
@given(
    pieces(
        "auto",
        "-",
        "generated",
        " ",
        "by",
        "\n",
        "Do",
        "not",
        "EDIT",
        "@",
        "file is",
        "code was x",
        "é",
        "\u2003",
        "ſ",
        "\x1d",
        "autogen",
        "q",
    )
)
def test_marks_of_generated_code_are_those_of_the_pattern(text):
    fast, plain = signals_code._autogen()
    got = fast.search(signals_code._ascii_form(code_points(text), text.isascii())) is not None
    if not signals_code._FOLD_TO_ASCII.search(text):
        assert got == (plain.search(text) is not None)
    comment = "/*" + text + "*/"
    value = compute_signals(comment, language="c", doc_type="code")["qsc_code_cate_autogen"]
    assert value == float(plain.search(comment) is not None)


_SOURCES = {
    "c": 'int main(void) { printf("x"); puts("y"); return 0; }\nstatic int f(int a);\n',
    "cpp": 'int main() { std::cout << "x"; std::printf("y"); cout << 1; }\nusing std::cout;\n',
    "csharp": 'class A { void F() { Console.WriteLine("x"); System.Console.Write(1); } }\n',
    "go": 'package a\nfunc main() { fmt.Println("x"); log.Printf("y") }\n',
    "java": "class A { void f() { System.out.println(1); System.err.print(2); } }\n",
    "javascript": "console.log(1); console.info(2); console.error(3);\n",
    "python": "print(1)\nprint\nfoo.print(2)\n",
}


@pytest.mark.parametrize("language", structure.QUERIES)
def test_a_rare_pattern_is_left_out_only_where_it_cannot_match(language):
    full = structure.QUERIES[language] + "\n".join(pattern for _, pattern in structure.RARE[language])
    text = _SOURCES[language].encode()
    for source in (text, b"", text.replace(b"print", b"prin"), text.replace(b"main", b"mine")):
        chosen = structure.captures(language, structure.query_of(language, source), source)[1]
        every = structure.captures(language, full, source)[1]
        assert {k: len(v) for k, v in chosen.items()} == {k: len(v) for k, v in every.items()}
    assert len(structure.query_of(language, b"")) < len(structure.query_of(language, text))


@pytest.mark.parametrize(
    "text", ["(" * 501, ")" * 501, "[{(" * 200, "(" * 500, "a = " + "-" * 501, "a = '" + "-" * 600 + "'", "+-" * 400]
)
def test_few_brackets_and_operators_are_not_followed(text):
    view = View(text, "python", "code")
    deep = depth(view.cp) > 500 or operator_run(view.source_cp, view.mask) > 500
    assert structure.too_deep(view) == deep
