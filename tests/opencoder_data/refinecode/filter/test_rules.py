"""The rule table, overrides, groups and decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opencoder_data.refinecode.filter import GROUPS, decide, describe_rules, group_of, load_thresholds
from opencoder_data.refinecode.filter.decide import draw
from opencoder_data.refinecode.filter.thresholds import parse_rule

ENTRIES = {
    "text/zh": (31, 26), "text/en": (31, 26), "code/others": (33, 31), "code/data": (33, 28), "code/shell": (33, 28),
    "code/sql": (33, 31), "code/python": (41, 39), "code/cpp": (41, 36), "code/c": (41, 36), "code/csharp": (37, 35),
    "code/go": (38, 35), "code/html": (36, 28), "code/java": (41, 35), "code/javascript": (42, 36),
}  # fmt: skip


def test_published_table_is_complete():
    rules = load_thresholds("compat")
    assert {g: (len(r), sum(x is not None for x in r.values())) for g, r in rules.items()} == ENTRIES
    assert sum(n for n, _ in ENTRIES.values()) == 511
    assert sum(n for _, n in ENTRIES.values()) == 450
    drawn = {(g, n) for g, r in rules.items() for n, x in r.items() if x and x.probability < 1}
    assert len(drawn) == 8
    assert {p.probability for r in rules.values() for p in r.values() if p} == {1.0, 0.8}


def test_known_values_of_the_table():
    rules = load_thresholds("compat")
    others = rules["code/others"]["qsc_code_num_chars_line_mean"]
    assert others.hit(4.9) and others.hit(100.1) and not others.hit(5) and not others.hit(100)
    assert rules["code/data"]["qsc_code_num_chars"].hit(5001)
    assert rules["code/python"]["qsc_codepython_cate_ast"].hit(0.0)
    assert not rules["code/python"]["qsc_codepython_cate_ast"].hit(1.0)
    assert rules["code/c"]["qsc_codec_cate_var_zero"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x >", "does not parse"),
        ("value > 3", "does not parse"),
        ("x > 1 or x < 2 and x == 3", "mixes"),
        ("x > 1 with probability 1.5", r"\(0, 1\]"),
        ("__import__('os')", "does not parse"),
        (0.5, "is not text"),
    ],
)
def test_a_threshold_that_does_not_parse_is_one_clear_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_thresholds("default", {"code/c": {"qsc_code_num_words": text}})
    assert "code/c/qsc_code_num_words" in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_are_one_clear_line():
    with pytest.raises(ValueError, match="no such signal; did you mean 'qsc_code_num_words'"):
        load_thresholds("default", {"code/c": {"qsc_code_num_word": "x < 3"}})
    with pytest.raises(ValueError, match="unknown group 'code/cc'; did you mean"):
        load_thresholds("default", {"code/cc": {"qsc_code_num_words": "x < 3"}})
    with pytest.raises(ValueError, match="expected a table"):
        load_thresholds("default", {"code/c": "x < 3"})  # type: ignore[dict-item]


def test_overrides_change_add_and_switch_off():
    rules = load_thresholds(
        "default", {"code/c": {"qsc_code_num_words": "x < 3 or x > 7"}, "*": {"qsc_code_num_lines": None}}
    )
    rule = rules["code/c"]["qsc_code_num_words"]
    assert [rule.hit(v) for v in (2, 3, 7, 8)] == [True, False, False, True]
    assert all(r["qsc_code_num_lines"] is None for r in rules.values())
    both = parse_rule("g", "s", "x >= 3 and x <= 4.5e0 with probability 0.25")
    assert both.probability == 0.25 and [both.hit(v) for v in (2.9, 3, 4.5, 4.6)] == [False, True, True, False]


def test_groups():
    assert group_of("python", "code") == "code/python"
    assert group_of("rust", "code") == "code/others"
    assert group_of("json", "data") == "code/data"
    assert group_of("html", "data") == "code/html"
    assert group_of("markdown", "text", "zh") == "text/zh"
    assert group_of("markdown", "text", "fr") == "text/en"
    assert group_of("csv", "excluded") is None
    assert decide({}, None, load_thresholds(), "h") == (False, [])
    with pytest.raises(ValueError, match="unknown rule group"):
        decide({}, "code/x", load_thresholds(), "h")


def test_null_and_missing_signals_never_fire():
    rules = load_thresholds()
    for group in GROUPS:
        assert decide({}, group, rules, "h") == (True, [])
        assert decide(dict.fromkeys(rules[group]), group, rules, "h") == (True, [])


@given(st.text(), st.text())
def test_the_draw_is_a_function_of_content_and_rule(content_hash, name):
    assert 0 <= draw(content_hash, name) < 1
    assert draw(content_hash, name) == draw(content_hash, name)


def test_rules_with_a_probability_drop_that_share():
    rules = load_thresholds("default")
    values = {"qsc_codego_cate_testfile": 1.0}
    dropped = sum(not decide(values, "code/go", rules, f"hash{i}")[0] for i in range(2000))
    assert 1540 < dropped < 1660  # 0.8 of 2000, five standard deviations
    assert decide(values, "code/go", rules, "hash7") == decide(values, "code/go", rules, "hash7")


def test_description_covers_every_rule():
    for profile in ("default", "compat"):
        rows = describe_rules(profile)
        rules = load_thresholds(profile)
        assert len(rows) == sum(map(len, rules.values()))
        assert all(r["about"] for r in rows)
        own = [r for r in rows if not r["published"]]
        assert bool(own) == (profile == "default") and all(r["reason"] for r in own if r["condition"])
