"""A server that is started, and spoken to through its standard input and output.

The transport of the `mcp` package copies all that it has of a message with every piece that comes: a message of 50 MB
keeps the whole process busy for half a minute. This one reads it once, up to a limit.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError

from aibridge.mcp.messages import TOO_LARGE, read_message, too_large, write_message

_PATIENCE = 2.0
"""Seconds for a program to end by itself once its input is closed, and once more after SIGTERM; the specification's
order (https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#shutdown)."""
_EDGE = 200
_ID = re.compile(rb'\A\{"jsonrpc": ?"2\.0", ?"id": ?(\d+),|[,{] ?"id": ?(\d+)(?:, ?"jsonrpc": ?"2\.0")?\}\Z')

_Gone = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


@asynccontextmanager
async def program(
    command: Sequence[str], environment: Mapping[str, str], max_message_size: int
) -> AsyncIterator[TransportStreams]:
    """Start a program, and stop it in the end with whatever it has started itself.

    `max_message_size` is in bytes. What the program writes to its standard error is thrown away, as it may hold
    contents and secrets. Raises `OSError` where it can not be started.
    """
    process = await anyio.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**get_default_environment(), **environment},
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
    outgoing, from_session = anyio.create_memory_object_stream[SessionMessage]()
    try:
        async with to_session, incoming, outgoing, from_session, anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, to_session, max_message_size)
            tasks.start_soon(_write, process.stdin, from_session, to_session)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _read(
    output: ByteReceiveStream, to_session: MemoryObjectSendStream[SessionMessage | Exception], max_size: int
) -> None:
    message = bytearray()
    size = 0
    async with to_session:
        with suppress(*_Gone):
            while True:
                *whole, rest = (await output.receive()).split(b"\n")
                for piece in whole:
                    size += len(piece)
                    _keep(message, piece, max_size)
                    if size > max_size:
                        await to_session.send(_too_large(message, max_size))
                    elif message.strip():
                        await to_session.send(_parsed(message))
                    message.clear()
                    size = 0
                size += len(rest)
                _keep(message, rest, max_size)


def _keep(message: bytearray, piece: bytes, max_size: int) -> None:
    """Add a piece to a message; of one that is too large, its beginning and its end remain."""
    message += piece
    if len(message) > max_size:
        del message[_EDGE:-_EDGE]


def _parsed(line: bytearray) -> SessionMessage | Exception:
    try:
        return SessionMessage(read_message(bytes(line)))
    except ValueError as fault:
        return fault


def _too_large(edges: bytearray, max_size: int) -> SessionMessage:
    """An error in place of an answer, whose id stands at its beginning or at its end."""
    found = _ID.search(edges.strip())
    if not found:
        raise anyio.BrokenResourceError
    error = ErrorData(code=TOO_LARGE, message=too_large(max_size))
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(found[1] or found[2]), error=error))


async def _write(
    standard_input: ByteSendStream,
    from_session: MemoryObjectReceiveStream[SessionMessage],
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    """Send what the session says; a program that takes nothing more is one that has ended."""
    async with from_session, to_session:
        with suppress(*_Gone):
            async for item in from_session:
                await standard_input.send(write_message(item.message) + b"\n")


async def _stop(process: Process) -> None:
    assert process.stdin
    with suppress(*_Gone):
        await process.stdin.aclose()
    await _end_of(process)
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        await _end_of(process)
    _signal(process, signal.SIGKILL)
    with anyio.move_on_after(_PATIENCE):
        await process.aclose()


async def _end_of(process: Process) -> None:
    """Wait for the end. `Process.wait` would also wait for those who hold its pipes."""
    with anyio.move_on_after(_PATIENCE):
        while process.returncode is None:  # noqa: ASYNC110  # nothing tells
            await anyio.sleep(0.01)


def _signal(process: Process, number: int) -> None:
    """To the program and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
