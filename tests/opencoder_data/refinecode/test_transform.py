"""Copyright headers and personal data: what goes, what stays, and that a second pass changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.config import TransformConfig
from opencoder_data.refinecode.transform import transform_text
from opencoder_data.refinecode.transform.header import remove_header
from opencoder_data.refinecode.transform.personal import remove_personal

APACHE = """Copyright 2020 The Foo Authors. All rights reserved.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS."""


def comment(text, mark):
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in text.split("\n"))


@pytest.mark.parametrize(
    ("language", "before", "after"),
    [
        ("python", "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n" + comment(APACHE, "#") + '\n"""Doc. Copyright stays here."""\nx = 1\n',
         '#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n"""Doc. Copyright stays here."""\nx = 1\n'),
        ("go", "//go:build linux\n\n" + comment(APACHE, "//") + "\n// Package p does things.\npackage p\n",
         "//go:build linux\n\n// Package p does things.\npackage p\n"),
        ("c", "/*\n" + comment(APACHE, " *") + " */\n\n#include <stdio.h>\n", "#include <stdio.h>\n"),
        ("c", "/* Copyright (c) 1999-2004 Some Body */\nint x;\n", "int x;\n"),
        ("java", "/*\n * Reads frames from a socket.\n *\n * Copyright (C) 2011 Foo\n * All rights reserved.\n */\nclass A {}\n",
         "/*\n * Reads frames from a socket.\n */\nclass A {}\n"),
        ("html", "<!DOCTYPE html>\n<!-- Copyright 2015 Foo. See LICENSE for details. -->\n<p>Copyright 2015 stays</p>\n",
         "<!DOCTYPE html>\n<p>Copyright 2015 stays</p>\n"),
        ("sql", "-- (c) 2003 Foo\nSELECT 1;\n", "SELECT 1;\n"),
        ("javascript", "// Copyright 2017 X\n'use strict';\n", "'use strict';\n"),
        ("rust", "// SPDX-License-Identifier: MIT\n\n//! Crate docs.\nfn main() {}\n", "//! Crate docs.\nfn main() {}\n"),
        ("c", "int x; /* Copyright 2000 in code stays */\n", "int x; /* Copyright 2000 in code stays */\n"),
        ("c", "// Sorts by the copyright field of a record.\nint x;\n", "// Sorts by the copyright field of a record.\nint x;\n"),
        ("python", "x = 1\n# Copyright 2000 after code stays\n", "x = 1\n# Copyright 2000 after code stays\n"),
        ("c", "/* Copyright 2000 Foo */ int on_same_line;\n", "/* Copyright 2000 Foo */ int on_same_line;\n"),
        ("c", "/* Copyright 2000 never closed\nint x;\n", "/* Copyright 2000 never closed\nint x;\n"),
        ("json", '{"copyright": "Copyright 2000"}', '{"copyright": "Copyright 2000"}'),
        ("c", "#ifndef A_H\n#define A_H\n/* Copyright 2000 Foo\n *\n * This software is licensed as described in the file COPYING. */\n\nint x;\n#endif\n",
         "#ifndef A_H\n#define A_H\nint x;\n#endif\n"),
        ("c", "/*****\n *   _   _ ____  _\n *  Project ___| | | |  _ \\\\| |\n *  / __| | | | |_) | |\n *\n * Copyright (C) 2001 Foo\n *****/\nint x;\n",
         "int x;\n"),
        ("cpp", "#pragma once\n// Copyright 2000 Foo\n#define LIMIT 3\n", "#pragma once\n#define LIMIT 3\n"),
        ("c", "/*\r\n * Copyright 2000 Foo\r\n */\r\nint x;\r\n", "int x;\r\n"),
    ],
)  # fmt: skip
def test_header(language, before, after):
    assert remove_header(before, language) == after
    assert remove_header(after, language) == after


FOUND = [
    ("mail = 'jane.roe@acmeworks.de'", "mail = '<email>'"),
    ("# contact: bob_smith@cs.princeton.edu.", "# contact: <email>."),
    ("server 93.184.216.34 up", "server <ip_address> up"),
    ("host = \"2607:f8b0:4004:c07:0:0:0:66\"", "host = \"<ip_address>\""),
    ("key = AKIAQ3EGRJM7ZL5W2PTB;", "key = <token>;"),
    ("token: ghp_a8Kd0mQz7Rt2Yw5Xc9Vb4Nn1Ll6Jj3Hh0Gg8", "token: <token>"),
    ("password = 'gT7#kPz92!mQ'", "password = '<password>'"),
    ('"api_key": "9f8a7c6d5e4b3a2190f8e7d6c5b4a392"', '"api_key": "<key>"'),
    ("postgres://svc:p7Kd9xQ2vv@db.prod.net/x", "postgres://svc:<password>@db.prod.net/x"),
    (" * @author Jane Q. Roe", " * @author <name>"),
    ("# Author: Karl von Braun", "# Author: <name>"),
    ("__author__ = 'Jane Roe'", "__author__ = '<name>'"),
    ("-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEAx3Vt8Yz7\n" * 5 + "-----END RSA PRIVATE KEY-----",
     "-----BEGIN RSA PRIVATE KEY-----\n<key>\n-----END RSA PRIVATE KEY-----"),
]  # fmt: skip

KEPT = [
    "user@example.com",
    "git@github.com:owner/repo.git",
    "logo@2x.png",
    "y = x@w.to(device)",
    "z = a@b.T",
    "import pkg@1.2.3",
    "<a href='mailto:someone@domain.com'>",
    "version 12.0.145.33",
    "Version=\"10.220.33.7\"",
    "127.0.0.1 0.0.0.0 192.168.178.1 10.11.12.13 255.255.255.0 169.254.1.1",
    "8.8.8.8 1.1.1.1 198.51.100.77 203.0.113.5 192.0.2.44",
    "1.3.6.1.4.1.311.60",
    "section 3.1.22.9 of",
    "Chrome/91.0.77.124 Safari",
    "00:1b:44:11:3a:b7",
    "2001:db8::1 ::1 fe80::1",
    "std::vector a::b::c::d::e::f",
    "12:34:56:78:90",
    "password = getpass()",
    "password = 'password'",
    "password: 'your_password_here1'",
    "secret = os.environ['SECRET']",
    "api_key = \"${API_KEY_2}\"",
    "token_type = 'bearer2'",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "@author The Apache Software Foundation",
    "Author: the parser reads this tag",
    "author = models.ForeignKey(User)",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), FOUND)
def test_planted_personal_data_is_found(before, after):
    assert remove_personal(f"x\n{before}\ny\n")[0] == f"x\n{after}\ny\n"


@pytest.mark.parametrize("text", KEPT)
def test_look_alikes_stay(text):
    assert remove_personal(f"x\n{text}\ny\n") == (f"x\n{text}\ny\n", {})


def test_passwords_of_fixtures_stay():
    line = "password = 'gT7#kPz92!mQ'\n"
    assert remove_personal(line, "src/config.py")[0] != line
    assert remove_personal(line, "tests/test_login.py")[0] == line
    assert remove_personal(line, "pkg/fixtures/users.py")[0] == line


WORDS = [b for b, _ in FOUND] + KEPT + ["/* ", " */", "// ", "# ", "\n", "\r\n", "Copyright 2020 X", "All rights reserved.",
         "Licensed under the MIT license", "int x;", "#!/bin/sh", "*", " ", "\n\n", "é", "<!--", "-->", '"""', "--", "\t"]  # fmt: skip


@given(
    st.lists(st.sampled_from(WORDS), max_size=14),
    st.sampled_from(["c", "python", "html", "sql", "haskell", "pascal", "php", None]),
)
@settings(max_examples=300, deadline=None)
def test_idempotent(pieces, language):
    once, _ = transform_text("".join(pieces), language, "a/b", TransformConfig())
    twice, counts = transform_text(once, language, "a/b", TransformConfig())
    assert twice == once and counts == {}


@given(st.text(max_size=300), st.sampled_from(["c", "python", "html"]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_survived(text, language):
    transform_text(text.encode("utf-8", "ignore").decode(), language, "x", TransformConfig())
