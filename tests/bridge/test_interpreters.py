"""A provider with a wire format of its own: all but its interpreter knows the dialect only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, Metrics, RequestBridge
from aibridge.errors import Fault, Kind
from aibridge.providers.interpreter import Headers, Outgoing, RawHeaders
from aibridge.records import Interception, InterceptionEnded, TokenUsage
from support.client import ask
from support.dialects import MESSAGES
from support.provider import Provider, Reply, chunked, document, error
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.speech import PROMPT, SPEECHES, TIDES, Call, Part, Text
from support.tools import Tools

HEX = ("Content-Type", "text/x-hex")


class HexAnswer:
    """What came in hexadecimal digits, of which one may be there before the other."""

    def __init__(self, headers: RawHeaders) -> None:
        others = [(name, value) for name, value in headers if name.lower() != b"content-type"]
        self.headers: RawHeaders = [*others, (b"content-type", b"text/event-stream")]
        self.fault: Fault | None = None
        self._half = b""

    def feed(self, data: bytes) -> bytes:
        digits, _, after = (self._half + data).partition(b"z")
        even = len(digits) & ~1
        self._half = digits[even:]
        if after:
            self.fault = Fault(Kind.UPSTREAM_FAULT, "the answer of hex broke off: not a digit")
        return bytes.fromhex(digits[:even].decode())

    def close(self) -> bytes:
        if self._half:
            self.fault = Fault(Kind.UPSTREAM_FAULT, "the answer of hex broke off: half a byte is missing")
        return b": the end\n\n"


class Hex:
    """Everything in hexadecimal digits."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.attempts = 0
        self.fault: Fault | None = None

    async def ready(self) -> None:
        self.attempts = 0

    async def outgoing(self, path: str, headers: Headers, body: bytes) -> Outgoing:
        if self.fault:
            raise self.fault
        self.attempts += 1
        return Outgoing(
            f"{self.base_url}/hex{path}", [*headers, ("X-Attempt", str(self.attempts))], body.hex().encode()
        )

    def incoming(self, path: str, status: int, headers: RawHeaders) -> HexAnswer | None:
        return HexAnswer(headers) if (b"Content-Type", b"text/x-hex") in headers else None


class HexProvider(AnthropicProvider):
    """Messages in hexadecimal digits."""

    type = "hex"

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self.hex = Hex(base_url)
        self.interpreter = self.hex

    def metadata(self, model: str) -> Mapping[str, Any]:
        return {"model_in_hex": model.encode().hex()}


def in_hex(*events: bytes, size: int = 7) -> Reply:
    digits = b"".join(events).hex().encode()
    return chunked([digits[at : at + size] for at in range(0, len(digits), size)], [HEX])


@pytest.fixture
def hexer(provider: Provider) -> HexProvider:
    return HexProvider(provider.url, api_key="sk-hex-0123456789abcdef", max_retries=1)


@asynccontextmanager
async def bridged(hexer: HexProvider, recorder: ListRecorder, **settings: Any) -> AsyncIterator[str]:
    bridge = RequestBridge([hexer], recorder, Metrics(CollectorRegistry()), **settings)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        yield f"{url}/hex/v1/messages"


async def test_an_exchange_is_translated_and_recorded(
    hexer: HexProvider, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(in_hex(MESSAGES.stream))
    async with bridged(hexer, recorder) as url:
        answer = await ask(url, MESSAGES.request())

    assert provider.last.target == "/hex/v1/messages"
    assert bytes.fromhex(provider.last.body.decode()) == MESSAGES.request()
    assert (answer.status, answer.header("Content-Type"), answer.complete) == (200, "text/event-stream", True)
    assert answer.body == MESSAGES.stream + b": the end\n\n"
    usage = recorder.one(TokenUsage)
    assert (usage.input_tokens, usage.output_tokens) == MESSAGES.tokens[:2]
    assert recorder.one(Interception).metadata["model_in_hex"] == recorder.one(Interception).model.encode().hex()
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_each_attempt_is_translated_anew(hexer: HexProvider, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(error(500, headers=[("Retry-After", "0")]), in_hex(MESSAGES.stream))
    async with bridged(hexer, recorder) as url:
        assert (await ask(url, MESSAGES.request())).status == 200
    assert [asked.header("X-Attempt") for asked in provider.asked] == ["1", "2"]


async def test_what_has_no_translation_passes_as_it_came(
    hexer: HexProvider, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(b'{"type": "error",  "error": {"type": "odd", "message": "so"}}', 400))
    async with bridged(hexer, recorder) as url:
        answer = await ask(url, MESSAGES.request())
    assert (answer.status, answer.body) == (400, b'{"type": "error",  "error": {"type": "odd", "message": "so"}}')


@pytest.mark.parametrize(("digits", "why"), [(b"zz", "not a digit"), (b"7", "half a byte is missing")])
async def test_what_can_not_be_translated_breaks_the_stream(
    digits: bytes, why: str, hexer: HexProvider, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(chunked([MESSAGES.before().hex().encode(), digits], [HEX]))
    async with bridged(hexer, recorder) as url:
        answer = await ask(url, MESSAGES.request())
    assert not answer.complete
    assert answer.body.startswith(MESSAGES.before())
    assert MESSAGES.error_event_in(answer.body) == f"the answer of hex broke off: {why}"
    assert recorder.one(InterceptionEnded).status == "failed"


async def test_a_request_that_can_not_be_sent_is_refused_and_recorded(
    hexer: HexProvider, provider: Provider, recorder: ListRecorder
) -> None:
    hexer.hex.fault = Fault(Kind.UPSTREAM_FAULT, "there is no ink")
    async with bridged(hexer, recorder) as url:
        for _ in range(10):  # it is not the provider's fault, and opens no circuit breaker
            answer = await ask(url, MESSAGES.request())
            assert (answer.status, MESSAGES.error_in(answer.body)[2]) == (502, "there is no ink")
    assert not provider.asked
    assert {ended.error_message for ended in recorder.all(InterceptionEnded)} == {"there is no ink"}


async def test_every_turn_of_an_injected_tool_is_translated(
    hexer: HexProvider, provider: Provider, recorder: ListRecorder
) -> None:
    speech = SPEECHES[0]
    looking: list[Part] = [Text("I look."), Call("call_1", TIDES)]
    saying: list[Part] = [Text("At six.")]
    provider.says(in_hex(speech.stream(1, looking)), in_hex(speech.stream(2, saying)))
    async with bridged(hexer, recorder, toolbox=Tools()) as url:
        answer = await ask(url, speech.request(speech.asked(PROMPT)))
    assert speech.heard(answer.body.removesuffix(b": the end\n\n"), stream=True).content == speech.shown(
        [*looking, *saying]
    )
    assert b"bmcp_sea_tides".hex().encode() in provider.asked[0].body
    assert b"the tides".hex().encode() in provider.asked[1].body


async def test_the_dump_holds_what_was_really_sent_and_answered(
    hexer: HexProvider, provider: Provider, recorder: ListRecorder, tmp_path: Path
) -> None:
    provider.says(in_hex(MESSAGES.stream))
    async with bridged(hexer, recorder, dump_dir=tmp_path / "dump") as url:
        await ask(url, MESSAGES.request())
    (asked,) = (tmp_path / "dump").rglob("*.req.txt")
    (answered,) = (tmp_path / "dump").rglob("*.resp.txt")
    assert asked.read_bytes().startswith(b"POST /hex/v1/messages HTTP/1.1\r\n")
    assert asked.read_bytes().endswith(MESSAGES.request().hex().encode())
    assert answered.read_bytes().endswith(MESSAGES.stream.hex().encode())
