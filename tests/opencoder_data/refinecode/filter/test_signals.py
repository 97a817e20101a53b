"""Signals against plain-Python definitions, and properties that hold for any text."""

import math
import re
import string
import unicodedata
from collections import Counter

import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.filter import compute_signals, decide, group_of, load_thresholds, signals
from opencoder_data.refinecode.filter.document_view import View, count_lines_with

_ALPHABETS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=("Cs", "Cn", "Co")), max_size=300),
    st.text(alphabet="ab \n\"'/*#\\{}()=;<>!-`$", max_size=400),
    st.lists(
        st.sampled_from(["foo", "bar", "x", "\n", " ", ".", "==", "ΣΑΣ", "é", "…", "中文", "0xFF", "\x00", "\r\n"]),
        max_size=120,
    ).map("".join),
)
_LANGUAGES = st.sampled_from(
    [
        "python",
        "c",
        "cpp",
        "csharp",
        "go",
        "java",
        "javascript",
        "html",
        "shell",
        "sql",
        "rust",
        "php",
        "ruby",
        "perl",
        "yaml",
        "none",
    ]
)


def reference_words(text: str) -> list[str]:
    """Word list by the published steps, one line at a time."""
    control = {chr(c): "" for c in [*range(8), *range(0x0E, 0x1B), *range(0x1C, 0x20)]}
    control |= {"\u2009": " ", "\u200b": " ", "\u202c": ""}
    half = {chr(ord(c) + 0xFEE0): c for c in string.punctuation}
    half |= dict(zip("。、《》【】「」“”￥‘’", ".,\"\"[]''\"\"¥''", strict=True))
    out = []
    for line in re.findall(r"[^\n]*\n|[^\n]+$", text):
        line = "".join(control.get(c, c) for c in line)
        line = "".join(half.get(c, c) for c in line)
        line = "".join(" " if c in string.punctuation else c for c in line).lower().strip()
        line = unicodedata.normalize("NFKC", re.sub(r"\s+", " ", line))
        out += regex.findall(r"\w+|[^\w\s]+", line)
    return out


def reference_ngrams(words: list[str]) -> dict[str, float]:
    """Top and duplicate n-gram shares by counting tuples."""
    out = {}
    total = sum(map(len, words))
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n <= 4:
            gram, times = counts.most_common(1)[0] if counts else ((), 0)
            out[f"top_{n}grams"] = sum(map(len, gram)) * times / total if times > 1 else 0.0
        else:
            covered = {j for i, g in enumerate(grams) if counts[g] > 1 for j in range(i, i + n)}
            out[f"dupe_{n}grams"] = sum(len(words[j]) for j in covered) / total if total else 0.0
    return out


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_ALPHABETS)
def test_words_and_ngrams_equal_the_plain_definitions(text):
    got = compute_signals(text, language="none", doc_type="code", natural="en")
    words = reference_words(text)
    assert got["qsc_code_num_words"] == len(words)
    if words:
        assert got["qsc_code_mean_word_length"] == pytest.approx(sum(map(len, words)) / len(words), abs=1e-7)
        assert got["qsc_code_frac_words_unique"] == pytest.approx(len(set(words)) / len(words), abs=1e-7)
    else:
        assert got["qsc_code_mean_word_length"] is None
    for name, value in reference_ngrams(words).items():
        assert got[f"qsc_code_frac_chars_{name}"] == pytest.approx(value, abs=1e-7), name


