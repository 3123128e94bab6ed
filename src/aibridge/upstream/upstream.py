"""Sending a request upstream, and reading the answer as it comes.

The HTTP client is kept behind `Upstream` and `Answer`, so that it can be exchanged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType

import aiohttp
from msgspec.structs import replace

from aibridge.errors import Fault, Kind
from aibridge.http_client.client import Client
from aibridge.http_client.connecting import Connecting
from aibridge.http_client.response import NoAnswerError, Response
from aibridge.providers.interpreter import Incoming, Interpreter, RawHeaders
from aibridge.upstream.attempts import Attempts, Way
from aibridge.upstream.breaker import Breakers, Call
from aibridge.upstream.dump import Dump
from aibridge.upstream.exchange import Follower, UpstreamRequest
from aibridge.upstream.faults import SilentError, fault_of

__all__ = ["Answer", "Retried", "TimeLimits", "Upstream", "UpstreamRequest"]


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long an upstream may take, in seconds; each limit is named in the fault that it leads to."""

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 300.0
    """Between two pieces of an answer."""
    whole: float = 1200.0
    """From sending a request to the end of its answer, where that is no event stream; 0 for any length."""
    whole_stream: float = 0.0
    """The same where it is one."""
    keep_alive: float = 15.0
    """Of silence, until the client of a stream is sent a sign of life; 0 for never."""


Retried = Callable[[str, str], None]
"""Is told to which provider a request is sent once more, and why: a status, or `connection`."""


