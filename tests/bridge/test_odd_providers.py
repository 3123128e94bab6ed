"""Providers that answer what nobody expects: the client can tell, the records tell, and memory is bounded."""

from __future__ import annotations

import gzip
import resource
from collections.abc import Iterator

import pytest

from aibridge import OpenAIProvider, RequestBridge
from aibridge.records import InterceptionEnded, TokenUsage
from support.client import ask, begun
from support.dialects import CHAT, MESSAGES, Dialect
from support.provider import Piece, Provider, Reply, chunked, document, events, head, raw
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.waiting import at_rest, until

HTML = b"<!doctype html><title>Please sign in</title>"


async def test_a_page_where_a_document_was_due(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """A captive portal, a proxy's own page: relayed as it came, and known to be no success."""
    provider.says(document(HTML, content_type="text/html"))
    for stream in (False, True):
        answer = await ask(bridge + dialect.path, dialect.request(stream=stream))
        assert (answer.status, answer.body, answer.header("Content-Type")) == (200, HTML, "text/html")
    for ended in recorder.all(InterceptionEnded):
        assert (ended.status, ended.error_type) == ("failed", "unreadable_answer")
    assert not recorder.all(TokenUsage)


async def test_one_that_refuses_to_be_asked_for_usage(provider: Provider, recorder: ListRecorder) -> None:
    """Then it is not asked, and what it tells all the same passes as it came."""
    openai = OpenAIProvider(f"{provider.url}/v1", ask_for_usage=False)
    provider.says(events(CHAT.stream))
    async with RequestBridge([openai], recorder) as bridge, serving(asked_by("ada", bridge)) as url:
        answer = await ask(url + CHAT.path, CHAT.request())
    assert (answer.status, answer.body) == (200, CHAT.stream)
    assert provider.last.body == CHAT.request()
    assert recorder.one(InterceptionEnded).status == "completed"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"7", b"{}", b"[" * 100_000, b'{"id": 7, "usage": 7, "choices": 7, "output": 7}']
)
async def test_a_document_that_is_none(
    body: bytes, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(body))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert (answer.status, answer.body, answer.complete) == (200, body, True)
    assert recorder.one(InterceptionEnded).status == "failed"


@pytest.mark.parametrize(
    "usage",
    [
        b'{"input_tokens": -5, "output_tokens": 1e99, "prompt_tokens": "7", "completion_tokens": null}',
        b'{"input_tokens": {"a": 1}, "output_tokens": [1], "prompt_tokens": true, "completion_tokens": 1.5}',
        b'{"input_tokens": 99999999999999999999, "output_tokens": 1, "prompt_tokens": 99999999999999999999}',
        b'{"input_tokens": 1, "input_tokens_details": {"cached_tokens": 9}, "prompt_tokens": 1, '
        b'"prompt_tokens_details": {"cached_tokens": 9}}',
    ],
)
async def test_counts_that_are_none_are_kept_from_the_sums(
    usage: bytes, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    body = dialect.document[: dialect.document.rindex(b'"usage": ')] + b'"usage": ' + usage + b"}"
    if dialect.name == "messages":
        body = dialect.document.replace(b'"usage": ', b'"usage": ' + usage + b', "other": ')
    provider.says(document(body))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert answer.body == body
    counted = recorder.one(TokenUsage)
    for count in (counted.input_tokens, counted.output_tokens, counted.cache_read_input_tokens):
        assert 0 <= count < 1 << 63


@pytest.mark.parametrize(
    "stream",
    [
        b"data: not json\n\n",
        b"data: [1, 2]\n\n",
        b"data: {\n\n",
        b"data\n\n",
        b": only a comment\n\n",
        b"event: message_start\n\n",
        b'data: {"type": "unknown_event", "deep": ' + b"[" * 50_000 + b"}\n\n",
        b"id: 7\nretry: 10\nfield without a colon\n\n",
        b'data: {"type": 7, "choices": {"a": 1}}\n\n',
        b"\xff\xfe\x00garbage\n\n",
    ],
)
async def test_events_that_are_none_pass_and_change_nothing(
    stream: bytes, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(stream, *dialect.events))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert answer.body == stream + dialect.for_client
    assert recorder.one(InterceptionEnded).status == "completed"
    assert recorder.one(TokenUsage).output_tokens == 41


async def test_an_empty_stream_is_no_success(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events())
    answer = await ask(bridge + dialect.path, dialect.request())
    assert not answer.complete
    assert dialect.error_event_in(answer.body)
    assert recorder.one(InterceptionEnded).status == "failed"


@pytest.mark.parametrize("said", [-10, 10])
async def test_a_length_that_lies(
    said: int, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """Too long: the rest is missing, and the client can tell. Too short: what follows is not the answer's."""
    size = len(dialect.document) + said
    fields = [("Content-Type", "application/json"), ("Content-Length", str(size))]
    provider.says(raw(head(200, fields) + dialect.document))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert recorder.one(InterceptionEnded).status == "failed"
    if answer.status == 200:
        assert answer.body == dialect.document[:size]
        assert answer.complete is (said < 0)
    else:
        assert answer.status == 502
    provider.says(document(dialect.document))
    assert (await ask(bridge + dialect.path, dialect.request(stream=False))).body == dialect.document


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "five")],
        [("Content-Length", "5"), ("Content-Length", "6")],
        [("Transfer-Encoding", "cunked")],
        [("X-Long", "x" * 100_000)],
        [(f"X-{number}", "x" * 1000) for number in range(740)],
        [("X Bad", "1")],
    ],
    ids=["two framings", "no number", "two lengths", "unknown framing", "long field", "many fields", "bad name"],
)
async def test_a_head_that_is_wrong_is_no_success(
    fields: list[tuple[str, str]], bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(raw(head(200, [("Content-Type", "application/json"), *fields]) + b"5\r\nhello\r\n0\r\n\r\n"))
    answer = await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False))
    assert recorder.one(InterceptionEnded).status == "failed"
    assert answer.status == 502 or not answer.complete or b"hello" in answer.body


