"""The bridge: an ASGI application between AI clients and their providers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Protocol

from aibridge.actor import Actor, actor_of
from aibridge.bridge.addressing import Addressing
from aibridge.bridge.asgi import (
    INTERCEPTION_ID,
    ClientLeft,
    Receive,
    Scope,
    Send,
    answer,
    body_too_large,
    read_body,
    refuse,
)
from aibridge.bridge.choice import Choice, Homes, Leg
from aibridge.bridge.facts import Facts
from aibridge.bridge.headers import NOT_FORWARDED, Forwarded
from aibridge.bridge.interception import Carrier
from aibridge.bridge.passthrough import Proxied
from aibridge.bridge.response_ids import led_on
from aibridge.bridge.routing import Route, Routes, path_of
from aibridge.bridge.tool_run import ToolRun
from aibridge.bridge.watch import Watch, Why
from aibridge.clients import KEEPS_ONE_ID, identify
from aibridge.errors import Fault, Kind
from aibridge.http_client.connecting import Connecting
from aibridge.mcp.toolbox import Toolbox
from aibridge.observe.metrics import Metrics, default_metrics
from aibridge.observe.spans import Observer, Spans
from aibridge.providers import Credential, ModelRoute, Provider
from aibridge.recording.contents import Redaction, without_contents
from aibridge.recording.memory import TurnMemory
from aibridge.recording.recorder import Recorder, batching
from aibridge.records import new_id
from aibridge.tracer import TRACE_CONTEXT, Tracer
from aibridge.upstream.breaker import DEFAULT_POLICY, BreakerPolicy, Breakers
from aibridge.upstream.dump import Dump
from aibridge.upstream.keys import KeyRing
from aibridge.upstream.upstream import TimeLimits, Upstream, UpstreamRequest
from aibridge.wire import openai
from aibridge.wire.body import model_in, renamed
from aibridge.wire.content_coding import CodingError, decoded
from aibridge.wire.dialect import Dialect, Request

_log = logging.getLogger("aibridge.bridge")

MAX_BODY_SIZE = 32 << 20
"""How long a request's body may be by default, in bytes."""

MAX_TURNS = 10
"""How many turns an interception may have by default."""

_AFTER_DEADLINE = 5.0  # seconds for exchanges that were cut to write their records


class _Exchange(Protocol):
    watch: Watch

    async def carry(self) -> None: ...


