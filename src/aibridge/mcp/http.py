"""The HTTP client of one MCP session: it authorises requests, and knows the proxies and whom to trust."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from aibridge.http_client.client import Client
from aibridge.http_client.connecting import Connecting
from aibridge.http_client.response import NoAnswerError, Response
from aibridge.mcp.config import ServerConfig
from aibridge.mcp.oauth import authorization
from aibridge.wire.content_coding import CodingError, decoder_for

_IDLE = 4.0
"""Seconds for which a connection is kept that nothing is asked on; servers tend to close theirs after five."""
_LINGER = 2.0
"""Seconds that an answer may take to end once what was wanted of it is there."""
_MOST_REDIRECTS = 5
_LARGEST_TOKEN = 2**20
"""Bytes that an authorization server may answer."""
_OF_THE_SESSION = (
    *("accept", "accept-encoding", "content-type", "last-event-id"),
    *("mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"),
)
"""Headers that the protocol decides about."""
_OF_THE_WIRE = ("content-length", "connection", "transfer-encoding")
"""Headers that whoever sends a request decides about."""


class Answer:
    """What a server answers; it is read once, in pieces.

    `silence` is in seconds: how long it may take until something comes; None for any time.
    """

    def __init__(self, response: Response, method: str, url: URL, silence: float | None) -> None:
        self.method, self.url = method, url
        self.status = response.status
        self._response = response
        self._silence = silence
        self._headers = {name.lower(): value for name, value in reversed(response.raw_headers)}
        self._decoder = None
        self._unpacked: Iterator[bytes] = iter(())
        if coding := self.header("content-encoding"):
            try:
                self._decoder = decoder_for(coding)
            except CodingError as error:
                response.close()
                raise _unreadable(error) from None

    @property
    def ok(self) -> bool:
        """It is no error."""
        return self.status < 400

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()

    def header(self, name: str) -> str:
        """The first header of a name, given in lower case; empty where there is none."""
        return self._headers.get(name.encode(), b"").decode("latin-1")

    def headers(self) -> list[tuple[str, str]]:
        """All headers."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._response.raw_headers]

    async def piece(self) -> bytes:
        """More of the body; empty at its end.

        Raises `aiohttp.ClientError` where it breaks off, can not be unpacked, or the server is silent for too long.
        """
        while True:
            try:
                if piece := next(self._unpacked, b""):
                    return piece
            except CodingError as error:
                raise _unreadable(error) from None
            if self._silence is None:
                await self._response.more()
            else:
                try:
                    async with asyncio.timeout(self._silence):
                        await self._response.more()
                except TimeoutError:
                    raise NoAnswerError from None
            data = self._response.take()
            if self._decoder is None or not data:
                return data
            self._unpacked = self._decoder.feed(data)

    def leave(self) -> None:
        """Nobody reads on; the connection is used again if the rest comes soon."""
        self._response.let_end(_LINGER)

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


def _unreadable(error: CodingError) -> aiohttp.ClientError:
    return aiohttp.ClientPayloadError(str(error))