class Answer:
    """An answer whose head is there, and whose body is read piece by piece; `incoming` translates it."""

    def __init__(
        self,
        response: Response,
        request: UpstreamRequest,
        limits: TimeLimits,
        sent: float,
        incoming: Incoming | None = None,
    ) -> None:
        self.request = request
        """What it answers."""
        self.status = response.status
        headers = incoming.headers if incoming else response.raw_headers
        self.headers: RawHeaders = [(name.lower(), value) for name, value in headers]
        """Names in lower case."""
        self._incoming = incoming
        self._response = response
        self._provider = request.provider
        self._limits = limits
        self.streams = self.header(b"content-type").lower().startswith("text/event-stream")
        """It is an event stream."""
        self._whole = (limits.whole_stream if self.streams else limits.whole) or math.inf
        self._deadline = sent + self._whole
        self._loop = response.loop
        self._silent_since: float | None = None
        self._on_silence: Callable[[], Awaitable[None]] | None = None
        self._sign: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._followers: Sequence[Follower] = ()

    def header(self, name: bytes) -> str:
        """The value of a header, whose name is in lower case; empty where there is none."""
        for found, value in self.headers:
            if found == name:
                return value.decode("latin-1")
        return ""

    @property
    def begun(self) -> bool:
        """A piece of the body has come; the first `read` does not wait."""
        return self._response.begun

    @property
    def at_end(self) -> bool:
        """All of the body was read."""
        return self._response.taken and not (self._incoming and self._incoming.fault)

    def follow(self, followers: Sequence[Follower]) -> None:
        """Tell these of the answer as it comes over the wire, from its head on."""
        self._followers = followers
        for follower in followers:
            reason = self._response.reason.decode("latin-1")
            follower.answered(self.status, reason, self._response.raw_headers)

    def on_silence(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Call `tell` whenever `keep_alive` seconds have passed without a byte."""
        self._on_silence = tell if self._limits.keep_alive else None

    async def read(self) -> bytes:
        """The next piece of the body; it may be empty before the end where the answer is translated.

        Raises `Fault` where the body breaks off, nothing comes for longer than the idle limit, or the whole answer
        takes longer than its limit.
        """
        if self._incoming and self._incoming.fault:
            raise self._failed(self._incoming.fault)
        response = self._response
        try:
            if not response.complete:
                if self._timer is None:
                    self._arm(self._loop.time())
                if not response.pieces:
                    self._silent_since = self._loop.time()
                    await response.more()
            data = response.take()
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(fault_of(error, self._provider, self._limits.connect)) from error
        finally:
            self._silent_since = None
        for follower in self._followers:
            follower.received(data)
        if self._incoming:
            data = self._incoming.feed(data) + (self._incoming.close() if self.at_end else b"")
        return data

    def _failed(self, fault: Fault) -> Fault:
        for follower in self._followers:
            follower.failed(fault)
        return fault

    def _arm(self, now: float) -> None:
        wait = self._limits.keep_alive if self._on_silence else self._limits.idle
        self._timer = self._loop.call_at(min(now + min(wait, self._limits.idle), self._deadline), self._check)

    def _check(self) -> None:
        """One timer looks now and then how long there was silence: a piece of the answer costs no timer of its own."""
        now, since = self._loop.time(), self._silent_since
        if self._response.complete:  # whoever is slow now, it is not the provider
            return
        if now >= self._deadline:
            said = f"{self._provider} did not end its answer within the whole limit of {self._whole:g} s"
            self._response.fail(SilentError(said))
        elif since is None:
            self._arm(now)
        elif now - since >= self._limits.idle:
            said = f"{self._provider} was silent for longer than the idle limit of {self._limits.idle:g} s"
            self._response.fail(SilentError(said))
        elif self._on_silence and now - since >= self._limits.keep_alive * 0.99:
            self._sign = asyncio.ensure_future(self._on_silence())
            next_end = min(now + self._limits.keep_alive, since + self._limits.idle, self._deadline)
            self._timer = self._loop.call_at(next_end, self._check)
        else:
            self._arm(since)

    def close(self) -> None:
        """Be done with the answer; where it was not read to its end, its connection is closed."""
        if self._timer:
            self._timer.cancel()
        if self._sign:
            self._sign.cancel()
        self._on_silence = None  # it knows of this answer; what is not entangled is freed at once
        whole = self.at_end
        if whole:
            self._response.release()
        else:
            self._response.close()
        for follower in self._followers:
            follower.ended(whole=whole)
        self._followers = ()


class Upstream:
    """The connections to all providers. Opens at first use, within the running event loop; close it with `aclose`.

    `limits_of` holds, by providers' names, other limits than the usual ones, but for connecting and signs of life.
    `breakers` refuse what would go to a provider in trouble; `dump` keeps whole exchanges.
    """

    def __init__(
        self,
        limits: TimeLimits | None = None,
        *,
        limits_of: Mapping[str, TimeLimits] = MappingProxyType({}),
        connecting: Connecting | None = None,
        breakers: Breakers | None = None,
        dump: Dump | None = None,
    ) -> None:
        self.limits = limits or TimeLimits()
        self._limits_of = limits_of
        self._connecting = connecting or Connecting()
        self._breakers, self._dump = breakers, dump
        self._client: Client | None = None

    async def send(self, request: UpstreamRequest, retried: Retried | None = None) -> Answer:
        """Send a request, more than once where it may be; the answer as soon as its head is there.

        Whatever the provider answers is an answer, also an error that was not retried. Raises `Fault` where none came,
        or none may be asked for. Of the attempts at one provider, the last is what its circuit breaker is told of.
        """
        attempts = Attempts(request.ways.now() if request.ways else (Way(request.provider, request.max_retries, None),))
        attempt = attempts.first(monotonic())
        way: Way | None = None
        visit: _Visit | None = None
        last: Answer | Fault | None = None
        try:
            while attempt:
                wire = None
                if visit is None or attempt.way.provider != visit.provider:
                    sending = attempt.way.request(request)
                    try:
                        entered, wire = await self._visit(sending)
                    except Fault as fault:
                        attempt = attempts.refused(attempt.way, fault, monotonic())
                        continue
                    if visit:
                        visit.end(last)
                    visit = entered
                else:
                    if isinstance(last, Answer):
                        last.close()
                    if attempt.way is not way:
                        sending = attempt.way.request(request)
                way, last = attempt.way, None
                if attempt.again:
                    if retried:
                        retried(way.provider, attempt.again)
                    await asyncio.sleep(attempt.delay)
                last = await self._outcome(sending, wire)
                if isinstance(last, Fault):
                    attempt = attempts.failed(way, last, monotonic(), stands=visit.stands)
                elif last.status >= 400 or way.key:
                    headers = _as_text(last.headers) if last.status >= 400 else {}
                    attempt = attempts.answered(way, last.status, headers, monotonic(), stands=visit.stands)
                else:
                    break
            else:  # nothing is left to try
                if attempts.verdict:
                    raise attempts.verdict
                if isinstance(last, Fault):
                    raise last
        except BaseException:
            if visit:
                visit.end(last)
            raise
        finally:
            if request.ways:
                request.ways.settled(way, attempts.tried, well=isinstance(last, Answer) and last.status < 400)
        assert visit
        assert last
        last.follow(visit.followers)
        return last

    async def _visit(self, sending: UpstreamRequest) -> tuple[_Visit, UpstreamRequest]:
        """Begin to ask a provider; with what goes over the wire. Raises `Fault` where it can not be asked."""
        wire = await _as_sent(sending, sending.interpreter) if sending.interpreter else sending
        call = None
        if self._breakers and wire.model is not None:
            call = self._breakers.admit((wire.provider, wire.endpoint, wire.model))
        visit = _Visit(wire.provider, call)
        if self._dump:
            await visit.dumped(self._dump, wire)
        return visit, wire

    async def _outcome(self, request: UpstreamRequest, wire: UpstreamRequest | None) -> Answer | Fault:
        """What comes of one attempt; `wire` is the request that goes over the wire, where it is made already."""
        limits = self._limits_of.get(request.provider, self.limits)
        whole_is_less = not request.streams and 0 < limits.whole < limits.first_byte
        limit = limits.whole if whole_is_less else limits.first_byte
        client, interpreter = self._client or self._open(), request.interpreter
        sent = client.loop.time()
        try:
            if wire is None:
                wire = await _as_sent(request, interpreter) if interpreter else request
            response = await client.send(wire.provider, wire.method, wire.url, wire.headers, wire.body, limit=limit)
            incoming = (
                interpreter.incoming(request.endpoint, response.status, response.raw_headers) if interpreter else None
            )
            return Answer(response, wire, limits, sent, incoming)
        except NoAnswerError:
            which = "whole" if whole_is_less else "first-byte"
            said = f"{request.provider} sent no byte within the {which} limit of {limit:g} s"
            return Fault(Kind.UPSTREAM_SILENT, said)
        except (aiohttp.ClientError, OSError) as error:
            fault = fault_of(error, request.provider, self.limits.connect)
            fault.__cause__ = error
            return fault
        except Fault as fault:
            return fault

    def _open(self) -> Client:
        self._client = Client(self._connecting, self.limits.connect)
        return self._client

    async def aclose(self) -> None:
        """Close every connection."""
        if self._client:
            await self._client.aclose()
            self._client = None


class _Visit:
    """The attempts at one provider: for its circuit breaker, and for the dump, they are one exchange."""

    def __init__(self, provider: str, call: Call | None) -> None:
        self.provider = provider
        self.followers: list[Follower] = [call] if call else []
        self._call = call

    async def dumped(self, dump: Dump, request: UpstreamRequest) -> None:
        """Have it written down as well."""
        try:
            self.followers.append(await dump.begin(request))
        except BaseException:
            self.end(None)
            raise

    @property
    def stands(self) -> bool:
        """The circuit breaker has not opened since."""
        return self._call is None or self._call.stands

    def end(self, last: Answer | Fault | None) -> None:
        """Tell what came of the last attempt, where the client does not get it."""
        if isinstance(last, Answer):
            last.follow(self.followers)
            last.close()
            return
        for follower in self.followers:
            if last:
                follower.failed(last)
            follower.ended(whole=False)


async def _as_sent(request: UpstreamRequest, interpreter: Interpreter) -> UpstreamRequest:
    """The request that goes over the wire."""
    url, headers, body = await interpreter.outgoing(request.endpoint, request.headers, request.body)
    return replace(request, url=url, headers=headers, body=body)


def _as_text(headers: RawHeaders) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
