"""What the gateway refuses by itself, each in the dialect's own shape, so that an SDK raises its usual exception."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from aibridge import Metrics, RecordingError
from aibridge.records import Interception, InterceptionEnded, Record
from support.client import ID, ask, begun, say
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import Provider, document, events
from support.recorder import ListRecorder
from support.serving import bridge_to, bridged, serving


class FailingRecorder(ListRecorder):
    """Keeps nothing as long as it is `full`."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.full = True
        self._fault = fault

    async def keep(self, record: Record) -> None:
        if self.full:
            raise self._fault
        await super().keep(record)


@pytest.mark.parametrize("fault", [RecordingError("no space left"), ZeroDivisionError("a fault of the host's own")])
async def test_what_can_not_be_recorded_is_not_carried(
    fault: Exception, dialect: Dialect, provider: Provider, registry: CollectorRegistry
) -> None:
    recorder = FailingRecorder(fault)
    provider.says(events(dialect.stream))
    async with bridged(provider.url, recorder, metrics=Metrics(registry)) as url:
        refused = await ask(url + dialect.path, dialect.request())
        assert refused.status == 503
        assert int(refused.header("Retry-After") or 0) > 0
        assert "can not be recorded" in dialect.error_in(refused.body)[2]
        assert refused.id
        assert not provider.asked
        recorder.full = False
        assert (await ask(url + dialect.path, dialect.request())).body == dialect.for_client
    assert registry.get_sample_value("unrecorded_total") == 2  # an interception and its prompt


async def test_what_runs_is_not_harmed_when_recording_fails(
    dialect: Dialect, provider: Provider, registry: CollectorRegistry
) -> None:
    recorder = FailingRecorder(RecordingError("no space left"))
    recorder.full = False
    turn = asyncio.Event()
    provider.says(events(dialect.before(), turn, b"".join(dialect.events[dialect.spoken + 1 :])))
    async with (
        bridged(provider.url, recorder, metrics=Metrics(registry)) as url,
        begun(url + dialect.path, dialect.request()) as running,
    ):
        await running.until(dialect.said)
        recorder.full = True
        turn.set()
        assert (await running.rest()).body == dialect.for_client
        assert running.complete
    assert registry.get_sample_value("unrecorded_total") == 3 + len(dialect.thoughts)  # tokens, a call, and the end
    assert not recorder.all(InterceptionEnded)


async def test_a_websocket_handshake_is_told_what_is_served(bridge: str, provider: Provider) -> None:
    """426 makes Codex fall back to HTTP at once; any other status costs it seconds, or the turn."""
    handshake = (
        f"GET {RESPONSES.path} HTTP/1.1\r\nHost: bridge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = await say(bridge, handshake.encode())
    assert answer.status == 426
    assert answer.header("Upgrade")
    assert RESPONSES.error_in(answer.body)[1] == "websocket_not_supported"
    assert answer.id
    assert not provider.asked


@pytest.mark.parametrize("path", ["/anthropic", "/anthropic/", "/anthropic/api/hello"])
async def test_a_probe_is_answered_here(path: str, provider: Provider, recorder: ListRecorder) -> None:
    """Claude Code asks so when it starts; it does not say who it is."""
    async with serving(bridge_to(provider.url, recorder)) as url:
        answer = await ask(url + path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.id
        assert (await ask(url + path, method="GET")).status == 404
    assert not provider.asked
    assert not recorder.records


@pytest.mark.parametrize(
    ("method", "path", "dialect"),
    [
        ("GET", "/anthropic/v1/messages", MESSAGES),
        ("PUT", "/anthropic/v1/messages", MESSAGES),
        ("POST", "/anthropic/v1/complete", MESSAGES),
        ("POST", "/anthropic/v1/messages/batches", MESSAGES),
        ("POST", "/anthropic/v1/chat/completions", MESSAGES),
        ("GET", "/openai/v1/chat/completions", CHAT),
        ("POST", "/openai/v1/embeddings", CHAT),
        ("POST", "/openai/chat/completions", CHAT),
        ("POST", "/copilot/v1/chat/completions", CHAT),
        ("HEAD", "/openai", None),
        ("GET", "/", None),
        ("GET", "/v1/messages", None),
        ("POST", "/mistral/v1/messages", None),
        ("POST", "/anthropic", MESSAGES),
    ],
)
async def test_no_other_route_is_served(
    method: str, path: str, dialect: Dialect | None, bridge: str, provider: Provider
) -> None:
    answer = await ask(bridge + path, b"{}" if method != "GET" else b"", method=method)
    assert answer.status == 404
    assert answer.id
    if method != "HEAD":
        message = (dialect or CHAT).error_in(answer.body)[2]
        assert message == f"route not supported: {method} {path}"
    assert not provider.asked


async def test_a_body_over_the_limit_is_not_read(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    async with bridged(provider.url, recorder, max_body_size=1000) as url:
        fits = dialect.request(stream=False, user="x" * (1000 - len(dialect.request(stream=False, user=""))))
        provider.says(document(dialect.document))
        assert len(fits) == 1000
        assert (await ask(url + dialect.path, fits)).status == 200
        for answer in (
            await ask(url + dialect.path, fits + b" "),
            await say(url, f"POST {dialect.path} HTTP/1.1\r\nHost: b\r\nContent-Length: 99999999\r\n\r\n".encode()),
            await say(url, _chunked(dialect.path, fits[:500], fits[500:] + b" ")),
        ):
            assert answer.status == 413
            assert dialect.error_in(answer.body)[2] == "the request body is larger than the 1000 bytes allowed"
            assert answer.id
    assert len(provider.asked) == 1
    assert len(recorder.all(Interception)) == 1


async def test_a_chunked_body_is_read(dialect: Dialect, bridge: str, provider: Provider) -> None:
    provider.says(document(dialect.document))
    body = dialect.request(stream=False)
    assert (await say(bridge, _chunked(dialect.path, body[:50], body[50:]))).body == dialect.document
    assert provider.last.body == body
    assert provider.last.header("Content-Length") == str(len(body))


async def test_every_answer_names_its_interception_once(dialect: Dialect, provider: Provider) -> None:
    """The provider's own header of that name would be somebody else's."""
    provider.says(document(dialect.document, headers=[("X-AIBridge-Other", "1")]))
    async with bridged(provider.url, ListRecorder()) as url:
        ids = {(await ask(url + dialect.path, dialect.request(stream=False))).header(ID) for _ in range(3)}
    assert len(ids) == 3


async def test_who_is_not_known_is_told_so(dialect: Dialect, provider: Provider, recorder: ListRecorder) -> None:
    """Before its body is looked at."""
    async with serving(bridge_to(provider.url, recorder)) as url:
        answer = await ask(url + dialect.path, b"{")
    assert answer.status == 401
    assert not provider.asked


def _chunked(path: str, *pieces: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bridge\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
