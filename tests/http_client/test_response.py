"""Bytes of a connection, and the answer that is seen in them, however they are cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import aiohttp
import pytest
from aiohttp.connector import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from aibridge.http_client.client import Client
from aibridge.http_client.connecting import Connecting
from aibridge.http_client.kept import Kept
from aibridge.http_client.response import LONGEST_HEAD, MOST_UNREAD, NoAnswerError, Response, ResponseProtocol
from support.provider import CLOSE, Provider, Reply, document, head, raw
from support.waiting import until

OPEN, CLOSED, RESET = "the connection stays open", "it is closed", "it is reset"

KEPT, WHOLE, WAITING = "whole, and the connection may be used again", "whole", "there is more to come"
BROKE_OFF, NOT_HTTP, LOST = "broke off", "not HTTP", "the connection was lost before it began"


@dataclass(frozen=True)
class Seen:
    """What became of an answer."""

    how: str
    body: bytes = b""
    status: int = 200
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """But those that say how long it is."""
    reason: bytes = b"OK"


Said: TypeAlias = tuple[bytes, str, str, Seen]
"""What comes over the connection, what becomes of that, what was asked, and what is seen."""

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"Content-Length: 2\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def said(data: bytes, seen: Seen, then: str = OPEN, method: str = "POST") -> Said:
    return data, then, method, seen


def nothing(how: str) -> Seen:
    return Seen(how, status=0, reason=b"")


CASES: dict[str, Said] = {
    "a length": said(TWO + b"\r\nab", Seen(KEPT, b"ab")),
    "no body": said(OK + b"Content-Length: 0\r\n\r\n", Seen(KEPT)),
    "chunks": said(CHUNKS + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Seen(KEPT, b"abcde")),
    "chunks with extensions": said(CHUNKS + b'3;a=b;c="d e"\r\nabc\r\n0;e\r\n\r\n', Seen(KEPT, b"abc")),
    "chunks whose sizes are followed by spaces": said(CHUNKS + b"3 \r\nabc\r\n0 \r\n\r\n", Seen(KEPT, b"abc")),
    "trailers": said(CHUNKS + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n", Seen(KEPT, b"abc")),
    "neither length nor chunks": said(OK + b"\r\nabc", Seen(WHOLE, b"abc"), CLOSED),
    "the same, as long as it is open": said(OK + b"\r\nabc", Seen(WAITING, b"abc")),
    "a coding without chunks": said(OK + b"Transfer-Encoding: gzip\r\n\r\nabc", Seen(WHOLE, b"abc"), CLOSED),
    "HTTP/1.0": said(b"HTTP/1.0 200 OK\r\n\r\nabc", Seen(WHOLE, b"abc"), CLOSED),
    "HTTP/1.0 with a length": said(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", Seen(WHOLE, b"ab")),
    "headers as they came": said(
        TWO + b"X-One: 1\r\nx-ONE:2 \t\r\nX-None:\r\nX-Latin: \xe9\r\n\r\nab",
        Seen(KEPT, b"ab", fields=((b"X-One", b"1"), (b"x-ONE", b"2"), (b"X-None", b""), (b"X-Latin", b"\xe9"))),
    ),
    "a folded header": said(TWO + b"X-One: a\r\n b\r\n\r\nab", Seen(KEPT, b"ab", fields=((b"X-One", b"a b"),))),
    "lines that end with LF": said(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", Seen(KEPT, b"ab")),
    "no reason": said(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", Seen(KEPT, b"ab", reason=b"")),
    "a long reason": said(
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n", Seen(KEPT, b"", 418, (), b"I'm a teapot")
    ),
    "HEAD": said(OK + b"Content-Length: 500\r\n\r\n", Seen(KEPT), method="HEAD"),
    "HEAD, with chunks announced": said(CHUNKS, Seen(KEPT), method="HEAD"),
    "HEAD, with a body after all": said(TWO + b"\r\nab", Seen(WHOLE), method="HEAD"),
    "204": said(b"HTTP/1.1 204 OK\r\n\r\n", Seen(KEPT, status=204)),
    "304 with a length": said(b"HTTP/1.1 304 OK\r\nContent-Length: 500\r\n\r\n", Seen(KEPT, status=304)),
    "interim answers": said(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + TWO + b"\r\nab",
        Seen(KEPT, b"ab"),
    ),
    "interim answers only": said(b"HTTP/1.1 100 Continue\r\n\r\n", nothing(WAITING)),
    "interim answers only, and an end": said(b"HTTP/1.1 100 Continue\r\n\r\n", nothing(LOST), CLOSED),
    "101": said(
        b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nab",
        Seen(WHOLE, status=101, fields=((b"Connection", b"upgrade"), (b"Upgrade", b"x"))),
    ),
    "101 to nothing": said(b"HTTP/1.1 101 OK\r\n\r\n", Seen(WHOLE, status=101)),
    "Connection: close": said(
        TWO + b"Connection: close\r\n\r\nab", Seen(WHOLE, b"ab", fields=((b"Connection", b"close"),))
    ),
    "more than the answer": said(TWO + b"\r\nabcd", Seen(WHOLE, b"ab")),
    "another answer": said(TWO + b"\r\nab" + TWO + b"\r\ncd", Seen(WHOLE, b"ab")),
    "a length that is not reached": said(TWO + b"\r\na", Seen(BROKE_OFF, b"a"), CLOSED),
    "no body where one is due": said(TWO + b"\r\n", Seen(BROKE_OFF), CLOSED),
    "chunks without an end": said(CHUNKS + b"3\r\nabc\r\n", Seen(BROKE_OFF, b"abc"), CLOSED),
    "chunks without their last line end": said(CHUNKS + b"3\r\nabc\r\n0\r\n", Seen(BROKE_OFF, b"abc"), CLOSED),
    "a chunk that is cut": said(CHUNKS + b"5\r\nabc", Seen(BROKE_OFF, b"abc"), CLOSED),
    "a chunk without size": said(CHUNKS + b"3\r\nabc\r\nnonsense\r\n", Seen(BROKE_OFF, b"abc")),
    "a chunk longer than its size": said(CHUNKS + b"3\r\nabcd\r\n", Seen(BROKE_OFF, b"abc")),
    "a reset instead of an end": said(OK + b"\r\nabc", Seen(BROKE_OFF, b"abc"), RESET),
    "no answer": said(b"", nothing(LOST), CLOSED),
    "a reset": said(b"", nothing(LOST), RESET),
    "half a head": said(TWO, nothing(LOST), CLOSED),
    "half a status line": said(b"HTTP/1.1 2", nothing(LOST), CLOSED),
    "HTML": said(b"<html>", nothing(NOT_HTTP)),
    "an alert of TLS": said(b"\x15\x03\x01\x00\x02\x02\x46", nothing(NOT_HTTP)),
    "another protocol": said(b"ICY 200 OK\r\n\r\n", nothing(NOT_HTTP)),
    "two lengths": said(TWO + b"Content-Length: 3\r\n\r\nabc", nothing(NOT_HTTP)),
    "a length that is none": said(OK + b"Content-Length: two\r\n\r\nab", nothing(NOT_HTTP)),
    "both length and chunks": said(TWO + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nothing(NOT_HTTP)),
    "a null character": said(TWO + b"X-One: \0\r\n\r\nab", nothing(NOT_HTTP)),
    "a header without a name": said(TWO + b": 1\r\n\r\nab", nothing(NOT_HTTP)),
}


class Connections:
    """Makes connections on which nobody is at the other end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector()
        self._key = aiohttp.ClientRequest("GET", URL("http://provider.test"), loop=self._loop).connection_key

    async def seen(self, pieces: Iterable[bytes], then: str, method: str, early: bytes = b"") -> Seen:
        """What is seen where these pieces come; `early` comes before anything was asked."""
        here, there = socket.socketpair()
        transport, protocol = await self._loop.create_connection(lambda: ResponseProtocol(self._loop), sock=here)
        kept = Kept(0, 60.0)
        protocol.hold(Connection(self._connector, self._key, protocol, self._loop), kept)
        if early:
            protocol.data_received(early)
        response = protocol.begin(method, self._loop.time() + 60)
        body, how = response.take(), WAITING
        for piece in pieces:
            protocol.data_received(piece)
            if response.begun:
                body += response.take()
        if then != OPEN:
            protocol.connection_lost(ConnectionResetError() if then == RESET else None)
        try:
            assert response.take() == b""
            if response.complete:
                response.release()
                how = KEPT if kept.take() is protocol else WHOLE
        except aiohttp.ClientPayloadError:
            how = BROKE_OFF
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            how = LOST
        except aiohttp.ClientError:
            how = NOT_HTTP
        protocol.leave()
        transport.abort()
        there.close()
        lengths = (b"content-length", b"transfer-encoding")
        fields = tuple(field for field in response.raw_headers if field[0].lower() not in lengths)
        return Seen(how, body, response.status, fields, response.reason)