async def test_a_header_injected_by_the_provider_stays_one(bridge: str, provider: Provider) -> None:
    told = head(200, [("Content-Type", "application/json"), ("Content-Length", "2")]).replace(
        b"application/json", b"application/json\nX-Injected: 1"
    )
    provider.says(raw(told + b"{}"))
    answer = await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False))
    assert all("\n" not in value for _, value in answer.headers)


async def test_informational_answers_are_skipped(bridge: str, provider: Provider) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    provider.says(Reply([early, *document(MESSAGES.document).pieces]))
    answer = await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False))
    assert (answer.status, answer.body) == (200, MESSAGES.document)


def _endless(piece: bytes, size: int) -> Iterator[Piece]:
    yield b"data: "
    for _ in range(size // len(piece)):
        yield piece


async def test_an_event_without_end_is_given_up(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """Memory is bounded: after 32 MB without the end of an event, no more of it is waited for."""
    provider.says(chunked(_endless(b"x" * (1 << 20), 256 << 20), [("Content-Type", "text/event-stream")]))
    answer = await ask(bridge + dialect.path, dialect.request())
    assert not answer.complete
    assert "longer than" in dialect.error_event_in(answer.body)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "upstream_fault")
    assert provider.last.written < 64 << 20


@pytest.mark.parametrize("spoken", [MESSAGES, CHAT], ids=lambda dialect: dialect.name)
async def test_a_packed_event_without_end_is_no_danger_either(
    spoken: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """A gzip bomb: 160 MB in less than one. Chat's is unpacked for the client; Messages' only read."""
    bomb = gzip.compress(b"data: " + b"x" * (160 << 20), compresslevel=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    provider.says(events(bomb, headers=[("Content-Encoding", "gzip")]))
    answer = await ask(bridge + spoken.path, spoken.request())
    assert recorder.one(InterceptionEnded).status == "failed"
    assert len(answer.body) <= max(len(bomb), 40 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


async def test_a_provider_that_outruns_the_client_is_held_back(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """48 MB for a client that does not read: most of them stay with the provider."""
    comment = b": " + b"x" * 65_000 + b"\n\n"
    rest = b"".join(dialect.events[dialect.spoken + 1 :])

    def pieces() -> Iterator[Piece]:
        yield dialect.before()
        for _ in range(740):
            yield comment
        yield rest

    provider.says(chunked(pieces(), [("Content-Type", "text/event-stream")]))
    async with begun(bridge + dialect.path, dialect.request()) as answer:
        await until(lambda: provider.asked, "the provider was asked")
        held = await at_rest(lambda: provider.last.written)
        assert held < 24 << 20
        await answer.rest()
    assert answer.complete
    assert len(answer.body) == len(dialect.for_client) + 740 * len(comment)
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_what_a_slow_client_has_not_read_yet_survives_a_broken_connection(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """The whole answer was said before the connection broke: nobody's loss, however slowly it is read."""
    comment = b": " + b"x" * 65_000 + b"\n\n"

    def pieces() -> Iterator[Piece]:
        yield dialect.before()
        for _ in range(100):
            yield comment
        yield b"".join(dialect.events[dialect.spoken + 1 :])

    provider.says(Reply([*list(chunked(list(pieces()), [("Content-Type", "text/event-stream")]).pieces)[:-1]], False))
    async with begun(bridge + dialect.path, dialect.request()) as answer:
        await until(lambda: provider.asked, "the provider was asked")
        await at_rest(lambda: provider.last.written)
        await answer.rest()
    assert len(answer.body) == len(dialect.for_client) + 100 * len(comment)
    assert recorder.one(InterceptionEnded).status == "completed"
