"""A server for a checkpoint as a child process: found when it is ready, told of when it is not, gone afterwards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest
from opencoder_eval.serving import served

SERVER = """
import http.server, sys, time
options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
if options["checkpoint"] == "missing":
    print("loading")
    sys.exit("error: missing: no such checkpoint")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() > ready else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
ready = time.monotonic() + 0.5
open(options["checkpoint"], "w").write(str(__import__("os").getpid()))
http.server.ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler).serve_forever()
"""


def test_a_child_serves_for_the_block(tmp_path: Path):
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    with served(str(tmp_path / "pid"), command=(sys.executable, str(script))) as endpoint:
        assert httpx.get(f"{endpoint}/health").status_code == 200
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_ends_early_is_an_error_with_its_last_line(tmp_path: Path):
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    child = served("missing", command=(sys.executable, str(script)))
    with pytest.raises(ValueError, match="ended with 1: error: missing: no such checkpoint"):
        child.__enter__()


def test_an_endpoint_needs_no_child():
    with served(None, "http://host:1") as endpoint:
        assert endpoint == "http://host:1"