@pytest.fixture
async def connections() -> Connections:
    return Connections()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_seen_in_bytes_however_they_are_cut(case: Said, connections: Connections) -> None:
    data, then, method, seen = case
    assert await connections.seen([data] if data else [], then, method) == seen
    assert await connections.seen((bytes([byte]) for byte in data), then, method) == seen
    for cut in range(1, len(data)):
        assert await connections.seen([data[:cut], data[cut:]], then, method) == seen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(case=st.sampled_from([*CASES.values()]), cuts=st.lists(st.integers(0, 200)))
async def test_and_if_they_are_cut_in_many_places(case: Said, cuts: list[int], connections: Connections) -> None:
    data, then, method, seen = case
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert await connections.seen(pieces, then, method) == seen


async def test_what_is_said_before_anything_is_asked_is_the_answer(connections: Connections) -> None:
    """So a server refuses that has no time for more."""
    data, then, method, seen = CASES["a length"]
    for cut in range(1, len(data) + 1):
        assert await connections.seen(filter(None, [data[cut:]]), then, method, early=data[:cut]) == seen


def piecewise(data: bytes) -> list[bytes]:
    return [data[start : start + 1000] for start in range(0, len(data), 1000)]


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"a" * LONGEST_HEAD + b"\r\n",
        b"X-Long: " + b"a" * 4 * LONGEST_HEAD,
        b"X-Many: 1\r\n" * LONGEST_HEAD,
    ],
    ids=["one header", "a header without end", "headers without end"],
)
@pytest.mark.parametrize("cut", [piecewise, lambda data: [data]], ids=["in pieces", "at once"])
async def test_a_head_may_not_be_of_any_length(
    head: bytes, cut: Callable[[bytes], list[bytes]], connections: Connections
) -> None:
    assert await connections.seen(cut(OK + head), OPEN, "POST") == nothing(NOT_HTTP)


