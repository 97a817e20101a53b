"""The client against a made-up server: retries, rejections, likelihoods."""

from __future__ import annotations

import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from opencoder_eval.client import Client, EndpointError, Rejected, Sampling

sys.path.insert(0, str(Path(__file__).parent))
import made_up

OK: tuple[int, Any, dict[str, str]] = (200, {"choices": [{"text": "x", "finish_reason": "stop"}]}, {})


def _client(server: made_up.Endpoint, **options: Any) -> Client:
    return Client(server.url, **{"model": "m", "retries": 3, "pause": 0.01, "api_key": "", **options})


def test_what_fails_for_a_while_is_sent_again():
    replies = [(500, "oops", {}), (429, {"error": {"message": "slow"}}, {"Retry-After": "0"}), (503, "", {}), OK]
    with made_up.endpoint(lambda path, body, number: replies[number - 1]) as server, _client(server) as client:
        assert client.complete("p", Sampling()).text == "x"
        assert len(server.requests) == 4


def test_retry_after_is_waited_for():
    replies = [(503, "", {"Retry-After": "0.6"}), OK]
    with made_up.endpoint(lambda path, body, number: replies[number - 1]) as server, _client(server) as client:
        start = time.monotonic()
        client.complete("p", Sampling())
        assert time.monotonic() - start >= 0.6


def test_an_endpoint_that_stays_dead_is_an_error_with_its_words():
    with made_up.endpoint(lambda path, body, number: (500, "kaput", {})) as server, _client(server) as client:
        with pytest.raises(EndpointError, match="500 kaput; start the server"):
            client.complete("p", Sampling())
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [(401, EndpointError, "OPENAI_API_KEY"), (404, EndpointError, "--model"), (400, Rejected, "long")],
)
def test_what_will_never_pass_is_sent_once(status: int, kind: type[Exception], text: str):
    with (
        made_up.endpoint(lambda p, b, n: (status, {"error": {"message": "too long"}}, {})) as server,
        _client(server) as client,
    ):
        with pytest.raises(kind, match=text):
            client.complete("p", Sampling())
        assert len(server.requests) == 1


@pytest.mark.parametrize("reply", ["[]", '{"choices": []}', '{"choices": [7]}', "{}", "<html>"])
def test_answers_that_are_not_of_the_protocol(reply: str):
    with (
        made_up.endpoint(lambda p, b, n: (200, reply, {})) as server,
        _client(server) as client,
        pytest.raises(EndpointError, match="OpenAI-compatible"),
    ):
        client.complete("p", Sampling())


def test_null_content_is_an_empty_answer():
    reply = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "length"}], "usage": None}
    with made_up.endpoint(lambda p, b, n: (200, reply, {})) as server, _client(server) as client:
        answer = client.chat([{"role": "user", "content": "hi"}], Sampling())
        assert (answer.text, answer.finish_reason, answer.tokens) == ("", "length", 0)


def test_fields_of_a_request():
    with made_up.endpoint(lambda p, b, n: OK) as server, _client(server, api_key="k") as client:
        client.complete("p", Sampling(0.5, 0.9, 7, 3), stop=["a", "b"], suffix="s")
        path, body, headers = server.requests[0]
        assert path == "/v1/completions"
        assert headers["Authorization"] == "Bearer k"
        wanted = {"prompt": "p", "suffix": "s", "stop": ["a", "b"], "temperature": 0.5, "top_p": 0.9, "max_tokens": 7}
        assert body == {"model": "m", "seed": 3, **wanted}


def test_the_model_is_asked_for_once_and_must_be_the_only_one():
    listed = [{"data": [{"id": "one"}]}, {"data": [{"id": "one"}, {"id": "two"}]}, {"data": []}]
    with (
        made_up.endpoint(lambda p, b, n: (200, listed[0], {}) if not b else OK) as server,
        _client(server, model="") as client,
    ):
        client.complete("p", Sampling())
        client.complete("p", Sampling())
        assert [path for path, _, _ in server.requests].count("/v1/models") == 1
    for reply in listed[1:]:
        with (
            made_up.endpoint(lambda p, b, n, r=reply: (200, r, {})) as server,
            _client(server, model="") as client,
            pytest.raises(EndpointError, match="--model"),
        ):
            _ = client.model


