"""HTTP/1.1 as clients speak it, to the byte: what the application is told, and what the client sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from aibridge.bridge.asgi import ClientLeft, Receive, Scope, Send, read_body
from aibridge.server.http1.connection import MOST_PENDING, Connection
from support.waiting import LIMIT, until

Application = Callable[[Any, Any, Any], Awaitable[None]]

POST = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: gateway\r\nX-Api-Key: k\r\n"
GET = b"GET / HTTP/1.1\r\nHost: gateway\r\n"
FOUR = b"Content-Length: 4\r\n\r\nbody"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;name=value\r\ndy\r\n0\r\nTrailer: ignored\r\n\r\n"


class Client:
    """One that says what it is told to, and sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def says(self, data: bytes) -> None:
        self.writer.write(data)

    async def sees(self, data: bytes) -> None:
        """These bytes come next."""
        async with asyncio.timeout(LIMIT):
            assert await self.reader.readexactly(len(data)) == data

    async def sees_the_end(self, data: bytes = b"") -> None:
        """These bytes come next, and then the connection is closed."""
        async with asyncio.timeout(LIMIT):
            assert await self.reader.read() == data


class Server:
    """What uvicorn has of its connections."""

    def __init__(self, port: int, state: ServerState) -> None:
        self.port, self.state = port, state

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Somebody connects."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(application: Application, protocol: Any = Connection, *, patience: int = 60) -> AsyncIterator[Server]:
    """The application, behind one of uvicorn's protocols."""
    config = uvicorn.Config(
        application, http=protocol, ws="none", interface="asgi3", log_config=None, timeout_keep_alive=patience
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    async with server:
        yield Server(server.sockets[0].getsockname()[1], state)
        for connection in [*state.connections]:
            connection.shutdown()
        await until(lambda: not state.tasks, "nobody is answered any more")
        await until(lambda: not state.connections, "the connections are closed")


@asynccontextmanager
async def client_of(application: Application, **settings: Any) -> AsyncIterator[Client]:
    """Somebody who is connected to the application."""
    async with serving(application, **settings) as server, server.client() as client:
        yield client


async def respond(send: Send, status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


class Heard:
    """An application that says the body back, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Scope, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, b"", 1 << 30)
        except ClientLeft:
            return
        self.asked.append((scope, body))
        await respond(send, 200, (b"content-length", b"%d" % len(body)), body=body)


ECHO = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"


async def test_a_request_and_its_answer() -> None:
    heard = Heard()
    async with client_of(heard) as client:
        client.says(POST + FOUR)
        await client.sees(ECHO)
    [(scope, body)] = heard.asked
    assert body == b"body"
    assert scope["type"] == "http"
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("POST", "1.1", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/v1/messages", b"/v1/messages", b"beta=true")
    assert scope["headers"] == [(b"host", b"gateway"), (b"x-api-key", b"k"), (b"content-length", b"4")]
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


@pytest.mark.parametrize("request_bytes", [POST + FOUR, POST + CHUNKS], ids=["length", "chunks"])
async def test_wherever_a_request_is_cut_it_is_the_same(request_bytes: bytes) -> None:
    """In two pieces, and byte by byte; also where one follows another."""
    heard = Heard()
    async with serving(heard) as server, server.client() as client:
        client.says(request_bytes)
        await client.sees(ECHO)
        [connection] = server.state.connections
        for cut in range(1, len(request_bytes)):
            connection.data_received(request_bytes[:cut])
            await asyncio.sleep(0)
            connection.data_received(request_bytes[cut:])
            await client.sees(ECHO)
        for each in range(len(2 * request_bytes)):
            connection.data_received((2 * request_bytes)[each : each + 1])
            await asyncio.sleep(0)
        await client.sees(2 * ECHO)
    assert all(asked == heard.asked[0] for asked in heard.asked)
    assert len(heard.asked) == 1 + len(request_bytes) - 1 + 2


ORDINARY = {
    "a body": POST + FOUR,
    "chunks": POST + CHUNKS.replace(b"Trailer: ignored\r\n", b""),
    "no body": GET + b"\r\n",
    "empty": b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "escapes": b"GET /a%20b/%C3%A9?c=%2f#d HTTP/1.1\r\nA:\tb \r\nA: c\r\n\r\n",
    "the whole URL": b"GET http://gateway/a/b?c HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "two slashes": b"GET //a HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "an old client": b"GET /a HTTP/1.0\r\n\r\n",
    "a value that is not ASCII": GET + b"User-Agent: \xff\xfe\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", ORDINARY.values(), ids=ORDINARY)
async def test_an_application_is_told_what_uvicorn_would_tell_it(request_bytes: bytes) -> None:
    told = []
    for protocol in (Connection, HttpToolsProtocol):
        heard = Heard()
        async with client_of(heard, protocol=protocol) as client:
            client.says(request_bytes)
            async with asyncio.timeout(LIMIT):
                await client.reader.readuntil(b"\r\n\r\n")
        [(scope, body)] = heard.asked
        told.append(({name: scope[name] for name in scope if name not in {"state", "client", "server"}}, body))
    assert told[0] == told[1]


_scraps = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1\r\n",
            b"POST /a?b HTTP/1.1\r\n",
            b"PUT http://h/p?q#f HTTP/1.0\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
        ),
        *(
            b"Content-Length: 3\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"X: y\r\n z\r\n",
            b"X : y\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b":",
            b" ",
        ),
        *(b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n"),
    ]
)


@given(st.lists(_scraps, min_size=1, max_size=12), st.integers(1, 40))
def test_an_application_is_told_of_nonsense_no_more_than_uvicorn_would_tell_it(scraps: list[bytes], size: int) -> None:
    """And no less; but where nonsense follows on a request, uvicorn does not always answer that."""
    said = b"".join(scraps)

    async def told_by(protocol: Any) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
        heard = Heard()
        async with serving(heard, protocol) as server, server.client() as client:
            await until(lambda: bool(server.state.connections), "the client is connected")
            [connection] = server.state.connections
            for start in range(0, len(said), size):
                if not connection.transport.is_closing():
                    connection.data_received(said[start : start + size])
                await asyncio.sleep(0)
            client.writer.write_eof()
            await until(lambda: not server.state.connections, "the connection is closed")
        return [(scope["method"], scope["raw_path"], scope["headers"], body) for scope, body in heard.asked]

    ours, theirs = asyncio.run(told_by(Connection)), asyncio.run(told_by(HttpToolsProtocol))
    assert ours[: len(theirs)] == theirs


async def test_a_head_and_the_beginning_of_its_body_come_together() -> None:
    async with client_of(Heard()) as client:
        client.says(POST + FOUR)
        async with asyncio.timeout(LIMIT):
            assert await client.reader.read(1000) == ECHO


async def test_a_head_whose_body_is_not_there_yet_goes_alone() -> None:
    body = asyncio.Event()

    async def later(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await body.wait()
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with client_of(later) as client:
        client.says(GET + b"\r\n")
        await client.sees(b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n")
        body.set()
        await client.sees(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_requests_that_do_not_wait_are_answered_one_after_the_other() -> None:
    first, running = asyncio.Event(), []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        running.append(scope["path"])
        if scope["path"] == "/1":
            await first.wait()
        await respond(send, 200, (b"content-length", b"2"), body=scope["path"].encode())

    async with client_of(slow) as client:
        client.says(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in (1, 2, 3)))
        await until(lambda: bool(running), "the first is being answered")
        await asyncio.sleep(0)
        assert running == ["/1"]
        first.set()
        for number in (1, 2, 3):
            await client.sees(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/%d" % number)


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
async def test_a_connection_is_closed_where_the_client_keeps_none(request_bytes: bytes) -> None:
    async with client_of(Heard()) as client:
        client.says(request_bytes + GET + b"\r\n")
        await client.sees_the_end(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


async def test_an_old_client_gets_no_chunks() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, body=b"all")

    async with client_of(stream) as client:
        client.says(b"GET / HTTP/1.0\r\n\r\n")
        await client.sees_the_end(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall")


async def test_an_application_may_close_the_connection() -> None:
    async def close(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 529, (b"connection", b"close"), (b"content-length", b"0"))

    async with client_of(close) as client:
        client.says(GET + b"\r\n")
        await client.sees_the_end(b"HTTP/1.1 529 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_some_answers_have_no_body(method: bytes, status: int) -> None:
    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, status, (b"x", b"y"), body=b"none")

    async with client_of(empty) as client:
        for _ in range(2):
            client.says(method + b" / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(LIMIT):
                head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.endswith(b"\r\nx: y\r\n\r\n")


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    async with client_of(Heard()) as client:
        client.says(POST + b"Expect: 100-Continue\r\nContent-Length: 4\r\n\r\n")
        await client.sees(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.says(b"body")
        await client.sees(ECHO)


async def test_a_client_that_waits_is_refused_before_it_sends_its_body() -> None:
    """Whether it sends it all the same nobody knows, so the connection serves no other request."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 413, (b"content-length", b"0"))

    async with client_of(refuse) as client:
        client.says(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        await client.sees_the_end(
            b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )


async def test_what_is_left_of_a_body_that_was_refused_is_not_the_next_request() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200 if scope["method"] == "GET" else 413, (b"content-length", b"0"))

    async with client_of(refuse) as client:
        client.says(POST + b"Content-Length: 40\r\n\r\n")
        await client.sees(b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n")
        client.says(b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n".ljust(40) + GET + b"\r\n")
        await client.sees(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        client.says(GET + b"Connection: close\r\n\r\n")
        await client.sees_the_end(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


@pytest.mark.parametrize("framing", [FOUR, CHUNKS], ids=["length", "chunks"])
async def test_another_protocol_that_is_offered_is_ignored(framing: bytes) -> None:
    """As Java's HTTP client offers HTTP/2 with a body behind it."""
    heard = Heard()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
    async with client_of(heard) as client:
        client.says(POST + upgrade + framing + POST + upgrade + FOUR)
        await client.sees(2 * ECHO)
        client.says(POST + FOUR)
        await client.sees(ECHO)
    assert (b"upgrade", b"h2c") in heard.asked[0][0]["headers"]
    assert [body for _, body in heard.asked] == 3 * [b"body"]


async def test_a_websocket_that_is_asked_for_is_an_ordinary_request() -> None:
    heard = Heard()
    async with client_of(heard) as client:
        client.says(GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await client.sees(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        client.says(POST + FOUR)
        await client.sees(ECHO)
    assert (b"upgrade", b"websocket") in heard.asked[0][0]["headers"]


INVALID = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no path": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
    "a length and chunks": POST + b"Content-Length: 4\r\n" + CHUNKS,
    "a space before a colon": GET + b"Content-Length : 4\r\n\r\nbody",
    "no number": POST + b"Content-Length: four\r\n\r\nbody",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a path that is not ASCII": b"GET /\xff HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", INVALID.values(), ids=INVALID)
async def test_what_is_not_http_is_refused(request_bytes: bytes) -> None:
    heard = Heard()
    async with client_of(heard) as client:
        client.says(request_bytes)
        await client.sees_the_end(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 30\r\n"
            b"connection: close\r\n\r\nInvalid HTTP request received."
        )
    assert not heard.asked


@pytest.mark.parametrize("begun", [GET + b"X: ", POST + b"Transfer-Encoding: chunked\r\n\r\n1;"])
async def test_a_head_without_an_end_is_refused(begun: bytes) -> None:
    async with serving(Heard()) as server, server.client() as client:
        await until(lambda: bool(server.state.connections), "the client is connected")
        [connection] = server.state.connections
        connection.data_received(begun)
        connection.data_received((MOST_PENDING + 1) * b"x")
        async with asyncio.timeout(LIMIT):
            answer = await client.reader.read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"longer than 65536 bytes.")


@pytest.mark.parametrize("nonsense", [b"no HTTP\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"])
async def test_what_was_asked_for_before_is_answered_to_its_end(nonsense: bytes) -> None:
    """Nothing else may stand in the middle of an answer."""
    go_on = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async with client_of(slow) as client:
        client.says(2 * (GET + b"\r\n") + nonsense)
        await client.sees(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na")
        go_on.set()
        await client.sees_the_end(b"bHTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab")


async def test_no_more_is_read_than_the_application_takes() -> None:
    """A body of 64 MB, of which a piece is taken: the rest waits with the client."""
    take = asyncio.Event()
    size, piece = 64 << 20, bytes(1 << 20)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await take.wait()
        await respond(send, 200, (b"content-length", b"8"), body=b"%d" % len(await read_body(receive, b"", 1 << 30)))

    async with client_of(slow) as client:
        client.says(POST + b"Content-Length: %d\r\n\r\n" % size)
        sent = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < size:
                    client.says(piece)
                    sent += len(piece)
                    await client.writer.drain()
        assert sent < size / 2
        take.set()
        while sent < size:
            client.says(piece)
            sent += len(piece)
            await client.writer.drain()
        await client.sees(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n67108864")


async def test_an_application_waits_for_a_client_that_reads_slowly() -> None:
    sent = 0

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"67108864")]})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    async with client_of(endless) as client:
        client.says(GET + b"\r\n")
        await until(lambda: sent > 0, "the answer has begun")
        async with asyncio.timeout(LIMIT):
            await client.reader.readuntil(b"\r\n\r\n")
            assert sent < 32
            await client.reader.readexactly(64 << 20)
    assert sent == 64


async def test_an_application_is_told_that_its_client_left() -> None:
    told: list[str] = []

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, b"", 100)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        told.append((await receive())["type"])
        await respond(send, 200)  # goes nowhere

    async with serving(wait) as server:
        async with server.client() as client:
            client.says(POST + FOUR)
            await client.sees(b"HTTP/1.1 200 OK\r\n")
        await until(lambda: not server.state.tasks, "the request is over")
    assert told == ["http.disconnect"]


async def test_an_application_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async with client_of(fail) as client:
        client.says(GET + b"\r\n")
        await client.sees_the_end(
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n15\r\nInternal Server Error\r\n0\r\n\r\n"
        )
    assert "ZeroDivisionError" in caplog.text


HEADS: dict[str, tuple[bytes, bytes]] = {
    "a line": (b"x", b"y\r\nset-cookie: evil"),
    "a line feed": (b"x", b"y\nz"),
    "a null": (b"x\0", b"y"),
}


@pytest.mark.parametrize("header", HEADS.values(), ids=HEADS)
async def test_no_header_breaks_out_of_its_line(header: tuple[bytes, bytes]) -> None:
    async def inject(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, header, (b"content-length", b"4"), body=b"body")

    async with client_of(inject) as client:
        client.says(GET + b"\r\n")
        async with asyncio.timeout(LIMIT):
            answer = await client.reader.read()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"\r\nInternal Server Error\r\n0\r\n\r\n")
    assert b"evil" not in answer


@pytest.mark.parametrize("body", [b"", b"longer"])
async def test_an_answer_that_is_not_as_long_as_it_says_is_cut(body: bytes) -> None:
    """The client can tell, and takes nothing of it for the next answer."""

    async def wrong(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, (b"content-length", b"4"), body=body)

    async with client_of(wrong) as client:
        client.says(2 * (GET + b"\r\n"))
        await client.sees_the_end(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")


async def test_an_answer_that_is_not_ended_is_cut() -> None:
    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    async with client_of(cut) as client:
        client.says(GET + b"\r\n")
        await client.sees_the_end(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")


@pytest.mark.parametrize("said", [b"", POST, POST + FOUR, POST + FOUR + POST])
async def test_a_client_that_says_nothing_for_long_is_left(said: bytes) -> None:
    """Also one that begins a request and does not go on."""
    async with client_of(Heard(), patience=1) as client:
        client.says(said)
        await client.sees_the_end(ECHO if FOUR in said else b"")


async def test_a_server_that_stops_lets_what_runs_come_to_its_end() -> None:
    go_on = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await respond(send, 200, (b"content-length", b"0"))

    async with serving(slow) as server, server.client() as idle, server.client() as busy:
        busy.says(2 * (GET + b"\r\n"))
        await until(lambda: len(server.state.tasks) == 1, "a request runs")
        for connection in [*server.state.connections]:
            connection.shutdown()
        await idle.sees_the_end()
        go_on.set()
        await busy.sees_the_end(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    assert server.state.total_requests == 1
