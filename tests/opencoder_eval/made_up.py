"""A tiny benchmark directory and a model server of our own, so that tests need no published data."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f'from typing import List\n\n\ndef add_{i}(x: int) -> int:\n    """Adds {i}.\n    >>> add_{i}(1)\n    {1 + i}\n    """\n',
        "canonical_solution": f"    return x + {i}\n",
        "test": f"\n\ndef check(candidate):\n    assert candidate(1) == {1 + i}\n    assert candidate(-5) == {i - 5}\n",
        "entry_point": f"add_{i}",
    }
    for i in range(6)
]
MBPP = [
    {
        "task_id": i,
        "text": f"Write a function that multiplies by {i}.",
        "code": f"def times_{i}(x):\r\n  return x * {i}",
        "test_list": [f"assert times_{i}(2) == {2 * i}", f"assert times_{i}(3) == {3 * i}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for i in range(1, 16)
]
NUMPY_TEST = """import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False


def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"


inputs = [[2], [-1], [1000]]
results = [1.0, -0.5, 500.0]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion(half(*inp), exp, 0)
"""
MBPPPLUS = [
    {
        "task_id": 2,
        "code": "\ndef half(x):\n  return x / 2\n",
        "prompt": "Write a function to halve.",
        "test_imports": [],
        "test_list": ["assert half(2) == 1"],
        "test": NUMPY_TEST,
    }
]
MBPPPLUS_PROMPTS = [
    {
        "task_id": "Mbpp/2",
        "prompt": '"""\nWrite a function to halve.\nassert half(2) == 1\n"""\n',
        "entry_point": "half",
        "base_input": [[2]],
    }
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_data(root: Path) -> Path:
    """A data directory with HumanEval, HumanEval+, MBPP and MBPP+ in small."""
    write_rows(root / "humaneval/HumanEval.jsonl", HUMANEVAL)
    write_rows(root / "humanevalplus/HumanEvalPlus-OriginFmt.jsonl", HUMANEVAL)
    write_rows(root / "mbpp/mbpp.jsonl", MBPP)
    write_rows(root / "mbppplus/MbppPlus-OriginFmt.jsonl", MBPPPLUS)
    write_rows(root / "mbppplus/MbppPlus.jsonl", MBPPPLUS_PROMPTS)
    return root


class Endpoint:
    """What a test sees of the server: every request's path and body; `reply` decides the answer.

    reply: (path, body, number of the request) -> (status, JSON or text, headers).
    """

    def __init__(self, reply: Callable[[str, dict[str, Any], int], tuple[int, Any, dict[str, str]]]):
        self.reply, self.requests, self.url = reply, [], ""
        self.lock = threading.Lock()


@contextlib.contextmanager
def endpoint(reply: Callable[[str, dict[str, Any], int], tuple[int, Any, dict[str, str]]]) -> Iterator[Endpoint]:
    """A server on a free port for the block."""
    state = Endpoint(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do({})

        def do_POST(self) -> None:
            self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _do(self, body: dict[str, Any]) -> None:
            with state.lock:
                state.requests.append((self.path, body, dict(self.headers)))
                number = len(state.requests)
            status, value, headers = state.reply(self.path, body, number)
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for key, text in headers.items():
                self.send_header(key, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def oracle(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
    """A model that knows the canonical solutions of the made-up tasks; of HumanEval/3 it is wrong."""
    if path.endswith("/models"):
        return 200, {"object": "list", "data": [{"id": "oracle"}]}, {}
    asked = body.get("prompt") or body["messages"][-1]["content"]
    text = "I do not know."
    for row in HUMANEVAL:
        if f"def {row['entry_point']}(" in asked:
            text = row["canonical_solution"] if row["task_id"] != "HumanEval/3" else "    return x - 100\n"
            text = text + "\n\ndef more():\n    pass\n" if "prompt" in body else f"```python\n{row['prompt']}{text}```"
    last = asked.rsplit("task:", 1)[-1]
    for row in MBPP:
        if f"times_{row['task_id']}(" in last:
            text = row["code"].replace("\r", "") + "\n```\nDone.\n"
    if "half(" in asked:
        text = "def half(x):\n    return x / 2\n"
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    if "messages" in body:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
    else:
        choice = {"index": 0, "text": text, "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": usage}, {}
