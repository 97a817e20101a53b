"""Rules, mode lines and fall-backs that name a file's language."""

import pytest
import regex
from opencoder_data.refinecode.language_rules import compiled, decide, parse_rule
from opencoder_data.refinecode.language_statements import by_mode_line, by_shebang
from opencoder_data.refinecode.languages import detect, stated, tables


def name(path, content):
    return detect(path, content).name


def test_a_rule_with_a_pattern_and_a_negative_pattern_needs_both():
    rule = parse_rule({"language": "a", "pattern": "x", "negative_pattern": ["y", "z"]}, {})
    assert [decide([rule], text) for text in ("x", "x y", "x z", "w", "y")] == ["a", None, None, None, None]


def test_every_key_of_a_rule_is_a_condition():
    rule = parse_rule(
        {"language": "a", "pattern": "p", "named_pattern": "n", "and": [{"pattern": "q", "negative_pattern": "r"}]},
        {"n": ["n1", "n2"]},
    )
    assert decide([rule], "p q n2") == "a"
    for text in ("q n1", "p n1", "p q", "p q n1 r"):
        assert decide([rule], text) is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"language": "a", "patern": "x"}, "patern"),
        ({"language": "a", "and": [{"pattern": "x", "not": "y"}]}, "'not'"),
        ({"language": "a", "named_pattern": "absent"}, "absent"),
        ({"language": "a", "pattern": []}, "empty"),
        ({"language": "a", "and": []}, "and"),
        ({"pattern": "x"}, "no language"),
    ],
)
def test_what_cannot_be_a_condition_is_an_error(raw, message):
    with pytest.raises(ValueError, match=message):
        parse_rule(raw, {})


def test_every_pattern_of_the_tables_compiles_and_no_rule_names_an_unknown_language():
    t = tables()
    for rules in t.rules.values():
        for rule in rules:
            for condition in rule.conditions:
                assert isinstance(compiled(condition.patterns), regex.Pattern)
    assert len(t.rules) > 130


def test_each_extension_of_several_languages_says_what_it_means_without_any_mark():
    """No such extension falls back to the alphabet's first language by accident."""
    t = tables()
    assert len(t.candidates) > 150
    missing = [e for e in t.candidates if e not in t.usual]
    assert missing == []


YAML = [
    ("a.yml", "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n", "yaml"),
    ("a.yaml", "services:\n  web:\n    image: nginx\n    ports: ['80:80']\n", "yaml"),
    ("a.yaml", "---\n- hosts: all\n\tkey: value\n", "yaml"),
    ("a.yaml", "openapi: 3.0.3\ninfo:\n  title: A\npaths: {}\n", "oasv3-yaml"),
    ("a.yml", "swagger: '2.0'\ninfo:\n  title: A\npaths: {}\n", "oasv2-yaml"),
    ("a.yaml", "World:\n\tInherits: ^BaseWorld\n\tMusicPlaylist:\n", "miniyaml"),
]


@pytest.mark.parametrize(("path", "content", "language"), YAML)
def test_yaml(path, content, language):
    assert name(path, content) == language


MARKS = [
    ("A.cls", "public with sharing class A {\n    public void run() { }\n}\n", "apex"),
    ("A.cls", "@isTest\nprivate class ATest {\n    static testMethod void t() { }\n}\n", "apex"),
    ("A.cls", "global interface A {\n    void run();\n}\n", "apex"),
    ("a.cls", "\\NeedsTeXFormat{LaTeX2e}\n\\ProvidesClass{a}\n\\LoadClass{article}\n", "tex"),
    ("a.cls", "% a class\n\\DeclareOption*{}\n\\newcommand{\\x}{1}\n", "tex"),
    ("a.cls", "USING Progress.Lang.*.\nCLASS a.B INHERITS c:\nEND CLASS.\n", "openedge abl"),
    ("a.inc", "<?php\n$x = 1;\n", "php"),
    ("a.inc", "#define X 1\nstatic int f(int a) { return a; }\n", "cpp"),
    ("a.inc", "SUMMARY = \"a\"\nSRC_URI = \"http://x\"\n", "bitbake"),
    ("a.inc", "; constants\nSIZE equ 10\nstart:\n  mov ax, SIZE\n", "assembly"),
    ("a.inc", "native bool:IsValid(id);\nforward OnLoad();\n", "pawn"),
    ("a.inc", "CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\n", "sql"),
    ("a.kts", "val x = listOf(1, 2)\nprintln(x)\n", "kotlin"),
    ("build.gradle.kts", "plugins { kotlin(\"jvm\") }\n", "gradle kotlin dsl"),
    ("a.desktop", "[Desktop Entry]\nName=A\nExec=a\n", "desktop"),
    ("a.sed", "s/a/b/\n/x/d\n", "sed"),
    ("a.spec", "Name: a\nVersion: 1\n%description\nA.\n", "rpm spec"),
    ("a.spec", "a = Analysis(['x.py'])\nexe = EXE(a)\n", "python"),
    ("a.frag", "#version 330\nout vec4 c;\nvoid main() { c = vec4(1.0); }\n", "glsl"),
    ("a.frag", "(function () {\n  var x = 1;\n})();\n", "javascript"),
    ("a.trigger", "trigger A on Account (before insert) {\n}\n", "apex"),
    ("a.trigger", "#!/bin/sh\nset -e\ncase \"$1\" in\nesac\n", "shell"),
    ("a.l", "%{\n#include <stdio.h>\n%}\n%%\n[0-9]+ { return 1; }\n%%\n", "lex"),
    ("a.g", "grammar A;\nr : 'x' ;\n", "antlr"),
    ("a.sch", "(define (f x) x)\n", "scheme"),
    ("a.sch", "<?xml version=\"1.0\"?>\n<schema/>\n", "xml"),
    ("a.pro", "TEMPLATE = app\nSOURCES += main.cpp\n", "qmake"),
    ("a.mo", "within A;\nmodel B\n  Real x;\nend B;\n", "modelica"),
    ("a.v", "module m;\n  wire a;\n  assign a = 1'b0;\nendmodule\n", "verilog"),
    ("a.v", "Definition x := 1.\n", "coq"),
    ("a.v", "module main\n\nfn main() {\n\tprintln('x')\n}\n", "v"),
    ("a.cgi", "use strict;\nmy $x = 1;\nprint \"Content-type: text/plain\\n\\n\";\n", "perl"),
    ("a.cgi", "#!/usr/bin/python\nprint('x')\n", "python"),
    ("main.m", "int main(int argc, char **argv) {\n    @autoreleasepool { return 0; }\n}\n", "objective-c"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "content", "language"), MARKS)
