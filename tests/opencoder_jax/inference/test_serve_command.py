"""`opencoder serve` as a process: curl and raw sockets, SIGTERM, Ctrl-C, bad arguments."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.opencoder_jax.inference.serving import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), max_seq_len=2048)


@contextlib.contextmanager
def serving(run, *arguments, **variables):
    """The process and its address."""
    command = [
        sys.executable,
        "-m",
        "opencoder_jax",
        "serve",
        f"--checkpoint={run}",
        "--port=0",
        "--slots=2",
        *arguments,
    ]
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | variables
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, re.search(r"http://[^/]+", line)[0]
    finally:
        process.kill()
        process.wait()


def test_curl_and_a_drain_by_sigterm(run):
    """What runs is finished, what comes is not taken; exit code 0."""
    with serving(run) as (process, url):
        if shutil.which("curl"):
            body = '{"prompt": "x =", "max_tokens": 4, "temperature": 0}'
            command = ["curl", "-sS", f"{url}/v1/completions", "-H", "content-type: application/json", "-d", body]
            assert json.loads(subprocess.check_output(command))["usage"]["completion_tokens"] == 4
        answers = []
        long = {"prompt": "x =", "max_tokens": 1500, "temperature": 1, "ignore_eos": True}
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/completions", json=long, timeout=120))
        )
        thread.start()
        while "opencoder_running 1.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health", timeout=5)
        thread.join(120)
        assert answers[0].json()["usage"]["completion_tokens"] == 1500
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_ctrl_c_is_one_line(run):
    with serving(run) as (process, url):
        assert httpx.get(f"{url}/health").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read().count("\n") == 1


def test_a_key_from_the_environment(run):
    with serving(run, OPENCODER_API_KEY="s3cret") as (_, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer s3cret"}).status_code == 200


def test_raw_sockets(run):
    """Half a request, garbage, a client that reads nothing and goes: the next one is served."""
    with serving(run) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode()
        body = json.dumps({"prompt": "x", "max_tokens": 2000, "stream": True, "ignore_eos": True}).encode()
        whole = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        for data in (b"", b"\x00\xff garbage\r\n\r\n", head, whole[:-5], whole, head + b"Content-Length: 2\r\n\r\n{}"):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(data)
                if data is whole:
                    assert b"text/event-stream" in connection.recv(1000)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 400") and b'"param":"prompt"' in answer
        for _ in range(200):
            if "opencoder_running 0.0" in httpx.get(f"{url}/metrics").text:
                break
            time.sleep(0.05)
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 3}, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=/nowhere"], "/nowhere"),
        (["--slots=0"], "slots=0"),
        (["--port=70000"], "port=70000"),
        (["--context=99999"], "max_seq_len"),
        (["--mesh=tensor=64"], "mesh="),
        (["--mesh=context=1"], "mesh="),
        (["--host=256.1.1.1"], "256.1.1.1"),
    ],
)
def test_bad_arguments_are_one_line(run, capsys, arguments, message):
    from opencoder_jax.inference.server.__main__ import main

    assert main([f"--checkpoint={run}", "--port=0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_port_that_is_taken(run, capsys):
    from opencoder_jax.inference.server.__main__ import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main([f"--checkpoint={run}", f"--port={taken.getsockname()[1]}"]) == 2
    assert "in use" in capsys.readouterr().err
