"""Routes: what a request passes before and after its endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from opencoder_jax.inference.server.answers import Call, Serving
from opencoder_jax.inference.server.chat import Chat
from opencoder_jax.inference.server.completions import Completion
from opencoder_jax.inference.server.errors import ApiError
from opencoder_jax.inference.server.metrics import Metrics
from opencoder_jax.inference.server.tokens import Tokens

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 32 << 20
CLIENT_CLOSED = 499  # nobody reads it; for the count
Handler = Callable[[Request], Awaitable[Response]]


class App:
    """The application's endpoints. Args: api_key: what clients must send as a bearer; "": nothing."""

    def __init__(self, serving: Serving, *, api_key: str = ""):
        self.serving, self._key = serving, api_key
        self.metrics = Metrics(serving.service)
        serving.first_token = self.metrics.first_token.observe
        self._tokens = Tokens(serving)

    def starlette(self) -> Starlette:
        def on(path: str, handler: Handler, method: str = "GET", *, open: bool = False) -> Route:
            return Route(path, self._guarded(path, handler, open), methods=[method])

        routes = [
            on("/", self._page, open=True),
            on("/health", self._health, open=True),
            on("/metrics", self._metrics, open=True),
            on("/v1/models", self._models),
            on("/v1/models/{model:path}", self._model),
            on("/v1/completions", lambda r: self._generate(r, Completion, "cmpl"), "POST"),
            on("/v1/chat/completions", lambda r: self._generate(r, Chat, "chatcmpl"), "POST"),
            on("/tokenize", self._json(self._tokens.tokenize), "POST"),
            on("/detokenize", self._json(self._tokens.detokenize), "POST"),
            on("/tokenizer_info", self._tokenizer_info),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})

    def _guarded(self, path: str, handler: Handler, open: bool) -> Handler:
        """A handler with the key checked, errors in OpenAI's form, and what it did counted."""

        async def run(request: Request) -> Response:
            started = time.monotonic()

            def count(status: int) -> None:
                self.metrics.requests.labels(path, str(status)).inc()
                self.metrics.seconds.labels(path).observe(time.monotonic() - started)

            try:
                if not open:
                    self._check_key(request)
                response = await handler(request)
            except ApiError as error:
                response = error.response()
            except ClientDisconnect:
                response = Response(status_code=CLIENT_CLOSED)
            except Exception as error:
                log.exception("%s", path)
                response = ApiError(f"internal error: {type(error).__name__}", status=500).response()
            if isinstance(response, EventStream):
                response.ended = count
            else:
                count(response.status_code)
            return response

        return run

    def _check_key(self, request: Request) -> None:
        if not self._key:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._key.encode()):
            raise ApiError(
                "Incorrect API key: send it as `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
            )

    async def _generate(self, request: Request, kind: type[Completion] | type[Chat], prefix: str) -> Response:
        work = kind(self.serving, await read_json(request), f"{prefix}-{uuid.uuid4().hex}")
        try:
            if work.options.stream:
                await unless_disconnected(request, work.start())
                return EventStream(work.chunks(), work.call)

            async def whole() -> dict[str, Any]:
                await work.start()
                return await work.answer()

            return JSONResponse(await unless_disconnected(request, whole()))
        except BaseException:
            work.call.cancel()
            raise

    def _json(self, f: Callable[[dict[str, Any]], dict[str, Any]]) -> Handler:
        async def run(request: Request) -> Response:
            return JSONResponse(f(await read_json(request)))

        return run

    async def _tokenizer_info(self, request: Request) -> Response:
        return JSONResponse(self._tokens.info())

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))

    async def _health(self, request: Request) -> Response:
        service = self.serving.service
        if not service.alive:
            raise ApiError(f"the engine has stopped: {service.failure}", status=503)
        return JSONResponse({"status": "ok", "model": self.serving.name})

    async def _metrics(self, request: Request) -> Response:
        page, kind = self.metrics.text()
        return Response(page, media_type=kind)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["model"] != self.serving.name:
            raise ApiError(
                f"The model {request.path_params['model']!r} does not exist; there is {self.serving.name!r}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        s = self.serving
        return {
            "id": s.name, "object": "model", "created": s.created, "owned_by": "opencoder", "max_model_len": s.context
        }  # fmt: skip


class EventStream(Response):
    """Server-sent events of a call, with an end of their own when the client goes away."""

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], call: Call):
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._chunks, self._call = chunks, call
        self.ended: Callable[[int], None] = lambda status: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        work = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            status = work.result() if work.done() else CLIENT_CLOSED
        except OSError:  # written to a connection that is gone
            status = CLIENT_CLOSED
        finally:
            for task in (work, gone):
                task.cancel()
            self._call.cancel()
            self.ended(status)

    async def _send(self, send: Send) -> int:
        status = 200

        async def line(data: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": more})

        try:
            async for chunk in self._chunks:
                await line(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))
        except ApiError as error:
            status = error.status
            await line(json.dumps(error.body()))
        except Exception as error:
            log.exception("stream")
            status = 500
            await line(json.dumps(ApiError(f"internal error: {type(error).__name__}", status=500).body()))
        await line("[DONE]", more=False)
        return status


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_disconnected[T](request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away. Raises: ClientDisconnect."""
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def read_json(request: Request) -> dict[str, Any]:
    """The body as an object. Raises: ApiError."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise ApiError(f"the body exceeds {MAX_BODY_BYTES >> 20} MiB", status=413)
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError("the body must be a JSON object")
    return body


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    response = ApiError(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code).response()
    response.headers.update(error.headers or {})
    return response
