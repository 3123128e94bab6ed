"""A connection of a client: its requests one after the other, and their answers in the same order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from aibridge.server.http1.request import Request

_log = logging.getLogger("aibridge.server")

MOST_PENDING = 64 << 10
"""Bytes of a head, or of what stands between the chunks of a body, that are waited for to become whole."""

_INVALID = "Invalid HTTP request received."

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Connection(asyncio.Protocol):
    """What uvicorn makes of each connection: `uvicorn.Config(http=Connection, ws="none")`.

    Of its settings, the application and the keep-alive time count here. That time (seconds) is also the longest that a
    client may take until its request's head is whole, and that head may not be long beyond reason: nobody is known yet
    who could answer for the memory. The bodies of requests are bounded by the bridge. An `Upgrade` is ignored (RFC
    9110, 7.8).
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.congested = False
        """The client reads more slowly than it is written to."""
        self._loop = _loop or asyncio.get_running_loop()
        self._application = config.loaded_app
        self._patience = config.timeout_keep_alive
        self._state = server_state
        self.transport: asyncio.Transport
        self._about: dict[str, Any]  # what the scopes of all requests have in common
        self._parser: httptools.HttpRequestParser
        self._resumes = False
        self._pending = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._awaits_continue = False
        self._coming: Request | None = None  # whose body is being read
        self._running: Request | None = None  # that is being answered
        self._waiting: deque[Request] = deque()
        self._reads = True
        self._broken = False  # nothing that comes can be understood any more
        self._held = b""
        self._writable: asyncio.Event | None = None
        self._idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes
        self._about = {
            "type": "http",
            "asgi": _ASGI,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": "",
            "client": _address(transport.get_extra_info("peername")),
            "server": _address(transport.get_extra_info("sockname")),
        }
        self._parser = self._new_parser()
        self._rest()

    def data_received(self, data: bytes) -> None:
        """Read what came, and count what nothing came of."""
        self._pending += len(data)
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = data[upgrade.args[0] :]
                    self._ignore_upgrade()
        except httptools.HttpParserError:
            self._refuse(_INVALID)
            return
        if self._pending > MOST_PENDING:
            self._refuse(f"The head of the request is longer than {MOST_PENDING} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._state.connections.discard(self)
        self._held = b""
        if self._running:
            self._running.lose()
        self._waiting.clear()
        self.resume_writing()
        if self._timer:
            self._timer.cancel()
        del self._parser  # it knows this connection

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.congested = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.congested = False
        if self._writable:
            self._writable.set()

    # What uvicorn tells

    def shutdown(self) -> None:
        """Close once what is being answered is answered."""
        if self._running:
            self._running.keep_alive = False
        else:
            self.transport.close()

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers, self._awaits_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """A piece of what is asked for."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailers, which mean nothing here (RFC 9110, 6.5.1)."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._awaits_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._pending = 0
        headers, self._headers = self._headers, []
        if self._resumes:
            return
        parser, path, query = self._parser, *_split(self._url)
        version = parser.get_http_version()
        named = path.decode("ascii")
        scope = {
            **self._about,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": unquote(named) if "%" in named else named,
            "raw_path": path,
            "query_string": query,
            "headers": headers,
        }
        keep_alive = version == "1.1" and parser.should_keep_alive()
        request = Request(self, scope, keep_alive=keep_alive, awaits_continue=self._awaits_continue)
        self._coming = request
        if self._running is None:
            self._start(request)
        else:
            self._waiting.append(request)
            self._pause_reading()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pending = 0
        if self._coming and not self._coming.feed(body):
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is whole, unless the parser gives up reading where another protocol would begin."""
        self._pending = 0
        if self._coming and (self._resumes or not self._parser.should_upgrade()):
            self._coming.complete()
            self._coming = None

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # it is ignored, and does no harm
        return parser

    def _ignore_upgrade(self) -> None:
        """Go on as if the client had not asked for another protocol, with another parser that has not seen it."""
        assert self._coming
        fields = [b"%b: %b\r\n" % each for each in self._coming.scope["headers"] if each[0] in _FRAMING]
        self._parser = self._new_parser()
        self._resumes = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(fields))
        self._resumes = False

    def _refuse(self, problem: str) -> None:
        """Read nothing more of a client that does not speak HTTP; what it asked for before is answered."""
        _log.warning("a client was refused: %s", problem)
        self._broken = True
        self._pause_reading()
        if self._waiting and not self._waiting[-1].whole:
            self._waiting.pop()
        last = self._waiting[-1] if self._waiting else self._running or self._coming
        if last and last.whole:
            last.keep_alive = False
            return
        if not (last and last.begun):
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(problem), problem.encode("ascii"))
            )
        self.close()

    def _start(self, request: Request) -> None:
        self._running = request
        request.task = self._loop.create_task(request.answer(self._application))
        self._state.tasks.add(request.task)

    # What requests ask for

    def hold(self, head: bytes) -> None:
        """Send the head of an answer together with the beginning of its body, unless that keeps it waiting."""
        self._held = head
        self._loop.call_soon(self._let_go)

    def write(self, data: bytes) -> None:
        """Send this, after what is held."""
        if self._held:
            head, self._held = self._held, b""
            self.transport.writelines((head, data))
        else:
            self.transport.write(data)

    def answered(self, request: Request) -> None:
        """Go on to the next request, if there is to be one."""
        self._state.total_requests += 1
        self._running = None
        if not request.keep_alive:
            self.close()
        elif self._waiting:
            self._start(self._waiting.popleft())
        else:
            self.resume_reading()
            self._rest()

    def done(self, request: Request) -> None:
        """Nobody is at work on it any more; an answer that has no end is cut."""
        if request.task:
            self._state.tasks.discard(request.task)
        if request is self._running:
            self._running = None
            self.close()

    def close(self) -> None:
        """Close once all is sent."""
        self._let_go()
        self.transport.close()

    def resume_reading(self) -> None:
        """Read more of what the client sends."""
        if not self._reads and not self._broken:
            self._reads = True
            self.transport.resume_reading()

    async def drained(self) -> None:
        """Wait until the client has caught up."""
        if self._writable is None:
            self._writable = asyncio.Event()
        self._writable.clear()
        await self._writable.wait()

    def _let_go(self) -> None:
        if self._held and not self.transport.is_closing():
            head, self._held = self._held, b""
            self.transport.write(head)

    def _pause_reading(self) -> None:
        if self._reads and not self.transport.is_closing():
            self._reads = False
            self.transport.pause_reading()

    def _rest(self) -> None:
        """Wait for the next request. One timer looks now and then how long that takes: a request costs none."""
        self._idle_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._running:
            return
        left = self._idle_since + self._patience - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.transport.close()


def _address(found: Any) -> tuple[str, int] | None:
    """A host and a port, where there are such."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


def _split(url: bytes) -> tuple[bytes, bytes]:
    """The path and the query of what is asked for; httptools' error where it has none."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""
