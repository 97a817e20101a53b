"""A tiny model with random weights behind the real server, on a socket of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train
from oracle import golden

from opencoder_jax.checkpoint import Checkpoints, run_record
from opencoder_jax.config import replace
from opencoder_jax.hf import mapping as hf
from opencoder_jax.inference.load import load
from opencoder_jax.inference.service import Service

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra [serve]")


def make_run(directory: Path, max_seq_len: int = 256, *, whole_characters: bool = False) -> Path:
    """A run at step 1 with a tokenizer of 512 tokens.

    whole_characters: no greedy token is special or a byte: other libraries spell bytes that are not UTF-8 in other ways.
    """
    texts = [Path(__file__).read_text(), Path(golden.__file__).read_text()]
    run = directory / "tiny"
    train(texts, 512, run, num_threads=1, progress=False)
    tokenizer = Tokenizer(run)
    cfg = replace(golden.FAMILIES["gqa"], vocab_size=512, max_seq_len=max_seq_len)
    config = replace(golden.run_config(cfg), name="tiny")
    checkpoints = Checkpoints(run, config.checkpoint)
    tensors = golden.weights(cfg, 3)
    if whole_characters:
        for i in range(512):
            if (
                i in tokenizer.special_ids.values()
                or len(tokenizer.decode([i])) != 1
                or not tokenizer.decode([i]).isalpha()
            ):
                tensors["lm_head.weight"][i] = 0  # below the largest of the others
    weights = jax.device_put(hf.from_hf(cfg, tensors))
    checkpoints.save(1, {"params": weights}, run_record(config, 1, {"tokenizer": tokenizer.hash}))
    checkpoints.close()
    return run


@contextlib.contextmanager
def served(run: Path, *, slots: int = 4, max_waiting: int = 256, **options: Any) -> Iterator[tuple[str, Any]]:
    """The server's address and what it serves."""
    from opencoder_jax.inference.server.answers import Serving
    from opencoder_jax.inference.server.app import App

    model = load(run)
    service = Service(model.engine(slots=slots), max_waiting=max_waiting)
    serving = Serving(service, model.text, "tiny", int(time.time()))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    server = uvicorn.Server(uvicorn.Config(App(serving, **options).starlette(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", serving
    finally:
        server.should_exit = True
        thread.join(20)
        service.close(drain=False, timeout=20)
        sock.close()
