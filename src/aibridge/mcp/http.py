"""The HTTP client of one MCP session: it authorises requests, and knows the proxies and whom to trust."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from aibridge.mcp.config import Reaching, ServerConfig
from aibridge.mcp.oauth import authorization

_IDLE = 4.0
"""Seconds for which a connection is kept that nothing is asked on; servers tend to close theirs after five."""
_LINGER = 2.0
"""Seconds that an answer may take to end once what was wanted of it is there."""
_MOST_REDIRECTS = 5
_LARGE = 2**20
"""Bytes; of a body larger than this, aiohttp wants to be given a file."""
_LONGEST_HEADER = 64 << 10
_LARGEST_TOKEN = 2**20
"""Bytes that an authorization server may answer."""
_OF_THE_WIRE = ("host", "content-length", "connection", "accept-encoding")
"""Headers that whoever sends a request decides about."""


class SessionClient:
    """Sends the requests of one session.

    `patience` is in seconds: how long it may take to connect, and how long a server may be silent where it is not said
    otherwise.
    """

    def __init__(self, config: ServerConfig, reaching: Reaching, patience: float) -> None:
        assert config.url
        self.url = URL(config.url)
        self.refused_with: int | None = None
        """The HTTP status of the last answer to a message, where it was an error."""
        self._headers = CIMultiDict({"User-Agent": f"aibridge/{version('aibridge')}"})
        self._headers.update(config.headers)
        self._authorization = authorization(config)
        self._proxy_of = reaching.proxy_of
        self._patience = patience
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE, ssl=reaching.tls or True),
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )
        self._left: set[aiohttp.ClientResponse] = set()  # whose end is still to come

    async def aclose(self) -> None:
        """Close every connection."""
        for answer in [*self._left]:
            self._close(answer)
        await self._http.close()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        may_be_silent: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to the server, and have its answer until this is left.

        The connection of an answer that was not read to its end is used again if the rest comes soon; in case of a
        fault it is closed. Raises `aiohttp.ClientError`, and `OAuthFlowError` where there is no token to be had.
        """
        every = self._headers.copy()
        every.update(headers)
        limits = aiohttp.ClientTimeout(connect=self._patience, sock_read=None if may_be_silent else self._patience)
        send = self._send if self._authorization is None else self._send_authorised
        answer = await send(method, url, every, body, limits)
        try:
            yield answer
        except BaseException:
            answer.close()
            raise
        if not answer.closed:
            self._leave(answer)

    def _leave(self, answer: aiohttp.ClientResponse) -> None:
        """Let an answer end by itself, and so its connection be used again; one that does not is closed."""
        limit = asyncio.get_running_loop().call_later(_LINGER, self._close, answer)

        def ended() -> None:
            limit.cancel()
            self._left.discard(answer)

        self._left.add(answer)
        answer.content.on_eof(ended)

    def _close(self, answer: aiohttp.ClientResponse) -> None:
        answer.close()
        self._left.discard(answer)

    async def _send_authorised(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send a request as often as it takes, and what has to be asked of others in between."""
        assert self._authorization
        asked = httpx2.Request(method, str(url), headers=list(headers.items()))
        flow = self._authorization.async_auth_flow(asked)
        answer = None
        try:
            request = await anext(flow)
            while True:
                if request is asked:
                    if answer:
                        answer.close()
                    if credential := asked.headers.get("Authorization"):
                        headers["Authorization"] = credential
                    answer = await self._send(method, url, headers, body, limits)
                    told = httpx2.Response(answer.status, headers=list(answer.headers.items()), request=asked)
                else:
                    told = await self._asked_of_others(request)
                request = await flow.asend(told)
        except StopAsyncIteration:
            assert answer
            return answer
        except BaseException:
            if answer:
                answer.close()
            raise
        finally:
            await flow.aclose()

    async def _asked_of_others(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to a request that fetches a token, or leads to one."""
        headers = CIMultiDict((name, told) for name, told in request.headers.items() if name not in _OF_THE_WIRE)
        limits = aiohttp.ClientTimeout(total=self._patience)
        answer = await self._send(request.method, URL(str(request.url)), headers, request.content or None, limits)
        try:
            body = await read_up_to(answer, _LARGEST_TOKEN)
        finally:
            answer.close()
        told = [(name, value) for name, value in answer.headers.items() if name.lower() != "content-encoding"]
        return httpx2.Response(answer.status, headers=told, content=body or b"", request=request)

    async def _send(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send a request, and again where it is redirected to within its origin: what it holds is for that one."""
        redirects = 0
        while True:
            answer = await self._http.request(
                method,
                url,
                headers=headers,
                data=io.BytesIO(body) if body and len(body) > _LARGE else body,
                allow_redirects=False,
                proxy=self._proxy_of(url),
                timeout=limits,
            )
            place = _redirected_to(answer) if answer.status in (301, 302, 303, 307, 308) else None
            if place is None or redirects == _MOST_REDIRECTS:
                return answer
            answer.close()
            url = place
            redirects += 1


async def read_up_to(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body of an answer; None where it is larger than so many bytes. Raises `aiohttp.ClientError`."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > limit:
            answer.close()
            return None
    return bytes(body)


def is_json(answer: aiohttp.ClientResponse) -> bool:
    """It is a document, and may be a message."""
    return answer.content_type == "application/json"


def is_stream(answer: aiohttp.ClientResponse) -> bool:
    """It is a stream of events."""
    return answer.status == 200 and answer.content_type == "text/event-stream"


def _redirected_to(answer: aiohttp.ClientResponse) -> URL | None:
    """Where a request is to go instead; None where it would leave its origin, or be another request."""
    if answer.method != "GET" and answer.status not in (307, 308):
        return None
    try:
        place = answer.url.join(URL(answer.headers.get("Location", "")))
    except ValueError:
        return None
    there, here = (place.scheme, place.host, place.port), (answer.url.scheme, answer.url.host, answer.url.port)
    upgraded = (here[0], here[2], there[0], there[2]) == ("http", 80, "https", 443) and there[1] == here[1]
    if place == answer.url or not (there == here or upgraded) or place.user not in (None, answer.url.user):
        return None
    return place
