"""`opencoder eval` from end to end on made-up tasks and a made-up model server, and its answers to bad input."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from opencoder_eval.commands import main

sys.path.insert(0, str(Path(__file__).parent))
import made_up


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = made_up.write_data(tmp_path / "data")
    monkeypatch.setenv("OPENCODER_BENCHMARKS", str(root))
    return root


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_generates_scores_and_reports(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    with made_up.endpoint(made_up.oracle) as server:
        names = "humaneval,humanevalplus,mbpp,mbpp-3shot,mbpp-evalplus,mbppplus"
        assert main(["run", f"--endpoint={server.url}", f"--benchmarks={names}", f"--out={out}"]) == 0
    said = capsys.readouterr().out
    assert "humaneval: pass@1 83.3; 6/6 tasks; canonical 6/6; 1 wrong answer" in said
    assert "mbpp: pass@1 100.0; 15/15 tasks" in said
    assert "mbpp-3shot: pass@1 100.0; 5/5 tasks" in said
    assert "mbppplus: pass@1 100.0; 1/1 tasks" in said
    samples = _rows(out / "humaneval/samples.jsonl")
    assert len(samples) == 6
    assert not (out / "humanevalplus/samples.jsonl").exists(), "benchmarks with equal prompts share their samples"
    assert {"task_id", "solution", "answer", "prompt", "finish_reason"} <= samples[0].keys()
    assert "def more" not in samples[0]["solution"], "the answer ends before the first stop string"
    page = (out / "report.html").read_text()
    assert "OpenCoder-8B-Base" in page
    assert "oracle (measured here)" in page
    assert "83.3" in (out / "report.md").read_text()


def test_chat_models_are_asked_by_messages(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with made_up.endpoint(made_up.oracle) as server:
        command = ["run", f"--endpoint={server.url}", "--benchmarks=humaneval", "--mode=chat", f"--out={tmp_path}"]
        assert main(command) == 0
        assert all(path == "/v1/chat/completions" for path, body, _ in server.requests if body)
    assert "pass@1 83.3" in capsys.readouterr().out


def test_the_same_command_asks_for_nothing_twice(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with made_up.endpoint(made_up.oracle) as server:
        command = ["generate", f"--endpoint={server.url}", "--benchmarks=humaneval", f"--out={tmp_path}"]
        assert main([*command, "--limit=2"]) == 0
        with (tmp_path / "humaneval/samples.jsonl").open("a") as file:
            file.write('{"task_id": "HumanEval/2", "sam')  # killed while it wrote
        assert main(command) == 0
        asked = [body["prompt"] for _, body, _ in server.requests if body]
    assert len(asked) == len(set(asked)) == 6
    assert "4 samples in" in capsys.readouterr().out
    assert main(["score", "--benchmarks=humaneval", f"--out={tmp_path}"]) == 0
    first = (tmp_path / "humaneval/results.jsonl").read_text()
    assert main(["score", "--benchmarks=humaneval", f"--out={tmp_path}"]) == 0
    assert (tmp_path / "humaneval/results.jsonl").read_text() == first, "verdicts are kept, with their times"


def test_several_samples_give_pass_at_k(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def every_second(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        status, reply, headers = made_up.oracle(path, body, number)
        if body and body["seed"] % 2:
            reply["choices"][0]["text"] = "    return None\n"
        return status, reply, headers

    with made_up.endpoint(every_second) as server:
        command = [
            "run",
            f"--endpoint={server.url}",
            "--benchmarks=humaneval",
            f"--out={tmp_path}",
            "--n=4",
            "--seed=5",
        ]
        assert main([*command, "--temperature=0.8", "--k=1,2"]) == 0
        seeds = {body["seed"] for _, body, _ in server.requests if body}
    assert len(seeds) == 4, "a sample's seed depends on its index alone"
    summary = json.loads((tmp_path / "humaneval/summary.json").read_text())
    odd = sum(s % 2 for s in seeds)
    assert summary["pass_at"]["1"] == pytest.approx(5 / 6 * (4 - odd) / 4)
    assert set(summary["pass_at"]) == {"1", "2"}


# --- bad input --------------------------------------------------------------------------------------------------------


def _one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    for part in parts:
        assert part in lines[0], said


def test_an_unknown_benchmark_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["score", "--benchmarks=humanevl"]) == 2
    _one_line(capsys, "'humanevl'", "did you mean humaneval?")


def test_missing_data_names_the_place_and_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OPENCODER_BENCHMARKS", str(tmp_path / "nowhere"))
    assert main(["run", "--benchmarks=mbpp", "--endpoint=http://127.0.0.1:1", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "mbpp.jsonl", "OPENCODER_BENCHMARKS", "github.com")


def test_corrupt_data_names_the_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (data / "mbpp/mbpp.jsonl").write_text('{"task_id": 1, "code": "x"\n')
    assert main(["selfcheck", "--benchmarks=mbpp", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "mbpp.jsonl:1:")
    (data / "humaneval/HumanEval.jsonl").write_text('{"task_id": "HumanEval/0"}\n')
    assert main(["selfcheck", "--benchmarks=humaneval", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "lacks prompt")


def test_a_dead_endpoint_is_one_line_and_loses_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are rejected
        dead = f"--endpoint=http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["generate", "--benchmarks=humaneval", dead, f"--out={tmp_path}", "--retries=1"]) == 2
    _one_line(capsys, "127.0.0.1", "start the server")

    def dies(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        return made_up.oracle(path, body, number) if number <= 4 else (500, {"error": {"message": "gone"}}, {})

    with made_up.endpoint(dies) as server:
        command = ["generate", "--benchmarks=humaneval", f"--out={tmp_path}", "--retries=0", "--concurrency=1"]
        assert main([*command, f"--endpoint={server.url}"]) == 2
        _one_line(capsys, "500 gone")
    assert len(_rows(tmp_path / "humaneval/samples.jsonl")) == 3
    with made_up.endpoint(made_up.oracle) as server:
        assert main([*command, f"--endpoint={server.url}"]) == 0
    assert len(_rows(tmp_path / "humaneval/samples.jsonl")) == 6


def test_an_endpoint_that_is_none_is_said_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["generate", "--benchmarks=humaneval", f"--out={tmp_path}"]
    assert main([*command, "--endpoint=localhost:8000"]) == 2
    _one_line(capsys, "http://HOST:PORT")
    with made_up.endpoint(lambda path, body, number: (200, "<html>hello</html>", {})) as server:
        assert main([*command, f"--endpoint={server.url}"]) == 2
    _one_line(capsys, "not JSON")


def test_a_prompt_that_the_server_rejects_is_a_counted_failure(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def short(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if "def add_2(" in body.get("prompt", ""):
            return 400, {"error": {"message": "the prompt is longer than the context"}}, {}
        return made_up.oracle(path, body, number)

    with made_up.endpoint(short) as server:
        assert main(["run", f"--endpoint={server.url}", "--benchmarks=humaneval", f"--out={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "1 rejected by the server" in said
    assert "pass@1 66.7" in said
    assert "longer than the context" in (tmp_path / "report.html").read_text()
    with made_up.endpoint(lambda path, body, number: (400, {"error": {"message": "bad"}}, {})) as server:
        command = ["generate", f"--endpoint={server.url}", "--benchmarks=mbpp", "--model=m", f"--out={tmp_path}"]
        assert main(command) == 2
    _one_line(capsys, "rejects every request", "bad")


def test_samples_of_another_benchmark_are_said_to_be(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "samples.jsonl"
    made_up.write_rows(path, [{"task_id": "Mbpp/3", "solution": "x = 1", "benchmark": "mbpp"}])
    assert main(["score", "--benchmarks=humaneval", f"--samples={path}", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "samples of mbpp, not of humaneval")
    made_up.write_rows(path, [{"task_id": "Mbpp/3", "solution": "x = 1"}])
    assert main(["score", "--benchmarks=humaneval", f"--samples={path}", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "not of humaneval", "Mbpp/3")
    for text, part in (
        ("{", "samples.jsonl:1:"),
        ("[]", "no task_id"),
        ('{"task_id": "HumanEval/1"}', "neither solution"),
    ):
        path.write_text(text + "\n")
        assert main(["score", "--benchmarks=humaneval", f"--samples={path}", f"--out={tmp_path}"]) == 2
        _one_line(capsys, part)
    assert main(["score", "--benchmarks=humaneval", f"--samples={tmp_path}/none", f"--out={tmp_path}"]) == 2
    _one_line(capsys, "no such file of samples")


def test_missing_samples_fail(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = made_up.HUMANEVAL
    path = tmp_path / "some.jsonl"
    made_up.write_rows(path, [{"task_id": r["task_id"], "completion": r["canonical_solution"]} for r in rows[:4]])
    assert main(["score", "--benchmarks=humaneval", f"--samples={path}", f"--out={tmp_path}"]) == 0
    assert "pass@1 66.7; 6/6 tasks; canonical 6/6; 2 missing" in capsys.readouterr().out
    assert "2 of 6 samples are missing" in (tmp_path / "report.md").read_text()


def test_hostile_solutions_are_counted_failures(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hostile = [
        "x = 1  #" + "a" * 10_000_000,
        "def add_1(x):\n    return '\0'",
        "while True:\n    print('x' * 100000)",
        "import os\nos._exit(0)",
        "def add_4(x):\n    return x + '<script>alert(1)</script>|`\ud800'",
    ]
    path = tmp_path / "hostile.jsonl"
    made_up.write_rows(path, [{"task_id": f"HumanEval/{i}", "solution": code} for i, code in enumerate(hostile)])
    assert main(["score", "--benchmarks=humaneval", f"--samples={path}", f"--out={tmp_path}"]) == 0
    kinds = {r["task_id"]: r["kind"] for r in _rows(tmp_path / "humaneval/results.jsonl") if r["sample"] == 0}
    assert kinds["HumanEval/0"] == "no code"
    assert kinds["HumanEval/1"] == "syntax"
    assert kinds["HumanEval/2"] in ("output", "timeout")
    assert kinds["HumanEval/3"] == "exception"
    assert kinds["HumanEval/4"] == "exception"
    assert kinds["HumanEval/5"] == "missing"
    assert "pass@1 0.0" in capsys.readouterr().out


def test_samples_of_other_settings_are_not_mixed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with made_up.endpoint(made_up.oracle) as server:
        command = ["generate", f"--endpoint={server.url}", "--benchmarks=humaneval", f"--out={tmp_path}"]
        assert main([*command, "--limit=2"]) == 0
        assert main([*command, "--max-tokens=7"]) == 2
        _one_line(capsys, "sampling.max_tokens (1024, now 7)", "another --out")
        assert main([*command, "--n=3"]) == 2
        _one_line(capsys, "--temperature")


@pytest.mark.parametrize(
    "option", ["--n=0", "--limit=-1", "--k=0", "--mode=telepathy", "--extraction=magic", "--bench=x"]
)
def test_bad_options_are_one_line(option: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["run", "--benchmarks=humaneval", option])
    assert end.value.code == 2
    _one_line(capsys)
