"""The head of an answer waits for the beginning of its body, but for nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from aibridge.server.held_head import HeldHead

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
async def ends() -> AsyncIterator[tuple[HeldHead, socket.socket]]:
    """A transport within the gateway, and the client at its other end."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    yield HeldHead(transport, loop), theirs
    transport.abort()
    theirs.close()


def received(client: socket.socket) -> bytes:
    try:
        return client.recv(1000)
    except BlockingIOError:
        return b""


async def test_a_head_and_its_body_come_together(ends: tuple[HeldHead, socket.socket]) -> None:
    gateway, client = ends
    gateway.write(HEAD)
    assert received(client) == b""
    gateway.write(b"body")
    assert received(client) == HEAD + b"body"
    gateway.write(b"more")
    assert received(client) == b"more"


async def test_a_head_whose_body_is_not_there_yet_goes_alone(ends: tuple[HeldHead, socket.socket]) -> None:
    gateway, client = ends
    gateway.write(HEAD)
    await asyncio.sleep(0)
    assert received(client) == HEAD
    gateway.write(b"body")
    assert received(client) == b"body"


async def test_a_body_that_looks_like_a_head_is_sent_all_the_same(ends: tuple[HeldHead, socket.socket]) -> None:
    gateway, client = ends
    for piece in (HEAD, HEAD, HEAD):
        gateway.write(piece)
    await asyncio.sleep(0)
    assert received(client) == 3 * HEAD


async def test_what_is_held_is_sent_before_the_connection_closes(ends: tuple[HeldHead, socket.socket]) -> None:
    gateway, client = ends
    gateway.write(HEAD)
    gateway.close()
    await asyncio.sleep(0)
    assert (received(client), received(client)) == (HEAD, b"")
    await asyncio.sleep(0)
    assert gateway.is_closing()