async def test_nor_may_what_stands_between_chunks(connections: Connections) -> None:
    long = b"a" * 2 * LONGEST_HEAD
    for between in (b"3;" + long, b"0\r\nX-Trailer: " + long, b"0\r\n" + b"X-Trailer: 1\r\n" * LONGEST_HEAD):
        seen = await connections.seen(piecewise(CHUNKS + b"3\r\nabc\r\n" + between), OPEN, "POST")
        assert seen == Seen(BROKE_OFF, b"abc")


async def test_many_headers_are_no_fault(connections: Connections) -> None:
    seen = await connections.seen([TWO + b"X-Many: 1\r\n" * 2000 + b"\r\nab"], OPEN, "POST")
    assert len(seen.fields) == 2000


async def ask(client: Client, provider: Provider, limit: float = 5) -> Response:
    return await client.send("tidal", "POST", provider.url, [], b"{}", limit=limit)


async def rest(response: Response) -> bytes:
    """What is still to come of a body; the connection is kept where that is possible."""
    read = b""
    while not response.taken:
        await response.more()
        read += response.take()
    response.release()
    return read


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client(Connecting(), connect_limit=5)
    yield made
    await made.aclose()


async def test_a_body_that_comes_with_its_head_lies_ready(client: Client, provider: Provider) -> None:
    provider.says(document(b"{}"))
    response = await ask(client, provider)
    assert (response.begun, response.complete, response.take()) == (True, True, b"{}")
    response.release()


