"""An upstream that needs no key and no network: Anthropic's and OpenAI's APIs, simulated.

It plays both providers on the wire as far as clients can tell, streaming and not, and does what the user's prompt
tells it to (`simulated/script.py`): answer with a short text, call tools, think aloud, fail. The demo runs on it, and
so do the tests that drive real coding agents. The same requests in the same order get the same answers.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.server.simulated import models
from aibridge.server.simulated.chat_completions import ChatCompletions
from aibridge.server.simulated.conversation import answer
from aibridge.server.simulated.exchange import Dialect, Exchange, Ids, RefusedError, Tokens, tokens
from aibridge.server.simulated.messages import Messages
from aibridge.server.simulated.reply import Receive, Reply, Send
from aibridge.server.simulated.responses import Responses

if TYPE_CHECKING:
    from aibridge.actor import Scope


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that the simulated upstream got."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str]
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
        reply = Reply(receive, send, Ids(b"%d " % self._count + seen.body), self._pause)
        path = scope["path"].removeprefix("/v1")
        anthropic = "anthropic-version" in seen.headers or path.startswith("/messages")
        dialect = self._messages if anthropic else self._dialects["/chat/completions"]
        try:
            await self._route(seen, path, reply, anthropic)
        except RefusedError as refused:
            await reply.error(self._dialects.get(path, dialect), refused.status, str(refused))

    async def _route(self, seen: Seen, path: str, reply: Reply, anthropic: bool) -> None:
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
            await reply.document(models.anthropic_models() if anthropic else models.openai_models())
        elif seen.method == "GET" and path.startswith("/models/"):
            model = path.removeprefix("/models/")
            await reply.document(models.anthropic_model(model) if anthropic else models.openai_model(model))
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
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so only where it made the socket
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


async def _answer(dialect: Dialect, seen: Seen, reply: Reply) -> None:
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