def test_marks_of_a_language_decide_its_extension(path, content, language):
    assert name(path, content) == language


@pytest.mark.parametrize(
    "path", ["a.cls", "a.inc", "a.l", "a.g", "a.sch", "a.spec", "a.frag", "a.cgi", "a.dsp", "a.w", "a.e", "a.mo", "a.x"]
)
def test_a_file_without_the_marks_of_its_extension_has_no_language(path):
    assert name(path, "lorem ipsum dolor\n") is None


MODE_LINES = [
    ("// -*- C++ -*-\n#include <x>\n", "cpp"),
    ("/* -*- mode: c; c-basic-offset: 4 -*- */\n", "c"),
    ("# -*-Perl-*-\n", "perl"),
    (";;; x -*- lexical-binding: t; mode: emacs-lisp; -*-\n", "emacs lisp"),
    ("# vim: set ft=ruby ts=2 :\n", "ruby"),
    ("x\n" * 90 + "# vim:ts=4:ft=python\n", "python"),
    ("/* vi: set filetype=javascript: */\n", "javascript"),
    ('" vim600: syntax=vim\n', "vim script"),
    ("x\n" * 30 + "# Local Variables:\n# fill-column: 80\n# mode: makefile\n# End:\n", "makefile"),
    ("-*- text -*-\n", None),
    ("// -*- foo-bar mode: c++ -------*-\n", "cpp"),
    ("# vim:titlestring=a\\ ft=perl ft=javascript\n", "javascript"),
    ("# -*- coding: utf-8 -*-\n", None),
    ("# vim: set ts=4 sw=4\n", None),
    ("lex: ft=perl\n", None),
    ("x\n" * 20 + "# -*- C -*-\n" + "x\n" * 20, None),
    ("x\n" * 7 + "# -*- C -*-\n" + "x\n" * 9, None),
    ("# vim: set ft=ruby\n", None),  # this form ends with a colon
]


@pytest.mark.parametrize(("content", "language"), MODE_LINES)
def test_mode_lines(content, language):
    assert by_mode_line(content, tables().mode_names) == language


@pytest.mark.parametrize(
    ("head", "language"),
    [
        ("#!/usr/bin/env -S python3.11 -u\n", "python"),
        ("#! /bin/sh\necho\n", "shell"),
        ('#!/bin/sh\n# the next line restarts with tclsh \\\nexec tclsh "$0" "$@"\n', "tcl"),
        ('#!/bin/sh\nexec python3 "$HOME/x.py"\n', "shell"),
        ("#!/usr/bin/env\n", None),
        ("#!/usr/bin/osascript -l JavaScript\n", "javascript"),
        ("#!\n", None),
        ("#!/usr/bin/perl6\r\nsay 1;\r\n", "raku"),
        ("#!/usr/bin/env node\rconsole.log(1)\r", "javascript"),
    ],
)
def test_interpreters(head, language):
    assert by_shebang(head, tables().interpreters) == language


def test_a_name_without_extension_is_what_the_file_says_of_itself():
    assert name("include/iostream", "// -*- C++ -*-\n//\n") == "cpp"
    assert name("bin/run", "#!/usr/bin/lua5.4\nprint(1)\n") == "lua"
    assert name("rules", "%:\n\tdh $@\n# vim: ft=make\n") == "makefile"
    assert name("NOTES", "lorem\n") is None
    # Said against an extension of one language: the extension holds.
    assert name("a.py", "# -*- mode: ruby -*-\n") == "python"


def test_a_mode_line_decides_among_an_extensions_languages_only():
    assert name("a.h", "/* -*- C++ -*- */\nint f(int);\n") == "cpp"
    assert name("a.h", "/* -*- ruby -*- */\nint f(int);\n") == "c"
    assert name("a.t", "# vim: ft=raku\nok 1;\n") == "raku"
    assert stated("# -*- C++ -*-\n#!/bin/sh\n") == "cpp"


def test_the_releases_maps_alone():
    assert detect("a.kts", "x", heuristics=False).name == "gradle kotlin dsl"
    assert detect("bun.lock", "{}", heuristics=False).name == "json"
    assert detect("iostream", "// -*- C++ -*-\n", heuristics=False).name is None
