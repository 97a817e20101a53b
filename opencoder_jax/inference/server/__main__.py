"""An OpenAI-compatible server: `opencoder serve --checkpoint=RUN`; its page is at http://127.0.0.1:8000/.

Ends with SIGTERM (or Ctrl-C) after the requests that run: new ones are rejected, `--drain_seconds` at most.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from opencoder_data import command

STOPPED = "stopped by Ctrl-C"


def main(arguments: list[str]) -> int:
    return command.run(lambda: _main(arguments), stopped=STOPPED)


def _parser() -> command.Parser:
    parser = command.Parser(prog="opencoder serve", description=__doc__)
    parser.add_argument("--checkpoint", required=True, 
                        help="run directory, RUN/checkpoints/STEP, Hugging Face directory or GGUF file")  # fmt: skip
    parser.add_argument("--tokenizer", help="tokenizer file or its directory (default: that of the checkpoint)")
    parser.add_argument("--name", help="of the model, for clients (default: the run's directory)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default %(default)s: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0: a free one, which is printed (default %(default)s)")
    parser.add_argument("--api_key", default=os.environ.get("OPENCODER_API_KEY", ""),
                        help="what clients must send; better in the variable OPENCODER_API_KEY")  # fmt: skip
    parser.add_argument("--slots", type=int, default=16, help="requests decoded at once (default %(default)s)")
    parser.add_argument(
        "--context", type=int, default=0, help="tokens of prompt and answer (default: model.max_seq_len)"
    )
    parser.add_argument("--max_waiting", type=int, default=256,
                        help="requests that may wait for a slot; others get 503 (default %(default)s)")  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the computation (default: the run's)")
    parser.add_argument("--int8_cache", action="store_true", help="keys and values in 8 bits")
    parser.add_argument("--mesh", default="", help="axes of the mesh, such as tensor=2,data=4 (default: one device)")
    parser.add_argument("--warm_up", action="store_true", help="compile all common programs before the first request")
    parser.add_argument(
        "--drain_seconds", type=int, default=60, help="for requests that run at the end (default %(default)s)"
    )
    return parser


def _main(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    for name, least in (("slots", 1), ("context", 0), ("max_waiting", 0), ("drain_seconds", 0), ("port", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"{name}={getattr(args, name)}: must be at least {least}")
    if args.port > 65_535:
        raise ValueError(f"port={args.port}: must be at most 65535")
    try:
        import uvicorn

        from opencoder_jax.inference.server.app import App
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: install the extra [serve] (uv sync --extra serve)") from None
    from opencoder_jax.inference.load import load, mesh_of
    from opencoder_jax.inference.server.answers import Serving
    from opencoder_jax.inference.service import Service

    sock = _listen(args.host, args.port)
    mesh = mesh_of(args.mesh)
    model = load(args.checkpoint, args.tokenizer, dtype=args.dtype)
    engine = model.engine(slots=args.slots, capacity=args.context, mesh=mesh, int8_cache=args.int8_cache)
    if args.warm_up:
        engine.warm_up(
            lambda done, all: print(f"compiled {done} of {all}", end="\r" if done < all else "\n", flush=True)
        )
    service = Service(engine, max_waiting=args.max_waiting)
    serving = Serving(service, model.text, args.name or model.name, int(time.time()))
    app = App(serving, api_key=args.api_key).starlette()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        app,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=args.drain_seconds,
        server_header=False,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal again when it has drained; that it drained is then the end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    host, port = sock.getsockname()[:2]
    print(
        f"serving {serving.name} at http://{f'[{host}]' if ':' in host else host}:{port}/ ({engine.slots} slots of {engine.capacity} tokens)",
        flush=True,
    )
    server.run(sockets=[sock])
    service.close(drain=False, timeout=args.drain_seconds)
    return 0


def _listen(host: str, port: int):
    """A listening socket. Raises: ValueError naming what is in the way."""
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        raise ValueError(f"{host}:{port}: {error.strerror or error}; give another --port or --host") from None
    return sock


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
