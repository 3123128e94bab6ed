"""What goes over the wire to a provider, and what is made of what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from aibridge.http_client.client import Client
from aibridge.http_client.connecting import Connecting
from aibridge.http_client.response import Response, ResponseProtocol
from support.provider import CLOSE, Provider, Reply, document, head, raw

OK = document(b"{}")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client(Connecting(), connect_limit=5)
    yield made
    await made.aclose()


async def ask(client: Client, url: str, method: str = "POST", body: bytes = b"") -> tuple[Response, bytes]:
    """The answer, and its body; the connection is kept for the next request where that is possible."""
    response = await client.send("tidal", method, url, [("x-one", "1"), ("x-one", "2")], body, limit=5)
    read = b""
    while not response.taken:
        await response.more()
        read += response.take()
    response.release()
    return response, read


@pytest.mark.parametrize(
    ("method", "body", "lengths"),
    [("POST", b"{}", ["2"]), ("POST", b"", ["0"]), ("DELETE", b"", ["0"]), ("GET", b"", []), ("HEAD", b"", [])],
)
async def test_a_request_has_the_headers_that_it_was_given_and_says_how_long_it_is(
    method: str, body: bytes, lengths: list[str], client: Client, provider: Provider
) -> None:
    provider.says(raw(head(200, [("Content-Length", "2")]), b"" if method == "HEAD" else b"{}"))
    await ask(client, f"{provider.url}/v1/things?from=a%2Fb", method, body)
    asked = provider.last
    host = provider.url.removeprefix("http://")
    given = [("Host", host), ("x-one", "1"), ("x-one", "2"), *(("Content-Length", length) for length in lengths)]
    assert (asked.method, asked.target, asked.headers, asked.body) == (method, "/v1/things?from=a%2Fb", given, body)


async def test_headers_that_go_with_every_request(provider: Provider) -> None:
    provider.says(OK, OK)
    client = Client(Connecting(), 5, {"X-Always": "yes", "Host": "tidal.example"})
    for _ in range(2):
        await ask(client, provider.url)
        given = [
            ("Host", "tidal.example"),
            ("X-Always", "yes"),
            ("x-one", "1"),
            ("x-one", "2"),
            ("Content-Length", "0"),
        ]
        assert sorted(provider.last.headers) == sorted(given)
    await client.aclose()


async def test_an_answer_to_head_has_no_body_whatever_its_length(client: Client, provider: Provider) -> None:
    provider.says(Reply([head(200, [("Content-Length", "500")])]), OK)
    response, body = await ask(client, provider.url, "HEAD")
    assert (response.status, dict(response.raw_headers), body) == (200, {b"Content-Length": b"500"}, b"")
    await ask(client, provider.url)
    assert provider.connections == 1


async def test_interim_answers_are_passed_over(client: Client, provider: Provider) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    provider.says(raw(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + head(200, [("Content-Length", "2")]) + b"{}"))
    response, body = await ask(client, provider.url)
    assert (response.status, body, b"Link" in dict(response.raw_headers)) == (200, b"{}", False)


async def test_what_changes_nothing_is_asked_once_more_where_a_kept_connection_was_closed(
    client: Client, provider: Provider
) -> None:
    provider.says(OK, raw(CLOSE), OK)
    assert [(await ask(client, provider.url, "GET"))[1] for _ in range(2)] == [b"{}", b"{}"]
    assert (len(provider.asked), provider.connections) == (3, 2)


async def test_what_may_change_something_is_not(client: Client, provider: Provider) -> None:
    provider.says(OK, raw(CLOSE), OK)
    await ask(client, provider.url)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask(client, provider.url)
    assert len(provider.asked) == 2


async def test_a_header_can_not_become_two(client: Client, provider: Provider) -> None:
    for value in ("1\r\nx-two: 2", "1\nx-two: 2", "1\r", "1\0"):
        with pytest.raises(ValueError, match="line end or a null"):
            await client.send("tidal", "POST", provider.url, [("x-one", value)], b"{}", limit=5)
        with pytest.raises(ValueError, match="line end or a null"):
            await Client(Connecting(), 5, {"x-one": value}).send("tidal", "GET", provider.url, [], b"", limit=5)
    assert not provider.asked


@asynccontextmanager
async def stalled(client: Client) -> AsyncIterator[asyncio.Task[Response]]:
    """A request of which a peer has read the head, and takes no more."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked.set()
        await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asking = asyncio.create_task(client.send("tidal", "POST", url, [], bytes(30 << 20), limit=60))
        await asked.wait()
        yield asking
        over.set()
        await asyncio.gather(asking, return_exceptions=True)


async def test_the_rest_of_a_request_that_was_given_up_is_not_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a connection would stay for as long as a provider takes no more of it."""
    lost = asyncio.Event()
    connection_lost = ResponseProtocol.connection_lost

    def noted(connection: ResponseProtocol, error: BaseException | None) -> None:
        lost.set()
        connection_lost(connection, error)

    monkeypatch.setattr(ResponseProtocol, "connection_lost", noted)

    async with stalled(client) as asking:
        asking.cancel()
        async with asyncio.timeout(10):
            await lost.wait()


async def test_a_peer_that_takes_no_more_is_not_waited_for_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibridge.http_client.client._LONGEST_GOODBYE", 0.1)
    client = Client(Connecting(), connect_limit=5)
    async with stalled(client) as asking:
        async with asyncio.timeout(10):
            await client.aclose()
        assert not asking.done()


async def test_an_answer_that_comes_before_the_request_was_read_is_an_answer(client: Client) -> None:
    """The rest of the request is not sent, and its connection is not used again."""
    left = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(413, [("Content-Length", "9")]) + b"too large")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.shield(answered.wait())
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while await reader.read(1 << 20):
            pass
        writer.close()
        left.set()

    answered = asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        response, body = await ask(client, f"http://127.0.0.1:{port}", body=bytes(8 << 20))
        assert (response.status, body) == (413, b"too large")
        answered.set()
        await asyncio.wait_for(left.wait(), 10)