class RequestBridge:
    """An ASGI application that relays, understands and records exchanges with AI providers.

    Serve it as it is, or mount it in a Starlette, FastAPI or Django service; docs/library.md shows how. The host says
    who asks with `as_actor`; a request without an actor is answered 401. The recorder is the host's to open and close.

    Connections upstream open at first use. Call `shutdown`, or leave `async with`, to end well; an ASGI host that
    speaks the lifespan protocol to the bridge does so by itself.

    `routes` are names under which several of the providers are served, one after the other where one fails.
    `toolbox` holds the tools that are injected, for at most `max_turns` turns of an interception; `memory` keeps what
    clients are not shown of such turns. `time_limits` are for upstreams, those `time_limits_of` some by their names;
    `connecting` says how they are reached; `breaker` says when one in trouble is left alone (None for never); below
    `dump_dir`, whole exchanges are written for debugging. `max_body_size` is in bytes; `grace` is how many seconds
    exchanges may go on when the host's lifespan ends. `redaction` sees contents before the recorder does. `tracer` gets
    a span for each step of an exchange, without prompts and the like unless `trace_contents`; with `propagate_traces`,
    providers are told which trace a request belongs to.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        recorder: Recorder,
        metrics: Metrics | None = None,
        *,
        routes: Iterable[ModelRoute] = (),
        toolbox: Toolbox | None = None,
        memory: TurnMemory | None = None,
        max_turns: int = MAX_TURNS,
        time_limits: TimeLimits | None = None,
        time_limits_of: Mapping[str, TimeLimits] = MappingProxyType({}),
        connecting: Connecting | None = None,
        breaker: BreakerPolicy | None = DEFAULT_POLICY,
        dump_dir: Path | None = None,
        max_body_size: int = MAX_BODY_SIZE,
        grace: float = 30.0,
        redaction: Redaction | None = None,
        tracer: Tracer | None = None,
        trace_contents: bool = False,
        propagate_traces: bool = False,
    ) -> None:
        self._routes = Routes(providers, routes)
        record = batching(recorder)
        self._record = redaction.before(record) if redaction else record
        self._record_figures = without_contents(record)
        self._metrics = metrics or default_metrics()
        self._rings = {
            each.name: KeyRing(each.name, each.credentials, self._metrics)
            for each in self.providers
            if len(each.credentials) > 1
        }
        self._homes = Homes()
        self._upstream = Upstream(
            time_limits,
            limits_of=time_limits_of,
            connecting=connecting,
            breakers=Breakers(breaker, self._metrics) if breaker else None,
            dump=Dump(dump_dir, frozenset().union(*(each.secret_headers for each in self.providers)))
            if dump_dir
            else None,
        )
        self._observer = Observer(
            tracer, contents=trace_contents, redacted=redaction is not None, propagate=propagate_traces
        )
        # The client's own trace is nothing that a provider needs to know; with a tracer, it is told of that one's.
        passes = propagate_traces and tracer is None
        # A header in which one provider takes keys may hold a client's, which is no other's business.
        by_key = frozenset[str]().union(*(each.key_headers for each in self.providers))
        self._forwarded = Forwarded((NOT_FORWARDED if passes else NOT_FORWARDED | TRACE_CONTEXT) | by_key)
        self._toolbox = toolbox
        self._memory = memory
        self._max_turns = max_turns
        self._max_body_size = max_body_size
        self._grace = grace
        self._running: set[_Exchange] = set()
        self._stopping = False

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The providers that the bridge reaches."""
        return tuple(self._routes.providers.values())

    def look(self) -> None:
        """Bring the metrics of keys up to date."""
        for ring in self._rings.values():
            ring.look()

    def warnings(self) -> list[str]:
        """What an operator should know of the keys of providers that have several."""
        return [each for ring in self._rings.values() for each in ring.warnings()]

    async def __aenter__(self) -> RequestBridge:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown(self._grace)

    async def shutdown(self, grace: float) -> None:
        """Refuse new requests, let those that run finish within `grace` seconds, cut the rest; each is recorded."""
        self._stopping = True
        await self._ended(grace)
        for exchange in self._running:
            exchange.watch.interrupt(Why.SHUTDOWN)
        await self._ended(_AFTER_DEADLINE)
        await self._upstream.aclose()

    async def _ended(self, timeout: float) -> None:  # noqa: ASYNC109  # a limit of its own, not a cancellation
        if self._running:
            await asyncio.wait([exchange.watch.task for exchange in self._running], timeout=timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (or WebSocket handshake, or lifespan) of an ASGI server."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await _deny_websocket(scope, receive, send)
        else:
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.shutdown(self._grace)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange_id = new_id()
        path = path_of(scope)
        route = self._routes.find(path)
        try:
            exchange = await self._accept(exchange_id, scope, receive, send, path, route)
        except ClientLeft:
            return
        except Fault as fault:
            _log.info("refused %s %s (%s): %s", scope["method"], path, exchange_id, fault.message)
            await self._refuse(exchange_id, route, fault, send)
        except Exception:  # noqa: BLE001  # a client is always told in its own dialect
            _log.exception("request %s met a fault of the gateway's own", exchange_id)
            own = Fault(Kind.INTERNAL, "the gateway met a fault of its own; its log tells more")
            await self._refuse(exchange_id, route, own, send)
        else:
            if exchange:
                self._running.add(exchange)
                try:
                    await exchange.carry()
                finally:
                    self._running.remove(exchange)

    async def _refuse(self, exchange_id: str, route: Route | None, fault: Fault, send: Send) -> None:
        dialect = route and (route.dialect or route.provider.dialect)
        body = dialect.error_body(fault, exchange_id) if dialect else openai.error_body(fault)
        await refuse(send, fault, body, exchange_id)

    async def _accept(
        self, exchange_id: str, scope: Scope, receive: Receive, send: Send, path: str, route: Route | None
    ) -> _Exchange | None:
        """The exchange that a request begins; None where it is answered already. Raises `Fault` and `ClientLeft`."""
        method: str = scope["method"]
        headers = dict(scope["headers"])
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            raise Fault(Kind.WEBSOCKET_NOT_SERVED, "WebSocket is not served here; send the request by HTTP POST")
        if route and method == "HEAD" and route.path in route.provider.probes:
            await answer(send, 200, [(INTERCEPTION_ID, exchange_id.encode())])
            return None
        bridged = route and route.dialect and method == "POST"
        if route is None or not (bridged or route.passthrough):
            raise Fault(Kind.ROUTE_NOT_SUPPORTED, f"route not supported: {method} {path}")
        actor = actor_of(scope)
        if actor is None:
            raise Fault(Kind.UNKNOWN_ACTOR, "the request has no actor: authenticate at the gateway")
        if self._stopping:
            raise Fault(Kind.SHUTTING_DOWN, "the gateway is stopping", retry_after=1)
        began = perf_counter()
        body = await read_body(receive, headers.get(b"content-length", b"0"), self._max_body_size)
        if route.dialect:
            spans = self._observer.intercept(exchange_id, route.provider, path, actor, scope["headers"], began)
            try:
                return await self._intercept(
                    exchange_id, scope, receive, send, route, route.dialect, actor, body, began, spans
                )
            except BaseException as error:
                spans.close(error)
                raise
        assert route.passthrough is not None
        self._metrics.passthrough.labels(route.provider.name, route.passthrough, method).inc()
        sending = self._proxied(exchange_id, scope, route, actor, body)
        spans = self._observer.passthrough(method, route.provider, path, sending.url, actor, scope["headers"])
        return Proxied(exchange_id, route.provider.dialect, sending, self._upstream, receive, send, spans)

    def _proxied(self, exchange_id: str, scope: Scope, route: Route, actor: Actor, body: bytes) -> UpstreamRequest:
        """A request on a passthrough route, as it goes upstream: it goes there once, by the first way that there is."""
        address = Addressing(scope, route.path, actor, self._forwarded)
        provider = route.provider
        headers = address.headers
        if route.via:
            body = _unpacked(body, headers, self._max_body_size)
            address.unpacked()
            if model := model_in(body):
                provider, known_as = route.via.legs(model)[0]
                body = renamed(body, model, known_as)
        credential = provider.credential({} if route.via else headers)
        if credential.kind == "centralized" and (ring := self._rings.get(provider.name)):
            credential = ring.pick(actor.id).credential
        url, sent_headers = address(provider, credential)
        return UpstreamRequest(
            provider.name,
            scope["method"],
            url,
            sent_headers,
            body,
            exchange_id=exchange_id,
            endpoint=route.path,
            interpreter=provider.interpreter,
        )

    async def _intercept(
        self,
        exchange_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route,
        dialect: Dialect,
        actor: Actor,
        body: bytes,
        began: float,
        spans: Spans,
    ) -> Carrier:
        """An interception that has begun: it is recorded."""
        waited = perf_counter() - began
        address = Addressing(scope, route.path, actor, self._forwarded)
        headers = address.headers
        plain = _unpacked(body, headers, self._max_body_size)
        request = dialect.parse(plain)
        if self._memory:
            request = await led_on(self._memory, actor, request)
        if request.body is not plain or route.via:  # what was edited, or may be, goes upstream unpacked
            body = request.body
            address.unpacked()
        legs = route.via.legs(request.model) if route.via else [(route.provider, request.model)]
        recorded = True
        for provider, _ in legs:
            recorded = recorded and provider.record_contents
            if provider.interpreter:
                await provider.interpreter.ready()
        client = identify(headers, request.hints)
        provider, credential, choice = self._chosen(route, legs, headers, client.session_id or actor.id, address)
        facts = Facts(
            exchange_id,
            provider,
            route.path,
            scope["method"],
            actor,
            request,
            client,
            credential,
            self._record if recorded else self._record_figures,
            self._metrics,
            spans,
        )
        facts.began, facts.waited = began, waited
        tools = self._tools_for(dialect, request, actor, facts, keeps_id=client.name in KEEPS_ONE_ID)
        if tools and "content-encoding" in headers:
            address.unpacked()
        url, sent_headers = ("", []) if choice else address(provider, credential)
        sending = UpstreamRequest(
            provider.name,
            "POST",
            url,
            sent_headers,
            body,
            max_retries=provider.max_retries,
            exchange_id=exchange_id,
            endpoint=route.path,
            model=request.model,
            streams=request.streaming,
            interpreter=provider.interpreter,
            ways=choice,
        )
        spans.created(request, client, provider, recorded=recorded)
        await facts.begin(headers.get("user-agent"), via=route.via.name if route.via else None)
        if choice:
            choice.tell = facts.left
        return Carrier(dialect, request, sending, facts, self._upstream, receive, send, tools)

    def _chosen(
        self, route: Route, legs: Sequence[Leg], headers: Mapping[str, str], session: str, address: Addressing
    ) -> tuple[Provider, Credential, Choice | None]:
        """Who is asked first, and with which credential; and all ways that there are, where there is more than one."""
        if route.via:
            choice = Choice(legs, self._rings, session, address, route=route.via.name, homes=self._homes)
            return *choice.expected, choice
        provider = route.provider
        credential = provider.credential(headers)
        if credential.kind == "byok" or provider.name not in self._rings:
            return provider, credential, None
        choice = Choice(legs, self._rings, session, address)
        return *choice.expected, choice

    def _tools_for(
        self, dialect: Dialect, request: Request, actor: Actor, facts: Facts, *, keeps_id: bool
    ) -> ToolRun | None:
        """The tools that are offered with a request; None where there are none, or it forbids them."""
        if self._toolbox is None:
            return None
        catalogue = self._toolbox.catalogue()
        merge = dialect.merge(request, catalogue.offers) if catalogue.tools else None
        if merge is None:
            return None
        return ToolRun(merge, catalogue, self._toolbox, self._memory, actor, facts, self._max_turns, keeps_id=keeps_id)


def _unpacked(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    if "content-encoding" not in headers:
        return body
    try:
        plain = decoded(body, headers["content-encoding"], limit)
    except CodingError as error:
        raise Fault(Kind.INVALID_REQUEST, f"the request body can not be read: {error}") from error
    if plain is None:
        raise body_too_large(limit)
    return plain


async def _deny_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a handshake that the host has taken up: with 426 where the host can say so, else by closing it."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"upgrade", b"HTTP/1.1"), (INTERCEPTION_ID, new_id().encode())]
        await send({"type": "websocket.http.response.start", "status": 426, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": 1003})
