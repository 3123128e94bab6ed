"""Reaching a provider: connections, time limits, and what a fault is called."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from msgspec.structs import replace

from aibridge.errors import Fault, Kind
from aibridge.upstream.upstream import Answer, TimeLimits, Upstream, UpstreamRequest
from support.provider import CLOSE, Provider, chunked, document, events, head, raw
from support.waiting import until


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream(TimeLimits(connect=5, first_byte=0.3, idle=0.3, keep_alive=0.05))
    yield made
    await made.aclose()


def request_to(url: str, body: bytes = b"{}") -> UpstreamRequest:
    return UpstreamRequest("tidal", "POST", url, [("X-Api-Key", "sk-secret")], body)


async def whole(answer: Answer) -> bytes:
    pieces = []
    try:
        while not answer.at_end:
            pieces.append(await answer.read())
    finally:
        answer.close()
    return b"".join(pieces)


async def test_an_answer_comes_piece_by_piece(upstream: Upstream, provider: Provider) -> None:
    turn = asyncio.Event()
    provider.says(events(b"one", turn, b"two"))
    answer = await upstream.send(request_to(provider.url))
    assert (answer.status, answer.header(b"content-type")) == (200, "text/event-stream")
    assert await answer.read() == b"one"
    assert not answer.at_end
    turn.set()
    assert await whole(answer) == b"two"


async def test_a_connection_that_was_read_to_its_end_is_used_again(upstream: Upstream, provider: Provider) -> None:
    provider.says(document(b"{}"))
    for _ in range(5):
        await whole(await upstream.send(request_to(provider.url)))
    assert (len(provider.asked), provider.connections) == (5, 1)


async def test_one_that_was_not_is_closed(upstream: Upstream, provider: Provider) -> None:
    provider.says(events(b"one", asyncio.Event()))
    answer = await upstream.send(request_to(provider.url))
    answer.close()
    await until(provider.last.left.is_set, "the connection was closed")


async def test_a_long_body_is_sent_with_its_length(upstream: Upstream, provider: Provider) -> None:
    body = bytes(range(256)) * (10 << 10) + b"end"
    provider.says(document(b"{}"))
    await whole(await upstream.send(request_to(provider.url, body)))
    assert provider.last.body == body
    assert provider.last.header("Content-Length") == str(len(body))


async def test_silence_is_a_fault_that_names_its_limit(upstream: Upstream, provider: Provider) -> None:
    provider.says(raw(asyncio.Event()), events(b"one", asyncio.Event()))
    with pytest.raises(Fault, match=r"first-byte limit of 0\.3 s") as before:
        await upstream.send(request_to(provider.url))
    answer = await upstream.send(request_to(provider.url))
    assert await answer.read() == b"one"
    with pytest.raises(Fault, match=r"idle limit of 0\.3 s") as within:
        await answer.read()
    answer.close()
    assert before.value.kind is within.value.kind is Kind.UPSTREAM_SILENT


async def test_a_connection_has_a_limit_and_so_has_its_handshake(provider: Provider) -> None:
    """The provider is there, but does not begin to speak TLS."""
    upstream = Upstream(TimeLimits(connect=0.2))
    provider.says(raw(asyncio.Event()))
    with pytest.raises(Fault, match=r"could not be reached within the connect limit of 0\.2 s") as raised:
        await upstream.send(request_to(provider.url.replace("http:", "https:")))
    await upstream.aclose()
    assert raised.value.kind is Kind.UPSTREAM_FAULT


DOCUMENT, STREAM = "application/json", "text/event-stream"


@pytest.mark.parametrize(
    ("kind", "limits", "named"),
    [
        (DOCUMENT, TimeLimits(whole=0.3), "whole limit of 0.3 s"),
        (DOCUMENT, TimeLimits(whole=0), None),
        (STREAM, TimeLimits(whole=0.3), None),
        (STREAM, TimeLimits(whole_stream=0.3, keep_alive=0), "whole limit of 0.3 s"),
        (STREAM, TimeLimits(whole_stream=0.3, keep_alive=0.05), "whole limit of 0.3 s"),
    ],
)
async def test_a_whole_answer_has_a_limit(kind: str, limits: TimeLimits, named: str | None, provider: Provider) -> None:
    """However busy the provider is with it: a piece comes every 50 ms, the last one after half a second."""
    turns = [asyncio.Event() for _ in range(10)]
    loop = asyncio.get_running_loop()
    provider.says(chunked([b"one", *(it for turn in turns for it in (turn, b"more"))], [("Content-Type", kind)]))
    upstream = Upstream(limits)
    answer = await upstream.send(request_to(provider.url))
    answer.on_silence(_nothing)
    for number, turn in enumerate(turns, 1):
        loop.call_later(number * 0.05, turn.set)
    if named:
        with pytest.raises(Fault, match=named) as raised:
            await whole(answer)
        assert raised.value.kind is Kind.UPSTREAM_SILENT
    else:
        assert await whole(answer) == b"one" + 10 * b"more"
    await upstream.aclose()


async def _nothing() -> None: ...


@pytest.mark.parametrize(("streams", "named"), [(False, "whole limit of 0.2 s"), (True, "first-byte limit of 0.4 s")])
async def test_the_whole_limit_may_be_less_than_that_of_the_first_byte(
    streams: bool, named: str, provider: Provider
) -> None:
    upstream = Upstream(TimeLimits(first_byte=0.4, whole=0.2))
    provider.says(raw(asyncio.Event()))
    with pytest.raises(Fault, match=f"tidal sent no byte within the {named}"):
        await upstream.send(replace(request_to(provider.url), streams=streams))
    await upstream.aclose()


async def test_a_provider_may_have_limits_of_its_own(provider: Provider) -> None:
    upstream = Upstream(TimeLimits(first_byte=30), limits_of={"tidal": TimeLimits(first_byte=0.2)})
    provider.says(raw(asyncio.Event()))
    with pytest.raises(Fault, match=r"tidal sent no byte within the first-byte limit of 0\.2 s"):
        await upstream.send(request_to(provider.url))
    await upstream.aclose()


async def test_silence_is_told_as_often_as_it_is_asked_for(upstream: Upstream, provider: Provider) -> None:
    turn = asyncio.Event()
    told: list[float] = []

    async def tell() -> None:
        told.append(asyncio.get_running_loop().time())
        if len(told) == 3:
            turn.set()

    provider.says(events(b"one", turn, b"two"))
    answer = await upstream.send(request_to(provider.url))
    answer.on_silence(tell)
    assert await whole(answer) == b"onetwo"
    gaps = [after - before for before, after in pairwise(told)]
    assert all(0.04 < gap < 0.2 for gap in gaps)


async def test_who_is_slow_to_read_is_not_taken_for_a_silent_provider(upstream: Upstream, provider: Provider) -> None:
    """The limit is for waiting on the provider, not for waiting on the client."""
    turn = asyncio.Event()
    provider.says(events(b"one", turn, b"two"))
    answer = await upstream.send(request_to(provider.url))
    assert await answer.read() == b"one"
    await asyncio.sleep(0.5)
    turn.set()
    assert await whole(answer) == b"two"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "closed the connection before its answer was complete"),
        (b"ICY 200 OK\r\n\r\n", "did not answer in HTTP"),
        (head(200, [("Content-Length", "5")]) + b"abc", "broke off"),
        (head(200, [("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n", "broke off"),
    ],
)
async def test_what_goes_wrong_has_a_name(said: bytes, told: str, upstream: Upstream, provider: Provider) -> None:
    provider.says(raw(said) if said else raw(CLOSE))
    with pytest.raises(Fault, match=told) as raised:
        await whole(await upstream.send(request_to(provider.url)))
    assert raised.value.kind is Kind.UPSTREAM_FAULT
    assert "tidal" in raised.value.message


async def test_chunks_that_can_not_be_read_end_the_answer(provider: Provider) -> None:
    """At once, and not when it has been silent for minutes."""
    turn = asyncio.Event()
    provider.says(raw(head(200, [("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n", turn, b"nonsense\r\n"))
    upstream = Upstream(TimeLimits(idle=600))
    answer = await upstream.send(request_to(provider.url))
    assert await answer.read() == b"abc"
    turn.set()
    with pytest.raises(Fault, match="broke off"):
        async with asyncio.timeout(5):
            await answer.read()
    answer.close()
    await upstream.aclose()


async def test_a_provider_that_is_not_there(upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Fault, match="tidal could not be reached: Connection refused"):
        await upstream.send(request_to(nobody))


async def test_a_provider_without_tls_where_it_was_due(upstream: Upstream) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(400, [("Content-Length", "0")]))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Fault, match="no secure connection to tidal"):
            await upstream.send(request_to(f"https://127.0.0.1:{port}"))


def test_a_request_shows_no_secret_when_it_is_printed() -> None:
    shown = repr(request_to("http://127.0.0.1", b'{"prompt": "private"}'))
    assert "sk-secret" not in shown
    assert "private" not in shown
