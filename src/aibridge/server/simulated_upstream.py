"""An upstream that needs no key and no network: Anthropic's and OpenAI's APIs, simulated.

It plays both providers on the wire as far as clients can tell, streaming and not, and does what the user's prompt
tells it to (`simulated/script.py`): answer with a short text, call tools, think aloud, fail. The demo runs on it, and
so do the tests that drive real coding agents. The same requests in the same order get the same answers.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.server.simulated.chat_completions import ChatCompletions
from aibridge.server.simulated.conversation import answer
from aibridge.server.simulated.exchange import Dialect, Exchange, Ids, RefusedError, Tokens, tokens
from aibridge.server.simulated.messages import Messages
from aibridge.server.simulated.responses import Responses

if TYPE_CHECKING:
    from aibridge.actor import Scope
    from aibridge.server.simulated.script import Step

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = dict[str, str]

ANTHROPIC_MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
OPENAI_MODELS = ("gpt-5.5", "gpt-5.5-codex", "gpt-5.5-mini")
"""Those that are listed; a request may name any other."""

_BEGUN = 1767225600
"""When the listed models began, in seconds since the epoch: 2026-01-01."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that the simulated upstream got."""

    method: str
    path: str
    """With the query."""
    headers: Headers
    """By lower-case name; of a name that came twice, the last."""
    body: bytes
    """Decompressed."""

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class SimulatedUpstream:
    """The ASGI application.

    `pause` is the time between two events of a stream, in seconds. `requests` holds the last thousand requests.
    """

    def __init__(self, pause: float = 0) -> None:
        self.requests: deque[Seen] = deque(maxlen=1000)
        self._pause = pause
        self._count = 0
        self._messages = Messages()
        self._dialects: dict[str, Dialect] = {
            "/messages": self._messages,
            "/chat/completions": ChatCompletions(),
            "/responses": Responses(),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the simulated upstream serves HTTP requests only, not {scope['type']}")
        seen = await _seen(scope, receive)
        self.requests.append(seen)
        self._count += 1
        reply = _Reply(receive, send, Ids(b"%d " % self._count + seen.body), self._pause)
        path = scope["path"].removeprefix("/v1")
        anthropic = "anthropic-version" in seen.headers or path.startswith("/messages")
        dialect = self._messages if anthropic else self._dialects["/chat/completions"]
        try:
            await self._route(seen, path, reply, anthropic)
        except RefusedError as refused:
            await reply.error(self._dialects.get(path, dialect), refused.status, str(refused))

    async def _route(self, seen: Seen, path: str, reply: _Reply, anthropic: bool) -> None:
        if seen.method in ("HEAD", "GET") and path in ("/", "/api/hello"):
            await reply.document({})
            return
        if seen.headers.get("upgrade", "").lower() == "websocket":
            raise RefusedError(426, "This API is not served over WebSocket here.")
        if not {"authorization", "x-api-key"} & seen.headers.keys():
            raise RefusedError(401, "You didn't provide an API key.")
        if seen.method == "POST" and path == "/messages/count_tokens":
            await reply.document({"input_tokens": tokens(seen.body.decode(errors="replace"))})
        elif seen.method == "POST" and (dialect := self._dialects.get(path)):
            await _answer(dialect, seen, reply)
        elif seen.method == "GET" and path == "/models":
            # Codex, when it is logged in with ChatGPT, expects a list of its own, which may be empty.
            of_chatgpt = "client_version=" in seen.path
            await reply.document(
                {"models": []} if of_chatgpt else _anthropic_models() if anthropic else _openai_models()
            )
        elif seen.method == "GET" and path.startswith("/models/"):
            model = path.removeprefix("/models/")
            await reply.document(_anthropic_model(model) if anthropic else _openai_model(model))
        else:
            raise RefusedError(404, f"Invalid URL ({seen.method} {seen.path})")


def create(pause: float = 0) -> SimulatedUpstream:
    """The simulated upstream as an ASGI application; `pause` is the time between two events of a stream, in seconds."""
    return SimulatedUpstream(pause)


@contextmanager
def serve(app: SimulatedUpstream | None = None) -> Iterator[str]:
    """Serve the simulated upstream on a free port of the loopback interface, in a thread, until the block ends.

    Gives its URL, without `/v1`: Anthropic's base URL as it is, OpenAI's with `/v1` behind it.
    """
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app or create(),
        lifespan="off",
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="simulated-upstream", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the simulated upstream did not start")
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


async def _answer(dialect: Dialect, seen: Seen, reply: _Reply) -> None:
    try:
        body = seen.json()
    except msgspec.DecodeError as error:
        raise RefusedError(400, f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise RefusedError(400, "model: Field required")
    conversation = dialect.read(body)
    said = answer(conversation)
    if said.step.status is not None:
        raise RefusedError(said.step.status, "Overloaded" if said.step.status == 529 else "Failing, as asked.")
    used = Tokens.of(seen.body, conversation, said)
    exchange = Exchange(body, conversation, said, used, reply.new_id)
    if body.get("stream"):
        await reply.stream(dialect, exchange)
    elif said.step.error:
        raise RefusedError(500, "Internal server error")
    else:
        await reply.document(dialect.document(exchange), step=said.step)


class _Reply:
    """Sends one answer."""

    def __init__(self, receive: Receive, send: Send, new_id: Ids, pause: float) -> None:
        self.new_id = new_id
        self._receive = receive
        self._send = send
        self._pause = pause
        self._request_id = new_id("req_")

    async def document(self, document: dict[str, Any], status: int = 200, step: Step | None = None) -> None:
        """Send a JSON document."""
        content = msgspec.json.encode(document)
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        if status == 429:
            headers["retry-after"] = "1"
        await self._start(status, headers)
        half = len(content) // 2 if step else 0
        await self._body(content[:half])
        if step and not await self._goes_on(step):
            return
        await self._body(content[half:], more=False)

    async def error(self, dialect: Dialect, status: int, message: str) -> None:
        """Send an error in the dialect's own shape."""
        await self.document(dialect.error(status, message, self._request_id), status)

    async def stream(self, dialect: Dialect, exchange: Exchange) -> None:
        """Send server-sent events, with what goes wrong in the middle of them."""
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        step = exchange.answer.step
        events = dialect.events(exchange)
        half = len(events) // 2
        for event in events[:half]:
            await self._body(event)
            await asyncio.sleep(self._pause)
        if not await self._goes_on(step):
            return
        if step.error:
            await self._body(dialect.failure(exchange, half), more=False)
            return
        for event in events[half:]:
            await self._body(event)
            await asyncio.sleep(self._pause)
        await self._body(b"", more=False)

    async def _goes_on(self, step: Step) -> bool:
        """Stall, if the prompt asks for it; False where the answer ends here, so that the connection is cut."""
        if step.stall:
            try:
                await asyncio.wait_for(self._receive(), step.stall)
            except TimeoutError:
                pass
            else:
                return False  # the client has left
        return not step.cut

    async def _start(self, status: int, headers: Headers) -> None:
        headers = {
            **headers,
            "request-id": self._request_id,
            "x-request-id": self._request_id,
            "anthropic-ratelimit-requests-remaining": "3999",
            "x-ratelimit-remaining-requests": "3999",
            "openai-processing-ms": "7",
        }
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _body(self, content: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


async def _seen(scope: Scope, receive: Receive) -> Seen:
    """The request, read to its end."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    path = scope["path"] + (f"?{query}" if query else "")
    return Seen(scope["method"], path, headers, _decompressed(body, headers.get("content-encoding", "")))


def _decompressed(body: bytes, encoding: str) -> bytes:
    """Codex compresses what it sends, with zstd, when it is logged in with ChatGPT."""
    if encoding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return gzip.decompress(body) if encoding == "gzip" else body


def _anthropic_model(model: str) -> dict[str, Any]:
    name = model.replace("-", " ").title()
    return {"type": "model", "id": model, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _anthropic_models() -> dict[str, Any]:
    models = [_anthropic_model(model) for model in ANTHROPIC_MODELS]
    return {"data": models, "has_more": False, "first_id": ANTHROPIC_MODELS[0], "last_id": ANTHROPIC_MODELS[-1]}


def _openai_model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": _BEGUN, "owned_by": "openai"}


def _openai_models() -> dict[str, Any]:
    return {"object": "list", "data": [_openai_model(model) for model in OPENAI_MODELS]}
