"""Injected tools that live in the test itself, and a bridge that has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, Metrics, OpenAIProvider, Recorder, RequestBridge
from aibridge.actor import Actor
from aibridge.mcp.toolbox import Catalogue, InjectedTool, Outcome
from aibridge.wire.tools import OfferedTool, TextPart, ToolResult, failure
from support.provider import Provider, Reply, document, events
from support.serving import KEY, asked_by, serving
from support.speech import HARBOURS, TIDES, Part, Speech

SERVER_URL = "https://sea.example/mcp"


def tool(offered: str, name: str) -> InjectedTool:
    """A tool of the server `sea`."""
    return InjectedTool("sea", SERVER_URL, name, OfferedTool(offered, f"The {name}.", b'{"type":"object"}'))


class Tools:
    """A `Toolbox` with two tools, which answer at once unless the test holds them back."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, str]] = []
        """Bare names, arguments and actors of the calls, as they began."""
        self.ended = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fault: str | None = None
        self._catalogue = Catalogue([tool(TIDES, "tides"), tool(HARBOURS, "harbours")])

    def catalogue(self) -> Catalogue:
        return self._catalogue

    def remove_all(self) -> None:
        """Have no tools any more, as when the server is down."""
        self._catalogue = Catalogue()

    async def call(self, tool: InjectedTool, arguments: str, actor: Actor) -> Outcome:
        self.begun.append((tool.name, arguments, actor.id))
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if self.fault:
            return Outcome(failure(self.fault), self.fault, 0.25)
        return Outcome(ToolResult((TextPart(f"the {tool.name}"),)), None, 0.25)


def bridge_with(tools: Any, upstream: str, recorder: Recorder, **settings: Any) -> RequestBridge:
    """A bridge with these tools; `settings` are its own."""
    providers = [
        AnthropicProvider(upstream, api_key=KEY, max_retries=0),
        OpenAIProvider(upstream + "/v1", api_key=KEY, max_retries=0),
    ]
    settings.setdefault("metrics", Metrics(CollectorRegistry()))
    return RequestBridge(providers, recorder, toolbox=tools, **settings)


@asynccontextmanager
async def bridged_with(
    tools: Any, upstream: str, recorder: Recorder, *, actor: str = "ada", **settings: Any
) -> AsyncIterator[str]:
    """The URL of such a bridge, asked by `actor`."""
    async with bridge_with(tools, upstream, recorder, **settings) as bridge, serving(asked_by(actor, bridge)) as url:
        yield url


def turn(speech: Speech, number: int, parts: Sequence[Part], *, stream: bool = True) -> Reply:
    """The provider's answer in a turn."""
    answer = speech.answer(number, parts, stream=stream)
    return events(answer) if stream else document(answer)


def histories(speech: Speech, provider: Provider) -> list[list[Any]]:
    """The conversations that the provider was sent, without ids of items."""
    told = [asked.json()[speech.history] for asked in provider.asked]
    return [[{k: v for k, v in element.items() if k != "id"} for element in history] for history in told]