class SessionClient:
    """Sends the requests of one session.

    `patience` is in seconds: how long it may take to connect, and how long a server may be silent where it is not said
    otherwise.
    """

    def __init__(self, config: ServerConfig, connecting: Connecting, patience: float) -> None:
        assert config.url
        self.url = URL(config.url)
        self.refused_with: int | None = None
        """The HTTP status of the last answer to a message, where it was an error."""
        self._peer = config.name
        self._patience = patience
        self._authorization = authorization(config)
        connecting = replace(connecting, per_host=0, kept_for=_IDLE)
        usual = CIMultiDict({"User-Agent": f"aibridge/{version('aibridge')}", "Accept-Encoding": "gzip, deflate"})
        decided = {*_OF_THE_SESSION, *_OF_THE_WIRE, *(["authorization"] if config.oauth else [])}
        every = usual.copy()
        every.update((name, value) for name, value in config.headers.items() if name.lower() not in decided)
        self._client = Client(connecting, patience, every)
        self._for_others = Client(connecting, patience, usual)  # who must not see what is for the server
        self._cookies = aiohttp.CookieJar()  # by which a load balancer may know the session

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        await self._for_others.aclose()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        may_be_silent: bool = False,
    ) -> AsyncIterator[Answer]:
        """Send a request to the server, and have its answer until this is left.

        The connection of an answer that was not read to its end is used again if the rest comes soon; in case of a
        fault it is closed. Raises `aiohttp.ClientError`, and `OAuthFlowError` where there is no token to be had.
        """
        silence = None if may_be_silent else self._patience
        if self._authorization:
            answer = await self._send_authorised(method, url, headers, body, silence)
        else:
            answer = await self._send(self._client, method, url, headers, body, silence)
        try:
            yield answer
        except BaseException:
            answer.close()
            raise
        answer.leave()

    async def _send_authorised(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes, silence: float | None
    ) -> Answer:
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
                        headers = {**headers, "Authorization": credential}
                    answer = await self._send(self._client, method, url, headers, body, silence)
                    told = httpx2.Response(answer.status, headers=answer.headers(), request=asked)
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
        decided = {"host", "accept-encoding", "user-agent", *_OF_THE_WIRE}
        headers = {name: told for name, told in request.headers.items() if name.lower() not in decided}
        asked = request.method, URL(str(request.url)), headers, request.content
        try:
            async with asyncio.timeout(self._patience):
                answer = await self._send(self._for_others, *asked, self._patience)
                try:
                    body = await read_up_to(answer, _LARGEST_TOKEN)
                finally:
                    answer.close()
        except TimeoutError:
            raise NoAnswerError from None
        told = [(name, value) for name, value in answer.headers() if name.lower() != "content-encoding"]
        return httpx2.Response(answer.status, headers=told, content=body or b"", request=request)

    async def _send(
        self, client: Client, method: str, url: URL, headers: Mapping[str, str], body: bytes, silence: float | None
    ) -> Answer:
        """Send a request, and again where it is redirected to within its origin: what it holds is for that one."""
        redirects = 0
        while True:
            answer = await self._sent(client, method, url, headers, body, silence)
            place = _redirected_to(answer) if answer.status in (301, 302, 303, 307, 308) else None
            if place is None or redirects == _MOST_REDIRECTS:
                return answer
            answer.close()
            url = place
            redirects += 1

    async def _sent(
        self, client: Client, method: str, url: URL, headers: Mapping[str, str], body: bytes, silence: float | None
    ) -> Answer:
        """Send a request once."""
        fields = [*headers.items()]
        if client is self._client and (cookies := self._cookies.filter_cookies(url) if len(self._cookies) else None):
            fields.append(("Cookie", "; ".join(f"{each.key}={each.coded_value}" for each in cookies.values())))
        limit = math.inf if silence is None else silence
        try:
            response = await client.send(self._peer, method, str(url), fields, body, limit=limit)
        except TimeoutError:
            raise NoAnswerError from None
        answer = Answer(response, method, url, silence)
        if answer.header("set-cookie"):
            told = [value for name, value in answer.headers() if name.lower() == "set-cookie"]
            self._cookies.update_cookies_from_headers(told, url)
        return answer


async def read_up_to(answer: Answer, limit: int) -> bytes | None:
    """The body of an answer; None where it is larger than so many bytes. Raises `aiohttp.ClientError`."""
    body = bytearray()
    while piece := await answer.piece():
        body += piece
        if len(body) > limit:
            answer.close()
            return None
    return bytes(body)


def is_json(answer: Answer) -> bool:
    """It is a document, and may be a message."""
    return answer.content_type == "application/json"


def is_stream(answer: Answer) -> bool:
    """It is a stream of events."""
    return answer.status == 200 and answer.content_type == "text/event-stream"


def _redirected_to(answer: Answer) -> URL | None:
    """Where a request is to go instead; None where it would leave its origin, or be another request."""
    if answer.method != "GET" and answer.status not in (307, 308):
        return None
    try:
        place = answer.url.join(URL(answer.header("location")))
    except ValueError:
        return None
    there, here = (place.scheme, place.host, place.port), (answer.url.scheme, answer.url.host, answer.url.port)
    upgraded = (here[0], here[2], there[0], there[2]) == ("http", 80, "https", 443) and there[1] == here[1]
    if place == answer.url or not (there == here or upgraded) or place.user not in (None, answer.url.user):
        return None
    return place
