"""docs/tracing.md names each span and attribute that an exchange has, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from aibridge.mcp.config import ServerConfig
from aibridge.mcp.spans import Starting
from aibridge.observe.spans import MOST_OF_INPUT
from aibridge.tracer import Attributes, Side, Span, Tracer
from support.client import ask
from support.dialects import MESSAGES, RESPONSES
from support.provider import Provider, document, error, events
from support.recorder import ListRecorder
from support.speech import PROMPT, SPEECHES, TIDES, Call, Speech, Text, Thinking
from support.tools import Tools, bridged_with, turn

from .pages import blocks, code, page, rows, section

PAGE = page("tracing.md")


@dataclass
class Noting:
    """A tracer that notes the names of all it is told; it is its own and only span."""

    spans: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    recording: bool = True

    def start(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        side: Side = "inside",
        headers: Mapping[str, str] | None = None,
        ago: float = 0.0,
    ) -> Span:
        self.spans.add(name)
        self.set(attributes or {})
        return self

    def child(self, name: str, attributes: Attributes | None = None, *, side: Side = "inside") -> Span:
        return self.start(name, attributes)

    def set(self, attributes: Attributes) -> None:
        self.attributes.update(attributes)

    def event(self, name: str, attributes: Attributes) -> None: ...

    def end(self, error: str | None = None, message: str | None = None) -> None:
        if error:
            self.attributes.add("error.type")

    def context(self) -> list[tuple[str, str]]:
        return []


MEMBERS: dict[str, Mapping[str, Any]] = {
    "messages": {"top_k": 40},
    "chat_completions": {
        **dict.fromkeys(("n", "seed", "frequency_penalty", "presence_penalty", "temperature", "top_p"), 2),
        "max_completion_tokens": 500,
        "reasoning_effort": "low",
    },
    "responses": {"previous_response_id": "resp_0", "prompt_cache_key": "of-ada"},
}


async def _converse(speech: Speech, url: str, provider: Provider) -> None:
    provider.says(turn(speech, 1, [Thinking("Well."), Call("call_1", TIDES)]), turn(speech, 2, [Text("At six.")]))
    await ask(url + speech.path, speech.request(speech.asked(PROMPT), **MEMBERS[speech.dialect.name]))


@pytest.fixture
async def noted(provider: Provider, recorder: ListRecorder) -> Noting:
    """What a tracer is told of exchanges that show all there is to tell."""
    noting = Noting()
    tracer: Tracer = noting
    async with bridged_with(Tools(), provider.url, recorder, tracer=tracer, trace_contents=True) as url:
        for speech in SPEECHES:
            await _converse(speech, url, provider)
        provider.says(error(500), events(RESPONSES.stream), document(b"{}"))
        await ask(url + MESSAGES.path, MESSAGES.request())
        await ask(url + RESPONSES.path, RESPONSES.request())
        await ask(url + "/openai/v1/models", method="GET")
    starting = Starting(tracer, ["sea", "air", "land"])
    for config in (
        ServerConfig(name="sea", url="http://127.0.0.1:9"),
        ServerConfig(name="air", url="http://127.0.0.1:9", transport="sse"),
        ServerConfig(name="land", command=["program"]),
    ):
        attempt = starting.attempt(config)
        if config.name == "sea":
            attempt.fetching()
        attempt.connected(2)
    return noting


def test_every_span_is_there(noted: Noting) -> None:
    told = {name for row in rows(section(PAGE, "Spans")) for cell in row for name in code(cell) if name[0].isupper()}
    assert told == noted.spans


def test_every_attribute_is_there(noted: Noting) -> None:
    told = {code(row[0])[0] for row in rows(section(PAGE, "Attributes"))}
    told |= set(re.findall(r"`((?:gen_ai|server)\.[\w.]+)`", PAGE))
    assert told == noted.attributes


def test_how_much_of_arguments_is_told() -> None:
    assert f"the first {MOST_OF_INPUT} characters" in PAGE


async def test_the_tracer_of_a_host(provider: Provider, recorder: ListRecorder) -> None:
    (example,) = blocks(PAGE, "python")
    names: dict[str, Any] = {"providers": [], "Printer": lambda: recorder}
    exec(example, names)
    assert names["bridge"].providers == ()
