"""The parts of ASGI that the bridge speaks (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from aibridge.errors import Fault, Kind

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INTERCEPTION_ID = b"x-aibridge-interception-id"


class ClientLeft(Exception):
    """The client closed its connection."""


async def read_body(receive: Receive, declared: bytes, limit: int) -> bytes:
    """The whole body of a request, `declared` to be so many bytes long.

    Raises `Fault` (BODY_TOO_LARGE) over `limit` bytes, and `ClientLeft`.
    """
    if declared.isdigit() and int(declared) > limit:
        raise body_too_large(limit)
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece = message.get("body", b"")
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise body_too_large(limit)
        more = message.get("more_body", False)
    return b"".join(pieces)  # a single piece is not copied


def body_too_large(limit: int) -> Fault:
    """The fault of a body over `limit` bytes."""
    return Fault(Kind.BODY_TOO_LARGE, f"the request body is larger than the {limit} bytes allowed")


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    """Send a whole answer of the gateway's own; a `HEAD` request's has no body."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, fault: Fault, body: bytes, interception_id: str) -> None:
    """Answer with a fault, told in `body` in the client's own dialect."""
    headers = [(b"content-type", b"application/json"), (INTERCEPTION_ID, interception_id.encode())]
    if fault.retry_after is not None:
        headers.append((b"retry-after", str(fault.retry_after).encode()))
    if fault.kind is Kind.WEBSOCKET_NOT_SERVED:
        headers.append((b"upgrade", b"HTTP/1.1"))  # RFC 9110, 15.5.22: what is served instead
    await answer(send, fault.said.status, headers, body)
