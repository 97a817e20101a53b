"""Languages by name and by content, and notebooks as structured cells."""

import json
from collections import Counter

import pytest
from opencoder_data.refinecode.languages import detect, language_types
from opencoder_data.refinecode.notebook import NotebookError, structured_cells

AMBIGUOUS = [
    ("a.h", "#ifndef A_H\n#define A_H\nint f(int x);\n#endif\n", "c"),
    ("a.h", "#pragma once\n#include <vector>\nnamespace n {\nclass A {\n public:\n  std::vector<int> v;\n};\n}\n", "cpp"),
    ("a.h", "#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", "objective-c"),
    ("a.m", "function y = f(x)\n% doubles\ny = 2 * x;\nend\n", "matlab"),
    ("a.m", "#import \"A.h\"\n@implementation A\n- (void)f { }\n@end\n", "objective-c"),
    ("a.m", "(* ::Package:: *)\nBeginPackage[\"A`\"]\n(* a *)\nf[x_] := x^2\nEndPackage[]\n", "mathematica"),
    ("a.m", ":- module a.\n:- interface.\n:- import_module io.\n", "mercury"),
    ("a.pl", "#!/usr/bin/perl\nuse strict;\nuse warnings;\nmy $x = 1;\nprint $x;\n", "perl"),
    ("a.pl", ":- module(a, [f/1]).\nf(X) :- g(X), \\+ h(X).\n", "prolog"),
    ("a.ts", "export interface A { x: number }\nconst f = (a: A): number => a.x;\n", "typescript"),
    ("a.ts", "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!DOCTYPE TS>\n<TS version=\"2.1\"></TS>\n", "xml"),
    ("a.v", "module m(input clk, output reg q);\nalways @(posedge clk) q <= ~q;\nendmodule\n", "verilog"),
    ("a.v", "Require Import Arith.\nTheorem t : forall n : nat, n + 0 = n.\nProof.\ninduction n; auto.\nQed.\n", "coq"),
    ("a.r", "x <- c(1, 2)\nf <- function(a) a + 1\n", "r"),
    ("a.cs", "using System;\nnamespace N { class A { } }\n", "csharp"),
    ("a.cs", "\"smalltalk\"!\n!A methodsFor: 'x'!\n", "smalltalk"),
    ("a.rs", "use std::io;\nfn main() { println!(\"x\"); }\n", "rust"),
    ("a.sql", "CREATE TABLE t (a int);\n", "sql"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "content", "language"), AMBIGUOUS)
def test_content_settles_ambiguous_extensions(path, content, language):
    assert detect(path, content).name == language


@pytest.mark.parametrize(
    ("path", "content", "language"),
    [
        ("Makefile", "all:\n", "makefile"),
        ("CMakeLists.txt", "project(x)\n", "cmake"),
        ("Dockerfile", "FROM x\n", "dockerfile"),
        ("run", "#!/usr/bin/env -S python3.11 -u\nprint(1)\n", "python"),
        ("run", "#!/bin/bash\necho 1\n", "shell"),
        ("a.PY", "x = 1\n", "python"),
        ("a.unheardof", "x", None),
    ],
)
def test_names_and_interpreters(path, content, language):
    assert detect(path, content).name == language


def test_the_table_has_607_languages():
    assert len(language_types()) == 607
    assert Counter(language_types().values()) == {"code": 470, "data": 115, "text": 22}


def notebook(cells):
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": cells})


def test_notebook_to_structured_cells():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text <jupyter_code> no marker"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"output_type": "stream", "text": ["1\n"]}]},
        {"cell_type": "code", "source": "plot()", "outputs": [{"output_type": "display_data", "data": {"image/png": "AAAA"}}]},
        {"cell_type": "code", "source": "f()", "outputs": [{"output_type": "error", "ename": "E", "evalue": "bad"}]},
        {"cell_type": "code", "source": "  \n", "outputs": []},
    ]  # fmt: skip
    assert structured_cells(notebook(cells)) == (
        "<jupyter_start><jupyter_text># Title\ntext < jupyter_code> no marker"
        "<jupyter_code>print(1)<jupyter_output>1\n"
        "<jupyter_code>plot()<jupyter_output><empty_output>"
        "<jupyter_code>f()<jupyter_output>E: bad"
    )
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"], "outputs": []}]}]}
    assert structured_cells(json.dumps(old)) == "<jupyter_start><jupyter_code>x = 1<jupyter_output><empty_output>"


def test_long_results_are_cut():
    cell = {"cell_type": "code", "source": "x", "outputs": [{"text": "y" * 9_000}]}
    assert structured_cells(notebook([cell])).endswith("y" * 10 + "\n...")
    assert len(structured_cells(notebook([cell]))) < 2_100


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"cells": 3}', notebook([]), "[" * 100_000, '{"cells": [{"source": {"a": 1}}]}']
)
def test_broken_notebooks_are_named(content):
    with pytest.raises(NotebookError):
        structured_cells(content)
