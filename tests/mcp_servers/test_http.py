"""How servers with a URL are reached: by which connections and proxies, trusting whom, and what is asked again."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from aibridge.http_client.connecting import Connecting, Proxies
from aibridge.mcp.config import ServerConfig
from aibridge.mcp.servers import ToolServers
from aibridge.mcp.toolbox import Outcome
from aibridge.server.connecting import connecting_tools
from aibridge.server.settings import MCPServer, Upstream
from aibridge.wire.tools import TextPart
from support.proxy import Proxy

from .conftest import ADA, until
from .legacy_server import LegacyServer, text

Start = Callable[..., Awaitable[ToolServers]]


async def call(servers: ToolServers, name: str, arguments: str = "{}") -> Outcome:
    return await servers.call(servers.catalogue().tools[f"bmcp_old_{name}"], arguments, ADA)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_in_a_row_go_over_one_connection(start: Start, legacy: LegacyServer, stream: bool) -> None:
    clients: list[Any] = []

    async def note(_: dict[str, Any], request: web.Request) -> Any:
        assert request.transport
        clients.append(request.transport.get_extra_info("peername"))
        return text("noted")

    legacy.tools = {"note": note}
    legacy.answers_as_stream = stream
    servers = await start(ServerConfig(name="old", url=legacy.url))
    for _ in range(5):
        assert (await call(servers, "note")).error is None
        await until(lambda: not legacy.running)
    assert len(set(clients)) <= 2  # the server may take a moment to end its stream


async def test_arguments_of_any_size_are_sent(start: Start, legacy: LegacyServer) -> None:
    servers = await start(ServerConfig(name="old", url=legacy.url))
    sent = json.dumps({"text": "x" * 3_000_000})
    outcome = await call(servers, "echo", sent)
    assert outcome.error is None
    assert isinstance(outcome.result.parts[0], TextPart)
    assert outcome.result.parts[0].text.startswith(sent[:1000])


async def test_a_cookie_of_the_server_or_what_stands_before_it_is_sent_back(start: Start, legacy: LegacyServer) -> None:
    """A load balancer may know by it where the session is."""
    cookies: list[str | None] = []

    async def note(_: dict[str, Any], request: web.Request) -> Any:
        cookies.append(request.headers.get("cookie"))
        answered = {"jsonrpc": "2.0", "id": (await request.json())["id"], "result": text("noted")}
        response = web.json_response(answered)
        response.headers.add("set-cookie", f"node=n{len(cookies)}; Path=/")
        response.headers.add("set-cookie", "elsewhere=1; Path=/other")
        return response

    legacy.tools = {"note": note}
    url = legacy.url.replace("127.0.0.1", "localhost")  # there are no cookies of addresses
    servers = await start(ServerConfig(name="old", url=url))
    for _ in range(3):
        assert (await call(servers, "note")).error is None
    assert cookies == [None, "node=n1", "node=n2"]


async def test_headers_of_the_settings_stand_for_the_usual_ones(start: Start, legacy: LegacyServer) -> None:
    told: list[tuple[list[str], list[str]]] = []

    async def note(_: dict[str, Any], request: web.Request) -> Any:
        told.append((request.headers.getall("user-agent"), request.headers.getall("accept")))
        return text("noted")

    legacy.tools = {"note": note}
    headers = {"user-agent": "tides/1", "accept": "of the session, this is"}
    servers = await start(ServerConfig(name="old", url=legacy.url, headers=headers))
    assert (await call(servers, "note")).error is None
    assert told == [(["tides/1"], ["application/json, text/event-stream"])]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_be_packed(start: Start, legacy: LegacyServer, stream: bool) -> None:
    async def much(_: dict[str, Any], request: web.Request) -> Any:
        assert "gzip" in request.headers["accept-encoding"]
        answered = json.dumps({"jsonrpc": "2.0", "id": (await request.json())["id"], "result": text("much " * 10_000)})
        told, kind = (f"data: {answered}\n\n", "text/event-stream") if stream else (answered, "application/json")
        return web.Response(
            body=gzip.compress(told.encode()), headers={"content-type": kind, "content-encoding": "gzip"}
        )

    legacy.tools = {"much": much}
    servers = await start(ServerConfig(name="old", url=legacy.url))
    assert (await call(servers, "much")).result.parts == (TextPart("much " * 10_000),)


async def test_one_that_can_not_be_unpacked_is_a_fault(start: Start, legacy: LegacyServer) -> None:
    async def much(_: dict[str, Any], request: web.Request) -> Any:
        coding = "gzip" if (await request.json())["params"]["arguments"] else "compress"
        return web.Response(body=b"{}", headers={"content-type": "application/json", "content-encoding": coding})

    legacy.tools = {"much": much}
    servers = await start(ServerConfig(name="old", url=legacy.url))
    for arguments in ("{}", '{"known": true}'):
        assert (await call(servers, "much", arguments)).error == (
            "the tool could not be called: the server closed the connection"
        )


# Streams that end before the answer


class Halting:
    """A tool whose stream ends after its first event; the rest is given to who asks for it with that one's id."""

    def __init__(self, legacy: LegacyServer, *, resumable: bool = True) -> None:
        self.asked_again: list[str] = []
        self._resumable = resumable
        self._message = b""
        legacy.tools["halt"] = self.halt
        legacy.get = self.get

    async def halt(self, _: dict[str, Any], request: web.Request) -> Any:
        asked = await request.json()
        self._message = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": text("whole")}).encode()
        place = b"id: first\n" if self._resumable else b""
        return web.Response(body=place + b"retry: 10\ndata:\n\n", content_type="text/event-stream")

    async def get(self, request: web.Request) -> web.StreamResponse | None:
        if not (place := request.headers.get("last-event-id")):
            return None
        self.asked_again.append(place)
        if len(self.asked_again) == 1:
            return web.Response(status=503)
        return web.Response(
            body=b"event: message\r\ndata: " + self._message + b"\r\n\r\n", content_type="text/event-stream"
        )


