"""The gateway as one ASGI application: authentication, health and metrics around the bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry

from aibridge.bridge.asgi import Receive, Scope, Send, answer
from aibridge.bridge.bridge import RequestBridge
from aibridge.errors import SettingsError
from aibridge.observe import log, scrape
from aibridge.observe.metrics import Metrics
from aibridge.providers import (
    AnthropicProvider,
    BedrockProvider,
    CopilotProvider,
    ModelRoute,
    OpenAIProvider,
    Provider,
)
from aibridge.recording.ledger import Ledger
from aibridge.recording.memory import CachedTurnMemory, memory_for
from aibridge.recording.stores import store_for
from aibridge.server.audit import audited, forwarder
from aibridge.server.auth import authentication
from aibridge.server.connecting import connecting, time_limits
from aibridge.server.redaction import redaction
from aibridge.server.settings import Provider as ProviderSettings
from aibridge.server.settings import Route as RouteSettings
from aibridge.server.settings import Settings
from aibridge.server.settings import Tracing as TracingSettings
from aibridge.server.values import Secret
from aibridge.server.vitals import Vitals
from aibridge.tracer import NO_TRACER, Tracer
from aibridge.upstream.breaker import BreakerPolicy

if TYPE_CHECKING:
    from aibridge.mcp.servers import ToolServers
    from aibridge.server.tracing import Tracing

_log = logging.getLogger("aibridge.server")

TYPES: dict[str, type[Provider]] = {each.type: each for each in (AnthropicProvider, OpenAIProvider, CopilotProvider)}


class Gateway:
    """Answers requests as the settings say. The records' store opens when the server starts, and closes with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._authenticate = authentication(settings.auth)
        self._registry = CollectorRegistry()
        metrics = Metrics(self._registry, namespace=settings.metrics.namespace)
        storage = settings.storage
        self._forwarder = forwarder(settings.audit)
        self._ledger = Ledger(
            storage.journal_dir,
            audited(store_for(storage.url), settings.audit),
            required=storage.required,
            fsync=storage.fsync,
            fsync_interval=storage.fsync_interval,
            max_journal_size=storage.max_journal_size,
        )
        upstream, breaker = settings.upstream, settings.breaker
        self._tracing = _tracing(settings.tracing)
        tracer = self._tracing.tracer if self._tracing else None
        self.tool_servers = _tool_servers(settings, tracer or NO_TRACER)
        """The MCP servers, where there are any."""
        self._memory = _memory(settings)
        providers = [provider_of(each, record_contents=settings.recording.contents) for each in settings.providers]
        self._bridge = RequestBridge(
            providers,
            self._ledger,
            metrics,
            routes=[_route_of(each, providers) for each in settings.routes],
            toolbox=self.tool_servers,
            memory=self._memory,
            max_turns=settings.tools.max_turns,
            time_limits=time_limits(upstream),
            time_limits_of={each.name: time_limits(upstream, each) for each in settings.providers},
            connecting=connecting(upstream, settings.providers),
            breaker=BreakerPolicy(breaker.failures, breaker.reset, breaker.open, breaker.probes)
            if breaker.enabled
            else None,
            dump_dir=upstream.dump_dir,
            max_body_size=settings.server.max_body_size,
            redaction=redaction(settings.recording),
            tracer=tracer,
            trace_contents=settings.tracing.contents,
            propagate_traces=settings.tracing.propagate,
        )
        self._own = {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}
        self._vitals = Vitals(self._ledger, self._bridge, self.tool_servers, metrics, self._forwarder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            own = self._own.get(scope["path"])
            await (own(scope, send) if own else self._bridge(self._authenticate(scope), receive, send))
        else:
            await self._bridge(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._ledger.start()
        if folder := self._settings.upstream.dump_dir:
            _log.warning("every exchange is dumped to %s: prompts and answers in plain text, never deleted", folder)
        if problem := self._ledger.problem:
            _log.error("recording is not possible: %s", problem)
        if self.tool_servers:
            await self.tool_servers.start()
        tasks = [asyncio.create_task(work) for work in self._background()]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._bridge.shutdown(0)
        self._vitals.look()  # for other workers, which go on telling of what this one did
        if self.tool_servers:
            await self.tool_servers.aclose()
        if self._memory:
            await self._memory.aclose()
        await self._ledger.aclose()
        if self._tracing:  # last, for a collector may keep it waiting
            await asyncio.to_thread(self._tracing.close)
        log.flush()
        await send({"type": "lifespan.shutdown.complete"})

    def _background(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What is done as long as the gateway lives, beside answering."""
        yield self._vitals.run()
        if self._forwarder:
            yield self._forwarder.run()
        retention = self._settings.retention
        if retention.contents or retention.figures:
            from aibridge.recording.retention import pruner_for
            from aibridge.server.retention import Retention

            yield Retention(pruner_for(self._settings.storage.url), retention).run()

    async def _health(self, scope: Scope, send: Send) -> None:
        await _json(send, 200, {"status": "alive"})

    async def _ready(self, scope: Scope, send: Send) -> None:
        """Whether exchanges can be carried: they can be recorded, and there is somebody to carry them to."""
        problems = self._vitals.problems()
        if not self._bridge.providers:
            problems.append("no provider is configured")
        if problems:
            await _json(send, 503, {"status": "not ready", "problems": problems})
        else:
            warnings = self._vitals.warnings()
            await _json(send, 200, {"status": "ready", **({"warnings": warnings} if warnings else {})})

    async def _metrics(self, scope: Scope, send: Send) -> None:
        self._vitals.look()
        await answer(send, 200, [(b"content-type", scrape.CONTENT_TYPE)], scrape.scrape(self._registry))


def provider_of(settings: ProviderSettings, *, record_contents: bool = True) -> Provider:
    """The provider that its settings describe; `record_contents` is what is said of all providers.

    Raises `SettingsError` where what that takes is not installed.
    """
    common: dict[str, Any] = {
        "name": settings.name,
        "api_key": _revealed(settings.api_key),
        "api_keys": [key.reveal() for key in settings.api_keys or ()],
        "max_retries": settings.max_retries,
        "send_actor_headers": settings.send_actor_headers,
        "byok": settings.byok,
        "key_header": settings.key_header,
        "headers": {name: value.reveal() for name, value in settings.headers.items()},
        "query": settings.query,
        "record_contents": record_contents and settings.record_contents,
    }
    if settings.type == "openai":
        return OpenAIProvider(settings.base_url, ask_for_usage=settings.ask_for_usage, **common)
    if settings.type != "bedrock":
        return TYPES[settings.type](settings.base_url, **common)
    assert settings.region
    try:
        return BedrockProvider(
            settings.base_url,
            region=settings.region,
            model=settings.model,
            small_fast_model=settings.small_fast_model,
            access_key=_revealed(settings.access_key),
            access_key_secret=_revealed(settings.access_key_secret),
            session_token=_revealed(settings.session_token),
            profile=settings.profile,
            **common,
        )
    except ImportError as error:
        remedy = "install it with pip install 'aibridge[bedrock]', or remove the provider"
        raise SettingsError(
            f"providers ({settings.name}): what AWS takes is not installed ({error}); {remedy}"
        ) from error


def _revealed(secret: Secret | None) -> str | None:
    return secret.reveal() if secret else None


def _route_of(settings: RouteSettings, providers: Sequence[Provider]) -> ModelRoute:
    """The route that its settings describe."""
    by_name = {provider.name: provider for provider in providers}
    return ModelRoute(
        settings.name,
        [by_name[name] for name in settings.providers],
        allow=settings.allow or (),
        when=settings.when,
        aliases=settings.aliases,
    )


def _tracing(settings: TracingSettings) -> Tracing | None:
    """Where spans go, if they do."""
    if not settings.endpoint:
        return None
    from aibridge.server.tracing import Tracing

    return Tracing(settings)


def _tool_servers(settings: Settings, tracer: Tracer) -> ToolServers | None:
    """The MCP servers, where there are any."""
    if not settings.mcp_servers:
        return None
    from aibridge.server.tool_servers import tool_servers

    return tool_servers(settings, tracer)


def _memory(settings: Settings) -> CachedTurnMemory | None:
    """Where hidden turns are remembered, if they are."""
    if not (settings.mcp_servers and settings.tools.remember):
        return None
    return memory_for(settings.storage.url, lifetime=settings.tools.remember)


async def _json(send: Send, status: int, body: dict[str, object]) -> None:
    await answer(send, status, [(b"content-type", b"application/json")], msgspec.json.encode(body))
