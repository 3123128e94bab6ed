"""The yardstick: a bare pass-through on the gateway's own stack, which understands nothing and records nothing."""

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import uvicorn
import uvloop
from yarl import URL

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding"}
NOT_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


async def relay(
    session: aiohttp.ClientSession,
    upstream: str,
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The ASGI application: the request's body is read whole, the answer is passed on chunk by chunk."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name not in NOT_FORWARDED]
    url = URL(upstream + scope["raw_path"].decode(), encoded=True)
    async with session.request(scope["method"], url, headers=headers, data=b"".join(parts) or None) as answer:
        passed = [(name, value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status, "headers": passed})
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def serve(port: int, upstream: str) -> None:
    """Serve on 127.0.0.1 until told to stop."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=NOT_ADDED,
    ) as session:
        app = partial(relay, session, upstream)
        await uvicorn.Server(
            uvicorn.Config(
                app,
                port=port,
                interface="asgi3",
                http="httptools",
                ws="none",
                lifespan="off",
                proxy_headers=False,
                access_log=False,
                log_level="warning",
                timeout_graceful_shutdown=1,
            )
        ).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="base URL, such as http://127.0.0.1:9000")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.upstream))
