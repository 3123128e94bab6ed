"""The gateway as an OAuth client of a server: client credentials, through what the `mcp` package offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx2
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from aibridge.mcp.config import ServerConfig


def authorization(config: ServerConfig) -> httpx2.Auth | None:
    """What authorises the requests to a server; None where its headers do, or nothing."""
    if config.oauth is None:
        return None
    assert config.url
    return _ClientCredentials(
        config.url,
        _InMemory(),
        config.oauth.client_id,
        config.oauth.client_secret,
        issuer=config.oauth.issuer,
    )


class _ClientCredentials(ClientCredentialsOAuthProvider):
    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Use the token while it is good; the provider's own flow lets one request at a time wait for an answer."""
        token = self.context.current_tokens
        if token and self.context.is_token_valid():
            request.headers["Authorization"] = f"Bearer {token.access_token}"
            response = yield request
            if response.status_code not in (401, 403):
                return
        flow = super().async_auth_flow(request)
        try:
            asked = await anext(flow)
            while True:
                asked = await flow.asend((yield asked))
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()


class _InMemory:
    """Keeps the token of one session."""

    def __init__(self) -> None:
        self._token: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._token = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise NotImplementedError("the client is registered already")
