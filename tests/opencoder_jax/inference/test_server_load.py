"""The server under load: two hundred at once, a bounded queue, clients that go away, memory."""

import asyncio
import gc
import json
import socket
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from opencoder_jax.inference.engine import Engine
from tests.opencoder_jax.inference.serving import make_run, served


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), max_seq_len=1024)


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def ask_many(url, bodies):
    """Answers of requests sent at once."""

    async def ask():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            return await asyncio.gather(*(client.post(f"{url}/v1/completions", json=body) for body in bodies))

    return asyncio.run(ask())


def test_two_hundred_requests_at_once_get_what_each_gets_alone(run):
    bodies = [
        {"prompt": f"x_{i} =", "max_tokens": 1 + i % 23, "temperature": i % 2, "seed": i, "top_p": [1, 0.9][i % 4 == 1]}
        for i in range(200)
    ]
    with served(run, slots=8) as (url, serving):
        answers = ask_many(url, bodies)
        assert {a.status_code for a in answers} == {200}
        assert all(
            a.json()["usage"]["completion_tokens"] <= b["max_tokens"] for a, b in zip(answers, bodies, strict=True)
        )
        for i in (0, 17, 101, 199):
            alone = httpx.post(f"{url}/v1/completions", json=bodies[i], timeout=60).json()
            assert alone["choices"] == answers[i].json()["choices"]
        engine = serving.service.engine
        assert not engine.busy and engine.used <= set(engine.shapes.programs())


def test_a_full_queue_is_a_503_and_those_in_it_are_served(run):
    long = {"prompt": "x", "max_tokens": 700, "ignore_eos": True}
    with served(run, slots=1, max_waiting=3) as (url, serving):
        threads = [threading.Thread(target=ask_many, args=(url, [long]))]
        threads[0].start()
        until(lambda: serving.service.engine.active)
        answers = ask_many(url, [{"prompt": "x", "max_tokens": 2}] * 40)
        threads[0].join()
        codes = [a.status_code for a in answers]
        assert set(codes) == {200, 503} and codes.count(200) >= 3
        rejected = next(a for a in answers if a.status_code == 503)
        assert int(rejected.headers["retry-after"]) >= 1
        assert "wait" in rejected.json()["error"]["message"]
        never = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "n": 9}, timeout=60)
        assert never.status_code == 400 and "at most 4" in never.json()["error"]["message"]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=5)  # retries as the header says
        assert client.completions.create(model="tiny", prompt="x", max_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(run, stream):
    body = {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "stream": stream, "n": 2}
    with served(run, slots=2) as (url, serving):
        engine = serving.service.engine
        data = json.dumps(body).encode()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
            client.sendall(head.encode() + data)
            until(lambda: len(engine.active) == 2)
        until(lambda: not engine.busy)
        assert serving.service.counters.reasons.get("cancelled") == 2
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 3}, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] == 3


def test_a_late_request_does_not_wait_for_a_batch(run):
    """A long answer runs; a short one that comes later is there long before it."""
    with served(run, slots=2) as (url, serving):
        ask_many(url, [{"prompt": "x", "max_tokens": 20}] * 2)  # compiles
        long = threading.Thread(target=ask_many, args=(url, [{"prompt": "x", "max_tokens": 1000, "ignore_eos": True}]))
        long.start()
        until(lambda: serving.service.engine.active)
        assert ask_many(url, [{"prompt": "y", "max_tokens": 3}])[0].status_code == 200
        assert long.is_alive() and serving.service.engine.active
        long.join()


def test_an_engine_that_fails_says_so_and_nobody_waits_forever(run, monkeypatch):
    with served(run, slots=2) as (url, serving):
        monkeypatch.setattr(Engine, "_decode", lambda self: (_ for _ in ()).throw(RuntimeError("out of memory")))
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 9}, timeout=60)
        assert answer.status_code == 500 and "out of memory" in answer.json()["error"]["message"]
        assert httpx.get(f"{url}/health").status_code == 503
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=60).status_code == 503
        assert not serving.service.alive


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_requests(run):
    body = {"prompt": "x = 1", "max_tokens": 4, "logprobs": 2, "stop": ["zzz"], "n": 2}
    with served(run, slots=16) as (url, serving):
        for _ in range(5):
            ask_many(url, [body] * 100)
        gc.collect()
        before = resident()
        for _ in range(15):
            ask_many(url, [body] * 100)
        gc.collect()
        assert resident() - before < 24 << 20
        assert not serving.service._handles and not serving.service.engine.busy
