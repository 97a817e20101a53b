"""The ledger answers for one file: the stage, rule and values that dropped it, or that it was kept."""

import pytest
from opencoder_data.pipeline.why import main, rows
from opencoder_data.refinecode.__main__ import main as refinecode


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    root = tmp_path_factory.mktemp("why")
    source = root / "source"
    (source / "deep").mkdir(parents=True)
    (source / "kept.py").write_text("def add(first, second):\n    total = first + second\n    return total\n" * 3)
    (source / "deep" / "empty.py").write_text("")
    (source / "deep" / "again.py").write_bytes((source / "kept.py").read_bytes())
    (source / "picture.py").write_bytes(bytes(range(256)))
    run = [f"--input={source}", f"--output={root / 'run'}", "--stages=ingest,preprocess,exact_dedup"]
    assert refinecode([*run, "--engine.progress=false"]) == 0
    return str(root / "run")


def ask(capsys, *arguments, code=0):
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_one_file_by_its_path_its_end_or_its_id(output, capsys):
    by_id = {r["path"]: r["doc_id"] for r in rows(output)}
    whole = ask(capsys, f"--run={output}", "source/deep/empty.py")
    assert whole.startswith(f"source/deep/empty.py [{by_id['deep/empty.py']}]: dropped by ingest: empty")
    assert ask(capsys, f"--run={output}", "empty.py") == whole == ask(capsys, f"--run={output}", by_id["deep/empty.py"])
    # The end of a path is whole names: `py.py` is not the end of `empty.py`.
    ask(capsys, f"--run={output}", "pty.py", code=2)


def test_patterns_and_rules_list_every_file_once(output, capsys):
    lines = ask(capsys, f"--run={output}", "*.py").splitlines()
    assert len(lines) == 4 == len(list(rows(output)))
    copies = [line for line in lines if "dropped by exact_dedup" in line]
    assert len(copies) == 1 and sum(line.endswith(": kept") for line in lines) == 1
    rule = copies[0].split("exact_dedup: ")[1].split(" ")[0]
    assert ask(capsys, f"--run={output}", f"--rule={rule}").splitlines() == copies
    assert ask(capsys, f"--run={output}", "*.py", "--limit=3").splitlines()[3:] == ["and 1 more (--limit=0 lists all)"]


def test_what_is_not_there(output, capsys, tmp_path):
    assert "did you mean source/kept.py?" in ask(capsys, f"--run={output}", "source/kepd.py", code=2)
    assert "did you mean empty?" in ask(capsys, f"--run={output}", "--rule=empt", code=2)
    assert "give a path" in ask(capsys, f"--run={output}", code=2)
    assert "run.json is missing" in ask(capsys, f"--run={tmp_path}", "a.py", code=2)