@settings(max_examples=150, deadline=None)
@given(_ALPHABETS)
def test_character_and_line_signals_equal_the_plain_definitions(text):
    got = compute_signals(text, language="none", doc_type="code", natural="en")
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    visible = re.sub(r"\s+", "", text)
    assert got["qsc_code_num_lines"] == len(lines)
    assert got["qsc_code_num_chars"] == len(text)
    assert got["qsc_code_num_chars_line_max"] == max(map(len, lines), default=0)
    assert got["qsc_code_frac_chars_alphabet"] == pytest.approx(
        sum(c.isalpha() for c in visible) / len(visible) if visible else 0.0, abs=1e-7
    )
    assert got["qsc_code_frac_chars_digital"] == pytest.approx(
        sum(c.isdigit() for c in visible) / len(visible) if visible else 1.0, abs=1e-7
    )
    assert got["qsc_code_frac_chars_whitespace"] == pytest.approx(
        len(re.findall(r"\s", text)) / len(text) if text else 1.0, abs=1e-7
    )
    doc = compute_signals(text, language="none", doc_type="text", natural="en")
    stripped = [line.strip() for line in lines]
    counts = Counter(s for s in stripped if s)
    if counts:
        repeated = sum(v for v in counts.values() if v > 1)
        assert doc["qsc_doc_frac_lines_dupe_lines"] == pytest.approx(repeated / sum(counts.values()), abs=1e-7)
    words = reference_words(text)
    if words:
        share = [c / len(words) for c in Counter(words).values()]
        assert doc["qsc_doc_entropy_unigram"] == pytest.approx(-sum(p * math.log(p) for p in share), abs=1e-6)
    assert doc["qsc_doc_num_sentences"] == len(re.findall(r"\b[^.!?。！？؟]+[.!?。！？؟]*", text))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_ALPHABETS, _LANGUAGES, st.sampled_from(["default", "compat"]), st.sampled_from(["code", "data", "text"]))
def test_no_text_makes_a_signal_fail(text, language, profile, doc_type):
    got = compute_signals(text, language=language, doc_type=doc_type, file_name="a.x", profile=profile)
    assert got.errors == {}
    for name, value in got.items():
        assert value is None or (isinstance(value, float) and math.isfinite(value)), name
        if value is not None and "_frac_" in name and "func_ratio" not in name and "html" not in name:
            assert value >= 0, name
    rules = load_thresholds(profile)
    group = group_of(language, doc_type)
    assert decide(got, group, rules, "h") == decide(dict(got), group, rules, "h")


@settings(max_examples=30, deadline=None)
@given(st.lists(_ALPHABETS, min_size=2, max_size=5), _LANGUAGES)
def test_signals_do_not_depend_on_what_came_before(texts, language):
    alone = [dict(compute_signals(t, language=language, doc_type="code")) for t in texts]
    again = [dict(compute_signals(t, language=language, doc_type="code")) for t in reversed(texts)]
    assert alone == again[::-1]


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_all_published_signals_are_there(profile):
    published = [s for s in signals(profile).values() if s.published]
    assert len(published) == 118
    families = Counter(s.family for s in published)
    assert families == {
        "text": 32, "code": 33, "cpp": 8, "c": 8, "python": 8, "java": 8, "javascript": 9, "go": 5, "csharp": 4, "html": 3,
    }  # fmt: skip
    assert all(s.about for s in signals(profile).values())


def test_more_rules_than_the_paper_counts():
    assert len(signals("default")) > 130


def test_a_failing_signal_is_null_and_the_others_stay(monkeypatch):
    def broken(self):
        raise RuntimeError("no counts today")

    monkeypatch.setattr(View, "characters", property(broken))
    got = compute_signals("x = 1\n" * 20, language="python", doc_type="code")
    assert got["qsc_code_frac_chars_digital"] is None
    assert got.errors["qsc_code_frac_chars_digital"] == "RuntimeError: no counts today"
    assert got["qsc_code_num_words"] == 40
    assert got["qsc_codepython_cate_ast"] == 1.0
    keep, fired = decide(got, "code/python", load_thresholds(), "h")
    assert not keep and "qsc_code_frac_chars_digital" not in {r.signal for r in fired}


def test_unknown_types_have_no_signals():
    assert compute_signals("x", language="none", doc_type="unknown") == {}
    with pytest.raises(ValueError, match="profile 'fast' is unknown"):
        compute_signals("x", language="none", doc_type="code", profile="fast")


