"""A server behind OAuth: the gateway gets a token with its client credentials, and a new one when that is over."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from aibridge.mcp.config import ClientCredentials, ServerConfig
from aibridge.mcp.servers import ToolServers

from .conftest import ADA, until
from .legacy_server import LegacyServer

Start = Callable[..., Awaitable[ToolServers]]
BASIC = "Basic " + base64.b64encode(b"gateway:s3cret").decode()


class AuthorizationServer:
    """Gives `token-1`, `token-2`, … to the client `gateway`, and tells where it does (RFC 9728, RFC 8414)."""

    def __init__(self, protected: LegacyServer) -> None:
        self.given = 0
        self.refuses = False
        self.shown: list[str | None] = []
        """The credentials of the requests to the MCP server."""
        self.told_of_the_team: list[str | None] = []
        """What others than the MCP server saw of a header that is for that one alone."""
        self.url = ""
        self._protected = protected
        protected.refuse = self._refusal

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.shown.append(request.headers.get("authorization"))
        if self.given and request.headers.get("authorization") == f"Bearer token-{self.given}":
            return None
        told = f'Bearer resource_metadata="{self.url}/resource"'
        return web.Response(status=401, headers={"www-authenticate": told})

    async def resource(self, request: web.Request) -> web.Response:
        self.told_of_the_team.append(request.headers.get("x-team"))
        return web.json_response({"resource": self._protected.url, "authorization_servers": [self.url]})

    async def metadata(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["code"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def token(self, request: web.Request) -> web.Response:
        self.told_of_the_team.append(request.headers.get("x-team"))
        asked = await request.post()
        if self.refuses:
            return web.json_response({"error": "invalid_client", "error_description": "no longer welcome"}, status=401)
        if request.headers.get("authorization") != BASIC or asked["grant_type"] != "client_credentials":
            return web.json_response({"error": "invalid_client"}, status=401)
        self.given += 1
        return web.json_response({"access_token": f"token-{self.given}", "token_type": "Bearer", "expires_in": 3600})


@pytest.fixture
async def authorization(legacy: LegacyServer) -> AsyncIterator[AuthorizationServer]:
    server = AuthorizationServer(legacy)
    app = web.Application()
    app.add_routes(
        [
            web.get("/resource", server.resource),
            web.get("/.well-known/oauth-authorization-server", server.metadata),
            web.post("/token", server.token),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def config(legacy: LegacyServer, authorization: AuthorizationServer, secret: str) -> ServerConfig:
    oauth = ClientCredentials(client_id="gateway", client_secret=secret, issuer=authorization.url)
    headers = {"X-Team": "s3cret", "Authorization": "Bearer of-the-settings"}
    return ServerConfig(name="old", url=legacy.url, oauth=oauth, headers=headers)


async def test_a_token_is_fetched_used_and_renewed(
    start: Start, legacy: LegacyServer, authorization: AuthorizationServer
) -> None:
    servers = await start(config(legacy, authorization, "s3cret"))
    echo = servers.catalogue().tools["bmcp_old_echo"]
    assert (await servers.call(echo, "{}", ADA)).error is None
    assert authorization.given == 1
    assert authorization.shown[:2] == [None, "Bearer token-1"]
    assert authorization.told_of_the_team == [None, None]

    authorization.given = 2  # the token that the gateway has is good no more

    assert (await servers.call(echo, "{}", ADA)).error is None
    assert authorization.given == 3


async def test_a_token_that_can_not_be_renewed_costs_the_call(
    start: Start, legacy: LegacyServer, authorization: AuthorizationServer
) -> None:
    servers = await start(config(legacy, authorization, "s3cret"))
    echo = servers.catalogue().tools["bmcp_old_echo"]
    authorization.given = 2  # the token that the gateway has is good no more
    authorization.refuses = True

    outcome = await servers.call(echo, "{}", ADA)

    assert outcome.error
    assert outcome.error.startswith("the tool could not be called: the authorization server gave no token")
    assert "no longer welcome" not in outcome.error


async def test_wrong_credentials_are_told_without_showing_them(
    start: Start, legacy: LegacyServer, authorization: AuthorizationServer, caplog: pytest.LogCaptureFixture
) -> None:
    servers = await start(config(legacy, authorization, "wr0ng"), wait=False)
    await until(lambda: servers.states[0].error)
    assert servers.states[0].error
    assert servers.states[0].error.startswith("the authorization server gave no token")
    assert "wr0ng" not in caplog.text + repr(servers.states)
