"""Notices: which comments go, what stays, and that what is left reads as before."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.transform import header
from opencoder_data.refinecode.transform.comment_syntax import comment_syntax
from opencoder_data.refinecode.transform.header import notice_spans, remove_header, without
from opencoder_data.refinecode.transform.parse_check import GRAMMARS, is_in_comments
from tree_sitter_language_pack import get_parser

C = "Copyright (c) 2020 Acme Corp"
R = "All rights reserved."
M = "Licensed under the MIT License"

# (language, notice, code): the notice goes, the code stays byte for byte.
GOES = [
    ("lua", f"--[[ {C}\n{R}\n]]\n", "local x = 1\n"),
    ("lua", f"--[==[\n{C}\n]] still inside\n{R}\n]==]\n", None),
    ("lua", f"--[===[ {C}\n{R} ]===]\n", "return 1\n"),
    ("lua", f"-- {C}\n-- {R}\n", "--[[ doc ]]\nreturn 1\n"),
    ("julia", f"#= {C}\n#= {M} =#\n{R} =#\n", "module A end\n"),
    ("julia", f"# {C}\n", "#= doc =#\nmodule A end\n"),
    ("cmake", f"#[==[ {C}\n{R} ]==]\n", "project(a)\n"),
    ("cmake", f"#[[{C}\n]]\n", "project(a)\n"),
    ("nim", f"##[ {C}\n{R} ]##\n", "echo 1\n"),
    ("nim", f"# {C}\n", "#[ doc ]#\necho 1\n"),
    ("coffeescript", f"###\n{C}\n{M}\n###\n", "x = 1\n"),
    ("coffeescript", f"#### {C} ####\n", "x = 1\n"),
    ("raku", f"#`( {C}\n{R} )\n", "say 1;\n"),
    ("raku", f"#`{{{{ {C}\n{R} }}}}\n", "say 1;\n"),
    ("raku", f"#`[ {C} ]\n", "say 1;\n"),
    ("ruby", f"=begin\n{C}\n{R}\n=end\n", "x = 1\n"),
    ("ruby", f"# {C}\n", "=begin\nUsage: a\n=end\nx = 1\n"),
    ("matlab", f"%{{\n{C}\n{R}\n%}}\n", "x = 1;\n"),
    ("matlab", f"% {C}\n", "function f\nend\n"),
    ("powershell", f"<#\n{C}\n{M}\n#>\n", "param($x)\n"),
    ("haskell", f"{{- {C}\n   {R} -}}\n", "module A where\n"),
    ("haskell", f"-- {C}\n-- {R}\n", "{-# LANGUAGE GADTs #-}\nmodule A where\n"),
    ("d", f"/+ {C}\n {R} +/\n", "int x;\n"),
    ("d", f"/++\n + {C}\n + {R}\n +/\n", "int x;\n"),
    ("ocaml", f"(* {C}\n   {R} *)\n", "let x = 1\n"),
    ("ocaml", f"(* {C} *)\n(* {R} *)\n", "let x = 1\n"),
    ("coq", f"(** {C} *)\n", "Definition x := 1.\n"),
    ("standard ml", f"(* {C} (* {R} *) *)\n", "val x = 1\n"),
    ("f#", f"(* {C} *)\n", "let x = 1\n"),
    ("pascal", f"{{ {C} }}\n{{ {R} }}\n", "program a;\n"),
    ("rust", f"/* {C}\n * {M}\n */\n", "fn f() {}\n"),
    ("swift", f"/* {C} /* {R} */ */\n", "let x = 1\n"),
    ("kotlin", f"/*\n * {C}\n */\n", "fun f() {}\n"),
    ("scala", f"/* {C} */\n", "object A\n"),
    ("scheme", f"#| {C}\n{R} |#\n", "(define x 1)\n"),
    ("racket", f";; {C}\n", "(define x 1)\n"),
    ("common lisp", f"#| {C}\n{R} |#\n", "(defun f ())\n"),
    ("lean", f"/-\n{C}. {R}\nReleased under Apache 2.0 license as described in the file LICENSE.\n-/\n", "def x := 1\n"),
    ("assembly", f"# {C}\n# {R}\n", '#include "a.h"\n#define X 1\n'),
    ("assembly", f"// {C}\n", '# 1 "a.S"\n.text\n'),
    ("assembly", f"; {C}\n; {R}\n", "section .text\n"),
    ("linker script", f"/* {C} */\n", "SECTIONS {}\n"),
    ("fortran", f"C     {C}\nC     {R}\n", "      PROGRAM X\n      END\n"),
    ("fortran", f"* {C}\n", "      CALL F\n"),
    ("fortran", f"c {C}\nc {R}\n", "c$omp parallel\n      END\n"),
    ("fortran free form", f"! {C}\n", "!$omp parallel\nend\n"),
    ("cobol", f"      * {C}\n", "       IDENTIFICATION DIVISION.\n"),
    ("batchfile", f"@REM {C}\n@REM {R}\n", "@echo off\n"),
    ("batchfile", f":: {C}\n", "set X=1\n"),
    ("visual basic .net", f"' {C}\n' {R}\n", "Module A\nEnd Module\n"),
    ("vim script", f'" {C}\n" {M}\n', "set nocp\n"),
    ("tex", f"% {C}\n% {R}\n", "\\documentclass{a}\n"),
    ("erlang", f"%% {C}\n%% {R}\n", "-module(a).\n"),
    ("prolog", f"/* {C} */\n", "a :- b.\n"),
    ("sql", f"/* {C}\n   {R} */\n", "SELECT 1;\n"),
    ("xml", f"<!--\n  {C}\n  {R}\n-->\n", "<a/>\n"),
    ("html", f"<!-- {C} -->\n", "<html></html>\n"),
    ("css", f"/*! {C} | {M} */\n", "a { b: c }\n"),
    ("go", f"/*\n{C}\n*/\n\n", "// Package a does b.\npackage a\n"),
    ("javascript", f"/**\n * @license\n * {C}\n * SPDX-License-Identifier: MIT\n */\n", "let x\n"),
    ("yaml", f"# {C}\n# {R}\n", "---\na: 1\n"),
    ("makefile", f"# {C}\n", "all:\n\ttrue\n"),
    ("m4", f"dnl {C}\ndnl {R}\n", "AC_INIT\n"),
    ("roff", f'.\\" {C}\n.\\" {R}\n', ".TH A 1\n"),
    ("c", f"// {C} \\\n   {R}\n", "int x;\n"),
    ("cpp", f"/* {C} */\n/* {R} */\n", "/* Walks the tree. */\nint x;\n"),
    ("python", f"# {C}\r# {R}\r", "import os\rx = 1\r"),
    ("c", f"/* {C}\r * {R}\r */\r", "int x;\rint y;\r"),
    ("c", f"/* {C}\r\r\n * {R}\r\r\n */\r\r\n", "int x;\r\r\n"),
    ("java", f"/* {C}\n * {R}\r\n */\n", "class A {}\r\n"),
    ("elixir", f"# {C}\n", "defmodule A do\nend\n"),
    ("ada", "-- You should have received a copy of the GNU General Public License\n-- along with this program.  If not, see\n"
     "-- <https://www.gnu.org/licenses/>.\n", "procedure A is begin null; end;\n"),
    ("c", f"/* This file is part of Acme.\n *\n * (c) Jane Roe\n *\n * {C}\n *\n * 1. Redistributions of source code must retain the above\n"
     " *    copyright notice.\n *\n * This file is part of Acme. */\n", "int x;\n"),
    ("ada", f"-- {C}\n", "procedure A is begin null; end;\n"),
]  # fmt: skip
GOES = [g for g in GOES if g[2] is not None]


@pytest.mark.parametrize(("language", "notice", "code"), GOES)
def test_a_notice_goes_and_the_code_stays(language, notice, code):
    assert remove_header(notice + code, language) == code
    assert remove_header(code, language) == code


# (language, before, after): what stays of a file's head; None: all of it.
STAYS = [
    ("lua", f"--[==[ {C}\n]] inside\n]==]\nreturn 1\n", "--[==[\n]] inside\n]==]\nreturn 1\n"),
    ("ocaml", f"(* {C}\n (* nested *)\n more\n*)\nlet x = 1\n", None),
    ("ocaml", f'(* {C} " *) " *)\nlet x = 1\n', None),
    ("haskell", f"{{- {C}\n   {{- Parses trees. -}}\n-}}\nmain = f\n", None),
    ("kotlin", f"/*\n * {C}\n * for src/**/*.kt and /* this */\n */\nfun f() {{}}\n", None),
    ("common lisp", f"#| {C}\n#| Sorts the numbers of a list. |# |#\n(defun f ())\n", None),
    ("rust", f"/* {C}\n /* never closed\n*/\nfn f() {{}}\n", None),
    ("sql", f"/* {C} /* dialects differ */\nSELECT 1; -- */\n", None),
    ("sql", f"/* {C}\n/* {R} */\n-- {R} */\nSELECT 1;\n", None),
    ("ocaml", f'(* {C} "\n*)\n" *)\nlet x = 1\n', None),
    ("c", f"/* {C}\nint x;\n", None),
    ("lua", f"--[[ {C}\nreturn 1\n", None),
    ("c", f"/* {C} */ int x;\n", None),
    ("lua", f"--[[ {C} ]] return 1\n", None),
    ("javascript", f"// {C}\u2028let x = 1\n", None),
    ("csharp", f"// {C}\x85int x;\n", None),
    ("python", f"# {C}\rimport os\nx = 1\n", None),
    ("c", f"// {C}\rint x;\nint y;\n", None),
    ("java", f"// {C} \\u000a int x;\nclass A {{}}\n", None),
    ("php", f"<?php // {C} ?><b>\n", None),
    ("php", f"// {C}\n<?php\n", None),
    ("makefile", f"# {C} \\\nall: x\nall:\n", None),
    ("tcl", f'# {C} \\\nexec tclsh "$0"\n', None),
    ("visual basic 6.0", f"' {C} _\nDim x\n", None),
    ("batchfile", f"rem {C} ^\necho hi\n", None),
    ("html", f"<!--[if IE]>\n<p>{C}</p>\n<![endif]-->\n<p>\n", None),
    ("html", f"<!-->{C}-->\n<p>\n", None),
    ("sql", f"/*!40101 {C} */;\nSELECT 1;\n", None),
    ("pascal", f"{{$I {C}}}\nprogram a;\n", None),
    ("haskell", f"--> {C}\nmain = f\n", None),
    ("php", f"<?php\n#[{C}]\nclass A {{}}\n", None),
    ("racket", f"#lang racket\n;; {C}\n(f)\n", "#lang racket\n(f)\n"),
    ("php", f"<?php /* {C} */\necho 1;\n", "<?php\necho 1;\n"),
    ("php", f"<?php declare(strict_types=1);\n/* {C} */\necho 1;\n", "<?php declare(strict_types=1);\necho 1;\n"),
    ("xml", f'<?xml version="1.0"?>\n<!-- {C} -->\n<a/>\n', '<?xml version="1.0"?>\n<a/>\n'),
    ("xml", f'<?xml version="1.0"?><!-- {C} -->\n<a/>\n', '<?xml version="1.0"?>\n<a/>\n'),
    ("yaml", f"%YAML 1.2\n---\n# {C}\na: 1\n", "%YAML 1.2\n---\na: 1\n"),
    ("haskell", f"{{-# LANGUAGE GADTs #-}}\n-- {C}\nmodule A where\n", "{-# LANGUAGE GADTs #-}\nmodule A where\n"),
    ("shell", f"\ufeff#!/bin/sh\n# {C}\nls\n", "\ufeff#!/bin/sh\nls\n"),
    ("emacs lisp", f";;; a.el --- B  -*- lexical-binding: t -*-\n\f\n;; {C}\n(f)\n",
     ";;; a.el --- B  -*- lexical-binding: t -*-\n\f\n(f)\n"),
    ("python", f"#!/usr/bin/python\n# {C}\n# {R}\n# coding: rot13\nvzcbeg bf\n", None),
    ("dockerfile", f"# {C}\n# escape=`\nFROM a\n", None),
    ("markdown", f"<!-- {C} -->\n---\ntitle: x\n---\n", None),
    ("fortran", f"*> \\brief B\n*  =====\n*  {C}\n      END\n", "*> \\brief B\n      END\n"),
    ("perl", f"#!/usr/bin/perl\n# {C}\n\n=head1 NAME\n", "#!/usr/bin/perl\n\n=head1 NAME\n"),
    ("go", f"// +build linux\n// {C}\n\npackage a\n", "// +build linux\n\npackage a\n"),
    ("csharp", f'// <copyright file="a.cs" company="Acme">\n// {C}\n// </copyright>\n// <auto-generated/>\nclass A {{}}\n',
     "// <auto-generated/>\nclass A {}\n"),
    # Sentences.
    ("lua", f"--[[\n  {C}\n\n  Usage: require 'a'\n]]\nreturn 1\n", "--[[\n  Usage: require 'a'\n]]\nreturn 1\n"),
    ("c", f"/* tree.c - walks the tree.\n   {C}\n   This file is free software. */\nint x;\n", "/* tree.c - walks the tree.\n   */\nint x;\n"),
    ("c", f"/*\n * {C}\n * Implements the red-black tree.\n */\nint x;\n", "/*\n * Implements the red-black tree.\n */\nint x;\n"),
    ("go", f"// {C}\n// Package a does b.\npackage a\n", "// Package a does b.\npackage a\n"),
    ("python", f"# {C}\n# {M}.\n#\n# Usage: a.py FILE\n\nimport a\n", "# Usage: a.py FILE\n\nimport a\n"),
    ("java", f"/**\n * Reads frames. {C}. {R}\n */\nclass A {{}}\n", "/**\n * Reads frames.\n */\nclass A {}\n"),
    ("c", f"/* {C}. {R} Walks the tree. */\nint x;\n", "/* Walks the tree. */\nint x;\n"),
    ("rust", f"// {C}\n//! Parses things.\nfn f() {{}}\n", "//! Parses things.\nfn f() {}\n"),
    ("rust", f"//! Parses things.\n//!\n//! {C}\nfn f() {{}}\n", "//! Parses things.\nfn f() {}\n"),
    ("python", f"# {C}\n#\n#  +---+\n#  | a |\n#  +---+\nimport a\n", "#  +---+\n#  | a |\n#  +---+\nimport a\n"),
    ("c", f"// {C}\n//                    Beta University Press\n// Walks trees.\nint x;\n", "// Walks trees.\nint x;\n"),
    ("python", f"# {C}\n#\n#  $(a) [-] (-) $$ @@ && ?? (+)\nimport a\n", "#  $(a) [-] (-) $$ @@ && ?? (+)\nimport a\n"),
    ("python", f"# {M}, see the file of that name for details\n# Output: standard output\nimport a\n", "# Output: standard output\nimport a\n"),
    ("python", "# Checks copyright headers.\nimport a\n", None),
    ("python", "# Checks that each file begins with an Apache License header.\nimport a\n", None),
    ("shell", "# This script adds a copyright notice and the MIT license to files.\nls\n", None),
    ("emacs lisp", f";; {C}\n;;; -*- lexical-binding: t -*-\n(f)\n", None),
    ("tex", f"% {C}\n%&latex\n\\a\n", None),
    ("markdown", f"    <!-- {C} -->\n\ntext\n", None),
    ("python", "# Lists the licence of each dependency.\nimport a\n", None),
    ("c", f"/* Sorts numbers. */\n/* {C} */\nint x;\n", "/* Sorts numbers. */\nint x;\n"),
    ("powershell", f"<#\n.SYNOPSIS\nDoes a.\n.NOTES\n{C}\n#>\nf\n", "<#\n.SYNOPSIS\nDoes a.\n.NOTES\n#>\nf\n"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "before", "after"), STAYS)
def test_what_stays(language, before, after):
    after = before if after is None else after
    assert remove_header(before, language) == after
    assert remove_header(after, language) == after


# Where only the parser knows: its word is tested below.
_PARSER_ONLY = {"haskell"}


@pytest.mark.parametrize(("language", "before", "after"), [s for s in STAYS if s[0] not in _PARSER_ONLY])
def test_what_stays_without_a_parser(language, before, after, monkeypatch):
    """The scanner alone is as careful: most languages have no grammar."""
    monkeypatch.setattr(header, "is_in_comments", lambda *_: True)
    assert remove_header(before, language) == (before if after is None else after)


# Lines that a program reads, in a run with a notice: before, behind and between its lines.
MACHINE = [
    ("shell", "#SBATCH --nodes=2"), ("shell", "#PBS -l walltime=1:00"), ("shell", "#$ -cwd"), ("shell", "#BSUB -n 4"),
    ("shell", "#COBALT -t 30"), ("shell", "#FLUX: -N 2"), ("shell", "#OAR -l nodes=2"), ("shell", "# @ job_type = serial"), ("shell", "#PJM -L node=1"),
    ("shell", "#compdef acme"), ("shell", "#autoload"), ("shell", "# chkconfig: 2345 20 80"), ("shell", "# shellcheck disable=SC2034"),
    ("shell", "# -*- mode: sh -*-"), ("shell", "# vim: set ft=zsh :"), ("shell", "# description: Acme daemon"),
    ("python", "# -*- coding: utf-8 -*-"), ("python", "# mypy: ignore-errors"), ("python", "# ruff: noqa"), ("python", "# pyright: strict"),
    ("python", "# pylint: disable=all"), ("python", "# flake8: noqa"), ("python", "# isort: skip_file"), ("python", "# type: ignore"),
    ("python", "# fmt: off"), ("python", "# cython: language_level=3"), ("python", "# distutils: language = c++"), ("python", "# nosec"),
    ("python", "# pragma: no cover"),
    ("ruby", "# frozen_string_literal: true"), ("ruby", "# encoding: utf-8"), ("ruby", "# warn_indent: true"), ("ruby", "# typed: strict"),
    ("ruby", "# shareable_constant_value: literal"), ("ruby", "# rubocop:disable all"),
    ("javascript", "// @flow"), ("javascript", "// @ts-check"), ("javascript", "// @jsx h"), ("javascript", "// eslint-disable no-console"),
    ("javascript", "// prettier-ignore"), ("javascript", "// istanbul ignore file"), ("javascript", "// @vitest-environment jsdom"),
    ("typescript", "// @ts-nocheck"), ("typescript", '/// <reference types="node" />'), ("typescript", "// deno-lint-ignore-file"),
    ("typescript", "// tslint:disable"), ("javascript", "// @generated"), ("javascript", "// @format"),
    ("go", "//go:build linux"), ("go", "//go:generate stringer"), ("go", "// +build linux"), ("go", "//nolint:all"),
    ("java", "//DEPS com.acme:tool:1.2"), ("java", "//JAVA 17+"), ("java", "///usr/bin/env jbang \"$0\" \"$@\" ; exit $?"), ("java", "// CHECKSTYLE:OFF"),
    ("java", "//SOURCES a.java"), ("kotlin", "// noinspection Foo"),
    ("cpp", "// clang-format off"), ("cpp", "// NOLINT"), ("cpp", "// NOLINTBEGIN(a)"), ("cpp", "// RUN: %clang %s"), ("c", "// IWYU pragma: private"),
    ("rust", "// rustfmt-skip"), ("swift", "// swift-tools-version:5.5"), ("swift", "// swiftlint:disable all"),
    ("powershell", "#requires -Version 5.1"), ("powershell", "#Requires -Modules A"), ("luau", "--!strict"), ("luau", "--!nocheck"), ("lua", "-- luacheck: ignore"),
    ("fortran free form", "!$ use omp_lib"), ("fortran free form", "!DIR$ IVDEP"), ("fortran free form", "!$acc routine"), ("fortran", "C$OMP PARALLEL"),
    ("fortran", "*$omp do"), ("fortran", "Cf2py intent(in) a"), ("fortran", "CDIR$ IVDEP"), ("fortran", "D     PRINT *, X"),
    ("erlang", "%%! -sname a"), ("erlang", "%% -*- erlang -*-"), ("tex", "% !TEX program = xelatex"), ("tex", "%!TEX root = a.tex"), ("tex", "% arara: pdflatex"),
    ("sql", "-- +goose Up"), ("sql", "-- migrate:up"), ("sql", "-- name: GetUser :one"), ("sql", "--liquibase formatted sql"), ("sql", "--changeset a:1"),
    ("emacs lisp", ";; Package-Requires: ((emacs \"26.1\"))"), ("emacs lisp", ";; Version: 1.2"), ("emacs lisp", ";;; Commentary:"), ("emacs lisp", ";; Keywords: lisp"),
    ("emacs lisp", ";;; a.el ends here"), ("emacs lisp", ";;; a.el --- does b"),
    ("dockerfile", "# hadolint global ignore=DL3008"), ("yaml", "# yaml-language-server: $schema=https://a.b/c"), ("yaml", "# yamllint disable"), ("yaml", "# cspell: disable"),
    ("makefile", "# checkmake: ignore"), ("terraform", "# tflint-ignore: a"), ("gherkin", "# language: fr"), ("haskell", "-- stack --resolver lts script"),
    ("c", "// @file tree.c"), ("cpp", "/// @brief Walks trees"), ("perl", "# line 200 \"a.pl\""), ("perl", "## no critic"),
    ("verilog", "// verilator lint_off"), ("batchfile", "REM usage: a.bat FILE"), ("vim script", "\" vim: ft=vim"), ("r", "# nolint start"), ("apacheconf", "# vim: ft=apache"),
    ("scala", "// scalafmt: off"), ("php", "// phpcs:disable"), ("php", "// @codingStandardsIgnoreFile"), ("elixir", "# credo:disable-for-this-file"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "line"), MACHINE)
def test_machine_read_lines_stay(language, line):
    mark = {"fortran": "C", "batchfile": "REM"}.get(language) or re.match(r"\W{1,2}(?=\W|\w|$)", line)[0].strip()
    mark = {"sh": "#", "/": "//", "-": "--", "#$": "#", "#:": "#", "!$": "!", "%!": "%", '"': '"'}.get(mark, mark)
    tag = "<?php\n" if language == "php" else ""
    code = {"python": "import a", "c": "int x;", "cpp": "int x;", "php": "f();"}.get(language, "code") + "\n"
    for lines in (
        [f"{mark} {C}", line],
        [line, f"{mark} {C}"],
        [f"{mark} {C}", line, f"{mark} {M}"],
        [f"{mark} {M}", line, f"{mark} {R}"],
    ):
        text = tag + "".join(x + "\n" for x in lines) + code
        left = remove_header(text, language)
        assert left == tag + line + "\n" + code, lines
        assert remove_header(left, language) == left


RANGES = [
    ("python", '# /// script\n# requires-python = ">=3.11"\n# license = "MIT License, Copyright 2020 Acme"\n# ///\n'),
    ("shell", "### BEGIN INIT INFO\n# Provides: a\n# Description: Copyright 2020 Acme\n### END INIT INFO\n"),
    ("javascript", "// ==UserScript==\n// @name a\n// @license MIT\n// ==/UserScript==\n"),
    ("haskell", "{- stack script\n  --resolver lts\n  Copyright 2020 Acme\n-}\n"),
    ("haskell", "{- cabal:\nbuild-depends: base\nlicense: MIT\n-}\n"),
    ("php", "<?php\n/*\nPlugin Name: A\nLicense: GPL2\n*/\n"),
    ("css", "/*\nTheme Name: A\nLicense: GNU General Public License v2\n*/\n"),
    ("powershell", "<#PSScriptInfo\n.VERSION 1.0\n.COPYRIGHT (c) 2020 Acme\n#>\n"),
]


@pytest.mark.parametrize(("language", "block"), RANGES)
def test_blocks_that_a_program_reads_stay_whole(language, block):
    assert remove_header(block + "code\n", language) == block + "code\n"


WORDS = [
    "Copyright 2020 Acme Corp", "All rights reserved.", "Licensed under the MIT license.", "Walks the tree.", "", "",
    "SPDX-License-Identifier: MIT", "@file a.c", "TODO", "(c) 2020 B", "=====", "Usage: a b", "see LICENSE for details",
    'and "quotes" ', "nested /* { (* {- #|", "closes */ } *) -} |# ]]", "back \\", "tab\tform\ffeed", "\u2028", "é", "#include <a.h>",
]  # fmt: skip
FORMS = {
    "c": ("// {}", "/* {} */", "/*\n * {}\n */"), "rust": ("// {}", "/* {} */", "//! {}"), "python": ("# {}", "#: {}"),
    "lua": ("-- {}", "--[[ {} ]]", "--[=[\n{}\n]=]"), "julia": ("# {}", "#= {} =#"), "haskell": ("-- {}", "{{- {} -}}"),
    "ocaml": ("(* {} *)", "(*\n {}\n*)"), "php": ("// {}", "# {}", "/* {} */"), "javascript": ("// {}", "/** {} */"),
    "scheme": ("; {}", "#| {} |#"), "html": ("<!-- {} -->",), "pascal": ("{{ {} }}", "(* {} *)", "// {}"), "cmake": ("# {}", "#[[ {} ]]"),
    "kotlin": ("// {}", "/* {} */"), "ruby": ("# {}", "=begin\n{}\n=end"), "makefile": ("# {}",), "d": ("// {}", "/+ {} +/"),
}  # fmt: skip
CODE = {
    "c": "int x;", "rust": "fn f() {}", "python": "import a", "lua": "return 1", "julia": "x = 1", "haskell": "f = 1",
    "ocaml": "let x = 1", "php": "f();", "javascript": "f()", "scheme": "(f)", "html": "<p>a</p>", "pascal": "program a; begin end.",
    "cmake": "f(a)", "kotlin": "fun f() {}", "ruby": "f", "makefile": "all: b", "d": "int x;",
}  # fmt: skip


@st.composite
def heads(draw):
    """(language, a file whose head is made of comments)."""
    language = draw(st.sampled_from(sorted(FORMS)))
    words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
    comment = st.tuples(st.sampled_from(FORMS[language]), words).map(lambda t: t[0].format(t[1]))
    comments = draw(st.lists(comment, min_size=1, max_size=6))
    ends = st.sampled_from(["\n", "\n", "\n\n", "\r\n", " \n", "\r"])
    text = ("<?php\n" if language == "php" else "") + "".join(c + draw(ends) for c in comments)
    return language, text + CODE[language] + "\n"


def leaves(text, language):
    """Tokens outside comments, or None when the file does not parse."""
    root = get_parser(GRAMMARS[language]).parse(text.encode()).root_node
    if root.has_error:
        return None
    out, todo = [], [root]
    while todo:
        node = todo.pop()
        if "comment" in node.type or node.type in ("marginalia", "haddock"):
            continue
        if not node.child_count:
            out.append((node.type, node.text.strip()))
        todo += reversed(node.children)
    return [leaf for leaf in out if leaf[1]]


@given(heads())
@settings(max_examples=300, deadline=None)
def test_spans_of_comments_go_and_the_rest_parses_as_before(case):
    language, text = case
    cuts, _ = notice_spans(text, comment_syntax(language))
    assert all(a < b for a, b in cuts) and all(b <= c for (_, b), (c, _) in pairwise(cuts))
    left = remove_header(text, language)
    assert remove_header(left, language) == left
    before = leaves(text, language)
    if before is not None:
        assert leaves(left, language) == before


@given(st.lists(st.sampled_from([*WORDS, "/*", "*/", "//", "#", "--[[", "]]", "\n", "\n", "\r", "{-", "-}", "<!--", "-->"]), max_size=20),
       st.sampled_from(sorted(FORMS)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_what_is_left_is_the_text_without_spans(pieces, language):
    text = " ".join(pieces)
    cuts, _ = notice_spans(text, comment_syntax(language))
    left = without(text, cuts)
    assert len(left) == len(text) - sum(b - a for a, b in cuts)
    kept = iter(text)
    assert all(any(c == k for k in kept) for c in left)


def test_a_head_that_takes_many_passes_stays_or_is_finished():
    text = "# Copyright 2020 A\n" * 30_000 + "x = 1\n"
    left = remove_header(text, "python")
    assert remove_header(left, "python") == left


def test_the_parser_has_the_last_word(monkeypatch):
    """A table that takes code for a comment does no harm where there is a grammar."""
    text = "// Copyright 2020 Acme\nx = 1\n"
    wrong = comment_syntax("javascript")
    assert wrong is not None and notice_spans(text, wrong)[0]
    monkeypatch.setattr(header, "comment_syntax", lambda language: wrong)
    assert remove_header(text, "javascript") == "x = 1\n"
    assert remove_header(text, "python") == text


def test_cuts_outside_comments_are_seen():
    text = "/* Copyright 2020 é */\nint x;\n"
    assert is_in_comments(text, [(0, 23)], 23, "c")
    assert not is_in_comments(text, [(0, 30)], 30, "c")
    assert not is_in_comments(text, [(23, 30)], 30, "c")


@pytest.mark.parametrize(
    ("language", "unit"),
    [("c", "/* Copyright 2020 A\n"), ("c", "// Copyright 2020 A \\\n"), ("haskell", "{- Copyright 2020 "), ("python", "# Copyright 2020 A\n# x\n"),
     ("lua", "--[[ Copyright 2020 A ]] "), ("html", "<!-- Copyright 2020 <!--\n"), ("c", "/* Copyright 2020 */\n"), ("php", "<?php "), ("python", "\r\n# Copyright 2020"),
     ("c", "\n\n\n \t"), ("ocaml", '(* Copyright 2020 "'), ("python", "# ///// script Copyright 2020\n"), ("xml", "<!DOCTYPE <?xml <!-- Copyright 2020 "), ("c", "#ifndef A\n#define B\n")],
)  # fmt: skip
def test_time_is_linear(language, unit):
    """Ten times the text takes no more than thirty times the time (of processor seconds; the least of two)."""
    import time

    def seconds(count):
        text = unit * count + "x"
        best = 9e9
        for _ in range(2):
            begin = time.process_time()
            remove_header(text, language)
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(3_000) < 30 * max(seconds(300), 2e-3)


CLAUSES = (
    "Redistributions of source code must retain the above copyright\nnotice, this list of conditions and the following disclaimer.",
    "Redistributions in binary form must reproduce the above copyright\nnotice, this list of conditions and the following disclaimer.",
    "The name of the author may not be used to endorse or promote products\nderived from this software without specific prior written permission.",
    "Altered versions must be plainly marked as such.",
)
MARKS = {
    "1.": "1. 2. 3. 4.", "1)": "1) 2) 3) 4)", "(1)": "(1) (2) (3) (4)", "[1]": "[1] [2] [3] [4]", "(a)": "(a) (b) (c) (d)",
    "a)": "a) b) c) d)", "A.": "A. B. C. D.", "i.": "i. ii. iii. iv.", "(i)": "(i) (ii) (iii) (iv)", "I.": "I. II. III. IV.",
    "1:": "1: 2: 3: 4:", "1.)": "1.) 2.) 3.) 4.)", "1.1": "1.1 1.2 1.3 1.4", "*": "* * * *", "-": "- - - -", "+": "+ + + +", "bullet": "\u2022 \u2022 \u2022 \u2022", "o": "o o o o",
}  # fmt: skip
WRITTEN = {
    "c": lambda lines: "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\nint x;\n",
    "python": lambda lines: "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\nimport os\n",
    "lua": lambda lines: "--[[\n" + "\n".join(lines) + "\n]]\nlocal x = 1\n",
}


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("own_row", [False, True])
@pytest.mark.parametrize("language", WRITTEN)
def test_the_mark_of_a_clause_goes_with_it(name, own_row, language):
    """`1.`, `(a)`, a bullet: nothing of the list is left, whether a description is before it, behind it or nowhere."""
    numbered = name not in ("*", "-", "+", "bullet", "o")
    description = "Walks the tree and prints each node to the given stream."
    for count in (2, 3, *([4] if numbered else [])):
        lines = [
            f"{C}. {R}",
            "",
            "Redistribution and use in source and binary forms are permitted provided",
            "that these conditions are met:",
            "",
        ]
        for mark, clause in zip(MARKS[name].split()[:count], CLAUSES, strict=False):
            first, *more = clause.split("\n")
            lines += [mark, f"   {first}"] if own_row else [f"{mark} {first}"]
            lines += [f"   {line}" for line in more]
        lines += ["", "THIS SOFTWARE IS PROVIDED BY THE AUTHOR ``AS IS'' AND WITHOUT ANY WARRANTY."]
        alone = WRITTEN[language]([description])
        assert remove_header(WRITTEN[language]([*lines, "", description]), language) == alone
        assert remove_header(WRITTEN[language]([description, "", *lines]), language) == alone
        assert description not in (left := remove_header(WRITTEN[language](lines), language)) and len(left) < 20


@pytest.mark.parametrize(
    ("language", "before", "after"),
    [
        # What numbers something else stays with it, and a number that does not go on begins another list.
        ("c", f"/*\n * {C}\n *\n * 1. Open the file.\n * 2. Read it.\n */\n", "/*\n * 1. Open the file.\n * 2. Read it.\n */\n"),
        ("c", f"/*\n * {C}\n * 1. {CLAUSES[0].splitlines()[0]}.\n *\n * Steps:\n * 1. one\n * 2. two\n */\n",
         "/*\n * Steps:\n * 1. one\n * 2. two\n */\n"),
        ("c", f"/*\n * {C}\n * 2. {CLAUSES[0].splitlines()[0]}.\n * 7. Close it.\n */\n", "/*\n * 7. Close it.\n */\n"),
        ("c", f"/*\n * {C}\n * 2. {CLAUSES[0].splitlines()[0]}.\n * (3) Close it.\n */\n", "/*\n * (3) Close it.\n */\n"),
        ("python", f"# Usage:\n# a. do this\n# b. do that\n#\n# {C}\n#\n\nx = 1\n", "# Usage:\n# a. do this\n# b. do that\n\nx = 1\n"),
        # Empty frames and empty rows go with what they framed.
        ("python", f"# -----\n# {C}\n# -----\n# Walks the tree and prints.\n# -----\n", "# -----\n# Walks the tree and prints.\n# -----\n"),
        ("c", f"/*******\n * {C}\n *******\n * Walks the tree.\n *******/\n", "/*******\n * Walks the tree.\n *******/\n"),
        ("c", f"/* Walks the tree.\n *\n * {C}\n *\n */\n", "/* Walks the tree.\n */\n"),
        ("c", f"//\n// Walks.\n//\n// {C}\n//\n", "//\n// Walks.\n"),
        ("java", f"/**\n * Walks.\n *\n * {C}\n *\n * @param x y\n */\n", "/**\n * Walks.\n *\n * @param x y\n */\n"),
        # What is beside a clause is none of it.
        ("c", f"/*\n * {C}\n * 2. {CLAUSES[0].splitlines()[0]}.\n * 3. Altered ones\n *    are marked.\n * Walks.\n */\n", "/*\n * Walks.\n */\n"),
        # A rule that frames what stays, stays, and so do empty rows at which nothing was cut.
        ("c", f"/*\n * {C}\n *\n * Walks.\n *\n */\n", "/*\n * Walks.\n *\n */\n"),
        ("python", f"# Walks.\n#\n# {C}\n# -----\n# Usage: a\n", "# Walks.\n#\n# -----\n# Usage: a\n"),
        ("python", f"# Walks.\n# -----\n# {C}\n#\n# Usage: a\n# -----\n", "# Walks.\n# -----\n# Usage: a\n# -----\n"),
    ],
)  # fmt: skip
def test_lists_and_frames_around_a_notice(language, before, after):
    code = {"c": "int x;\n", "python": "import a\n", "java": "class A {}\n"}[language]
    assert remove_header(before + code, language) == after + code