def test_count_lines_with():
    assert count_lines_with("a todo todo\nb\nTODO\nfixme todo", "todo", "fixme") == 2
    assert count_lines_with("", "x") == 0
    assert count_lines_with("x", "x") == 1


def test_encoded_data_is_found_only_where_it_is():
    blob = "QUJD" * 300
    assert compute_signals(f'x = "{blob}"\n', language="python", doc_type="code")["qsc_code_cate_encoded_data"] == 1.0
    plain = "\n".join(f"value_{i} = compute(first, second)" for i in range(200))
    assert compute_signals(plain, language="python", doc_type="code")["qsc_code_cate_encoded_data"] == 0.0
    short = "\n".join("zq" for _ in range(600))  # a column of short words: wrapped base64 to the released pattern
    assert (
        compute_signals(short, language="none", doc_type="code", profile="compat")["qsc_code_cate_encoded_data"] == 1.0
    )
    assert compute_signals(short, language="none", doc_type="code")["qsc_code_cate_encoded_data"] == 0.0
    bytes_ = ", ".join(f"0x{i % 256:02x}" for i in range(900))
    assert (
        compute_signals(bytes_.replace(", ", ","), language="c", doc_type="code")["qsc_code_cate_encoded_data"] == 1.0
    )


@pytest.mark.parametrize(
    ("language", "text", "signal", "value"),
    [
        # `int x, y;` is one line without logic; a prototype and an interface's method are not function definitions
        ("c", "unsigned x, y, z;\nint f(int a) {\n    x = a + g(a);\n    return x;\n}\n", "qsc_codec_score_lines_no_logic", 3 / 5),
        ("cpp", "uint32_t X, Y;\nuint32_t Z;\nX = h(Y);\ng(X);\n", "qsc_codecpp_score_lines_no_logic", 2 / 4),
        ("java", "interface A {\n  int f(int x);\n  default int g() { return f(1); }\n}\n", "qsc_codejava_frac_lines_func_ratio", 1 / 4),
        ("csharp", "interface A {\n  int F(int x);\n  int G() => F(1);\n}\n", "qsc_codecsharp_frac_lines_func_ratio", 1 / 4),
        ("javascript", "var a, b, c;\nf(a, b);\n", "qsc_codejavascript_score_lines_no_logic", 1 / 2),
        ("go", "package p\n\nvar A, B int\n", "qsc_codego_score_lines_no_logic", 1 / 2),
    ],
)  # fmt: skip
def test_definitions_are_counted_once(language, text, signal, value):
    got = compute_signals(text, language=language, doc_type="code")
    assert got[signal] == pytest.approx(value)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("c", "int x;\n"), ("cpp", "void f(int a);\n"), ("csharp", "class A { int b; }\n"), ("go", "package p\nfunc f(a int) {}\n"),
        ("java", "class A { void f(int a) {} }\n"), ("javascript", "a.b = 1;\n"), ("python", "for x in y: pass\n"),
    ],
)  # fmt: skip
def test_a_declaration_is_found_wherever_it_stands(language, text):
    """The search for a variable goes through the text in growing pieces."""
    comment = "# filler\n" if language == "python" else "// filler\n"
    name = f"qsc_code{language}_cate_var_zero"
    for filler in (0, 300, 2_000, 20_000):
        body = {"python": "print(1)\n", "go": "package p\n"}.get(language, ";\n") + comment * filler
        assert compute_signals(body, language=language, doc_type="code")[name] == 1.0
        assert compute_signals(comment * filler + text, language=language, doc_type="code")[name] == 0.0


def test_packed_lines_are_not_parsed():
    text = "var a = 1;" * 11_000
    got = compute_signals(text, language="javascript", doc_type="code")
    assert got.errors == {} and got["qsc_codejavascript_frac_lines_func_ratio"] is None
    assert got["qsc_codejavascript_cate_ast"] is None and got["qsc_code_num_chars_line_max"] == 110_000
    assert not decide(got, "code/javascript", load_thresholds(), "h")[0]
