"""What went wrong with a server, in words that may be shown: no text of the server's, which might hold a secret."""

from __future__ import annotations

import aiohttp
from mcp import MCPError
from mcp.client.auth import OAuthFlowError

from aibridge.http_client.response import NoAnswerError


class ConnectionEnded(Exception):
    """The server ended the connection."""


class Unavailable(Exception):
    """There is no connection to a server at present; the message says why."""


def reason(fault: BaseException, refused_with: int | None = None) -> str:
    """Why a connection failed; `refused_with` is the HTTP status of the last answer, where it was an error."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    if isinstance(fault, OAuthFlowError):
        return f"the authorization server gave no token ({type(fault).__name__})"
    if refused_with in (401, 403):
        return f"the server answered HTTP {refused_with}: see whether its headers or its oauth settings are right"
    if refused_with is not None:
        return f"the server answered HTTP {refused_with}"
    match fault:
        case ConnectionEnded():
            return "the server ended the connection"
        case TimeoutError() | NoAnswerError():
            return "the server did not answer in time"
        case aiohttp.ClientSSLError():
            return "there is no secure connection to the server: see whether upstream.ca_file names its authority"
        case aiohttp.ClientHttpProxyError(status=status):
            return f"the proxy before the server refused to connect ({status})"
        case aiohttp.ClientProxyConnectionError():
            return "the proxy before the server can not be reached"
        case aiohttp.ClientConnectorError():
            return "the server can not be reached"
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            return "the server closed the connection"
        case aiohttp.ClientError():
            return "the server does not answer in HTTP"
        case OSError(strerror=str(text)):
            return f"the command can not be started: {text}"
        case MCPError(code=code):
            return f"the server answered with the MCP error {code}"
        case _:
            return type(fault).__name__