async def test_a_stream_that_ends_early_is_resumed(start: Start, legacy: LegacyServer) -> None:
    halting = Halting(legacy)
    servers = await start(ServerConfig(name="old", url=legacy.url))
    outcome = await call(servers, "halt")
    assert (outcome.error, outcome.result.parts) == (None, (TextPart("whole"),))
    assert halting.asked_again == ["first", "first"]


async def test_one_that_can_not_be_resumed_is_a_fault(start: Start, legacy: LegacyServer) -> None:
    halting = Halting(legacy, resumable=False)
    servers = await start(ServerConfig(name="old", url=legacy.url))
    outcome = await call(servers, "halt")
    assert outcome.error == "the tool could not be called: the server ended the stream without an answer"
    assert halting.asked_again == []


async def test_a_server_that_says_nothing_unasked_is_kept(start: Start, legacy: LegacyServer) -> None:
    asked = 0

    async def nothing_here(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=404)

    legacy.get = nothing_here
    servers = await start(ServerConfig(name="old", url=legacy.url))
    await until(lambda: asked)
    assert (await call(servers, "echo")).error is None
    assert servers.states[0].connected
    assert asked == 1


# Redirects


@asynccontextmanager
async def redirecting(to: str) -> AsyncIterator[tuple[str, list[str]]]:
    """The URL of a server that redirects to another place, and the paths that it was asked for."""
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"location": to})

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", redirect)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp", asked
    await runner.cleanup()


async def test_a_redirect_to_the_same_server_is_followed(start: Start, legacy: LegacyServer) -> None:
    legacy.refuse = lambda request: (
        web.Response(status=308, headers={"location": "/mcp?at=last"}) if not request.query else None
    )
    servers = await start(ServerConfig(name="old", url=legacy.url))
    assert (await call(servers, "echo")).error is None


async def test_a_redirect_to_another_is_not(start: Start, legacy: LegacyServer) -> None:
    headers: list[Any] = []
    legacy.refuse = lambda request: headers.append(request.headers)
    async with redirecting(legacy.url) as (url, asked):
        servers = await start(ServerConfig(name="old", url=url, headers={"Authorization": "Bearer s3cret"}), wait=False)
        await until(lambda: servers.states[0].error)
    assert asked
    assert headers == []
    assert servers.states[0].error == "the server answered with the MCP error -32902"


# Proxies and trust


async def test_a_server_is_reached_by_the_proxy_that_is_set(start: Start, legacy: LegacyServer) -> None:
    async with Proxy(everything_is=("127.0.0.1", legacy.port)) as proxy:
        connecting = Connecting(proxies=Proxies(http=proxy.url))
        servers = await start(ServerConfig(name="old", url="http://tickets.example/mcp"), connecting=connecting)
        assert (await call(servers, "echo")).error is None
        assert proxy.asked[0] == "POST http://tickets.example/mcp HTTP/1.1"
        await servers.aclose()


async def test_a_proxy_that_does_not_connect_is_told(start: Start) -> None:
    async with Proxy(password="s3cret") as proxy:
        connecting = Connecting(proxies=Proxies(https=proxy.url))
        servers = await start(
            ServerConfig(name="old", url="https://tickets.example/mcp"), connecting=connecting, wait=False
        )
        await until(lambda: servers.states[0].error)
        assert servers.states[0].error == "the proxy before the server refused to connect (407)"
        await servers.aclose()


async def test_an_authority_of_ones_own_is_trusted_where_the_settings_name_it(
    start: Start, legacy: LegacyServer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    legacy.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(legacy.tls)
    await legacy.stop()
    await legacy.start()
    config, server = ServerConfig(name="old", url=legacy.url), MCPServer(name="old", url=legacy.url)

    trusting = await start(config, connecting=connecting_tools(Upstream(ca_file=file), [server]))
    assert (await call(trusting, "echo")).error is None

    others = await start(config, connecting=connecting_tools(Upstream(), [server]), wait=False)
    await until(lambda: others.states[0].error)
    assert others.states[0].error == (
        "there is no secure connection to the server: see whether upstream.ca_file names its authority"
    )
