"""`opencoder eval toolchains`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from opencoder_eval import __main__ as command
from opencoder_eval.sandbox import LANGUAGES, SandboxError

ROOT = Path(__file__).parents[2]


def test_toolchains_are_listed(sandbox, capsys):
    assert command.main(["toolchains", "Python", "Shell", "Markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("Python        installed  Python 3")
        and lines[-1] == "3 languages: 3 installed, 0 missing, 0 wrong"
    )


def test_toolchains_as_json(sandbox, capsys):
    assert command.main(["toolchains", "--json", "Python", "Visual Basic"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f["language"] for f in found] == ["Python", "Visual Basic"] and found[0]["status"] == "installed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["toolchains", "Pyton"], "did you mean Python?"),
        (["toolchains", "--smal"], "unrecognized arguments"),
        ([], "required"),
        (["no-such"], "invalid choice"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(capsys, arguments, said):
    try:
        code = command.main(arguments)
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and said in error and error.count("\n") == 1


def test_without_isolation_nothing_is_run(monkeypatch, capsys):
    def reject(**_):
        raise SandboxError("bubblewrap is not installed: do this")

    monkeypatch.setattr(command, "Sandbox", reject)
    assert command.main(["toolchains"]) == 2
    assert capsys.readouterr().err == "error: bubblewrap is not installed: do this\n"


def test_without_isolation_on_request_the_report_says_so(capsys):
    assert command.main(["toolchains", "--unsafe-no-sandbox", "Shell"]) == 0
    assert "WITHOUT isolation" in capsys.readouterr().out


def test_a_wrong_toolchain_is_exit_code_1(sandbox, monkeypatch, capsys):
    from dataclasses import replace

    monkeypatch.setitem(LANGUAGES, "Shell", replace(LANGUAGES["Shell"], run=("true",)))
    assert command.main(["toolchains", "Shell"]) == 1
    assert "Shell         wrong" in capsys.readouterr().out


def test_packages_of_what_is_missing(monkeypatch, capsys):
    from dataclasses import replace

    monkeypatch.setitem(LANGUAGES, "Lua", replace(LANGUAGES["Lua"], run=("no-such-lua",)))
    assert command.main(["toolchains", "--packages", "Lua", "Shell", "Julia"]) == 0
    assert capsys.readouterr().out == "lua5.4\n"


def test_the_script_needs_no_rights_where_nothing_is_missing(sandbox):
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [ROOT / "scripts/tools/toolchains.sh", "Python", "Shell"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