async def test_a_provider_that_is_faster_than_the_client_has_to_wait(client: Client, provider: Provider) -> None:
    body = bytes(range(256)) * (256 << 10)
    provider.says(document(body))
    response = await ask(client, provider)
    await until(lambda: response.unread > MOST_UNREAD, "as much has come as is kept")
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert response.unread < MOST_UNREAD + (1 << 20)
    assert await rest(response) == body
    assert await rest(await ask(client, provider)) == body
    assert provider.connections == 1


async def test_what_comes_over_a_connection_that_nothing_was_asked_on_is_no_answer(
    client: Client, provider: Provider
) -> None:
    """It might be the end of an answer that was given up, or be meant to be taken for another one."""
    turn, stays = asyncio.Event(), asyncio.Event()
    forged = document(b"forged").pieces
    provider.says(raw(*document(b"first").pieces, turn, *forged, stays), document(b"second"))
    assert await rest(await ask(client, provider)) == b"first"
    turn.set()
    await until(provider.last.left.is_set, "the connection was closed")
    assert await rest(await ask(client, provider)) == b"second"
    assert provider.connections == 2


async def test_a_connection_is_not_kept_for_ever(
    provider: Provider,
) -> None:
    client = Client(Connecting(kept_for=0.2), connect_limit=5)
    provider.says(raw(*document(b"first").pieces, asyncio.Event()), document(b"second"))
    assert await rest(await ask(client, provider)) == b"first"
    await until(provider.last.left.is_set, "the connection was closed")
    assert await rest(await ask(client, provider)) == b"second"


async def test_who_waits_for_a_free_connection_has_a_limit(provider: Provider) -> None:
    """And what could not be connected to does not take the place of others."""
    client = Client(Connecting(per_host=1), connect_limit=5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.send("tidal", "POST", nobody, [], b"{}", limit=5)
    provider.says(raw(asyncio.Event()))
    asked = asyncio.create_task(ask(client, provider))
    await until(lambda: provider.asked, "the first was asked")
    with pytest.raises(NoAnswerError):
        await ask(client, provider, limit=0.2)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    provider.says(document(b"{}"))
    assert await rest(await ask(client, provider)) == b"{}"
    assert len(provider.asked) == 2
    await client.aclose()


async def test_each_answer_has_a_limit_of_its_own(client: Client, provider: Provider) -> None:
    """Whatever the limits of others were that came over the same connection."""
    for earlier in (60, 0.1):
        provider.says(document(b"{}"), raw(asyncio.Event()))
        await rest(await ask(client, provider, limit=earlier))
        before = asyncio.get_running_loop().time()
        with pytest.raises(NoAnswerError):
            await ask(client, provider, limit=0.3)
        assert 0.25 < asyncio.get_running_loop().time() - before < 5


async def test_a_body_may_come_later_than_the_limit_of_its_head(client: Client, provider: Provider) -> None:
    turn = asyncio.Event()
    provider.says(raw(head(200, [("Content-Length", "2")]), turn, b"{}"))
    response = await ask(client, provider, limit=0.1)
    asyncio.get_running_loop().call_later(0.3, turn.set)
    assert await rest(response) == b"{}"


async def test_an_answer_that_nobody_reads_on_may_end(client: Client, provider: Provider) -> None:
    turn = asyncio.Event()
    provider.says(Reply([head(200, [("Content-Length", "9")]), b"some", turn, b" more"]), document(b"second"))
    response = await ask(client, provider)
    response.let_end(60)
    turn.set()
    await until(lambda: response.taken, "it has ended")
    assert await rest(await ask(client, provider)) == b"second"
    assert provider.connections == 1


@pytest.mark.parametrize("end", ["never", "broken"])
async def test_one_that_does_not_loses_its_connection(client: Client, provider: Provider, end: str) -> None:
    pause = [asyncio.Event()] if end == "never" else []
    provider.says(raw(head(200, [("Content-Length", "9")]), b"some", *pause, CLOSE), document(b"second"))
    response = await ask(client, provider)
    response.let_end(0.1 if end == "never" else 60)
    await until(lambda: response._connection is None, "the connection was given up")
    assert await rest(await ask(client, provider)) == b"second"
    assert provider.connections == 2