def test_map_keeps_rejections_apart_and_runs_at_once():
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        if item == 3:
            raise Rejected("three")
        return item * 2

    client = Client("http://127.0.0.1:1")
    out = dict(client.map(work, range(12), concurrency=4))
    assert isinstance(out.pop(3), Rejected)
    assert out == {i: 2 * i for i in range(12) if i != 3}
    assert 2 <= most <= 4
    with pytest.raises(ZeroDivisionError):
        list(client.map(lambda x: 1 // x, [1, 0], concurrency=2))


def _echo(tokens: list[str], values: list[float | None], offsets: bool = True) -> Any:
    starts = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    logprobs: dict[str, Any] = {"tokens": tokens, "token_logprobs": values, "top_logprobs": None}
    logprobs |= {"text_offset": starts} if offsets else {}
    return lambda p, b, n: (200, {"choices": [{"text": "".join(tokens), "logprobs": logprobs}]}, {})


@pytest.mark.parametrize("offsets", [True, False])
def test_a_likelihood_counts_the_tokens_that_reach_into_the_text(offsets: bool):
    # prompt "abc", text "def": the token "cd" is across the border; the last is generated
    reply = _echo(["ab", "cd", "ef", "!"], [None, -1.0, -0.5, -9.0], offsets)
    with made_up.endpoint(reply) as server, _client(server) as client:
        found = client.likelihood("abc", "def")
        assert (found.nats, found.tokens) == (1.5, 2)
        body = server.requests[0][1]
        assert (body["prompt"], body["echo"], body["logprobs"]) == ("abcdef", True, 1)


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"choices": [{"text": "def"}]}, {}),
        (200, {"choices": [{"text": "x", "logprobs": {"tokens": ["x"], "token_logprobs": [-1.0]}}]}, {}),
        (200, {"choices": [{"text": "abcdef", "logprobs": {"tokens": ["abcdef"], "token_logprobs": [None]}}]}, {}),
        (200, {"choices": [{"text": "abcdef", "logprobs": {"tokens": ["abc", "def"], "token_logprobs": [-1.0]}}]}, {}),
    ],
)
def test_a_server_without_echo_is_an_error_never_a_score(reply: tuple[int, Any, dict[str, str]]):
    with (
        made_up.endpoint(lambda p, b, n: reply) as server,
        _client(server) as client,
        pytest.raises(EndpointError, match=r"echo|logprobs"),
    ):
        client.likelihood("abc", "def")


def test_a_likelihood_after_nothing_is_rejected():
    with pytest.raises(ValueError, match="not empty"):
        Client("http://127.0.0.1:1").likelihood("", "x")


def test_bits_per_byte_of_a_uniform_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model that gives each character 1/16: four bits a byte, whatever the tasks."""
    from opencoder_eval import benchmarks
    from opencoder_eval.likelihood import bits_per_byte

    monkeypatch.setenv("OPENCODER_BENCHMARKS", str(made_up.write_data(tmp_path / "data")))

    def uniform(path: str, body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if not body:
            return 200, {"data": [{"id": "uniform"}]}, {}
        text = body["prompt"] + "z"
        values = [None, *[-math.log(16)] * (len(text) - 1)]
        if "times_7(" in text:
            return 400, {"error": {"message": "context"}}, {}
        return 200, {"choices": [{"text": text, "logprobs": {"tokens": list(text), "token_logprobs": values}}]}, {}

    with made_up.endpoint(uniform) as server, _client(server, model="") as client:
        for _ in range(2):
            found = bits_per_byte(benchmarks.get("mbpp"), client, tmp_path / "out")
            assert found["bits_per_byte"] == pytest.approx(4.0)
            assert (found["tasks"], found["rejected"]) == (14, 1)
        assert len(server.requests) == 16, "what is there is not asked for again"
