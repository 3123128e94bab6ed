"""Bodies that travel packed: requests are read and forwarded as they came, answers relayed as they came and read."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from aibridge.records import InterceptionEnded, PromptUsage, TokenUsage
from bridge.test_relay import check_records
from support.client import ask
from support.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from support.provider import Provider, document, events
from support.recorder import ListRecorder
from support.serving import bridged

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_packed_request_is_forwarded_as_it_came(
    coding: str, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(dialect.document))
    packed = CODINGS[coding](dialect.request(stream=False))
    answer = await ask(bridge + dialect.path, packed, {"Content-Encoding": coding})
    assert answer.status == 200
    assert (provider.last.body, provider.last.header("Content-Encoding")) == (packed, coding)
    check_records(recorder, dialect, stream=False)


async def test_a_packed_request_that_must_be_edited_is_forwarded_unpacked(bridge: str, provider: Provider) -> None:
    provider.says(events(CHAT.stream))
    answer = await ask(bridge + CHAT.path, gzip.compress(CHAT.request()), {"Content-Encoding": "gzip"})
    assert answer.body == CHAT.for_client
    assert provider.last.header("Content-Encoding") is None
    assert provider.last.json() == json.loads(CHAT.request()) | {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("coding", "body", "said"),
    [
        ("gzip", b"not gzip at all", "not what its Content-Encoding says"),
        ("zstd", b"{}", "not what its Content-Encoding says"),
        ("br", b"\xff\xff\xff", "not what its Content-Encoding says"),
        ("lz4", b"{}", "'lz4' is not supported; gzip, deflate, br and zstd are"),
        ("gzip, gzip, gzip", b"{}", "too many codings"),
        ("gzip", gzip.compress(b'{"model": "m"', mtime=0)[:-12], "is not JSON"),
    ],
    ids=["no gzip", "no zstd", "no brotli", "unknown", "too many", "truncated"],
)
async def test_a_packed_request_that_can_not_be_read_is_refused(
    coding: str, body: bytes, said: str, dialect: Dialect, bridge: str, provider: Provider
) -> None:
    answer = await ask(bridge + dialect.path, body, {"Content-Encoding": coding})
    assert answer.status == 400
    assert said in dialect.error_in(answer.body)[2]
    assert not provider.asked


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_a_request_that_unpacks_to_too_much_is_refused(
    coding: str, provider: Provider, recorder: ListRecorder
) -> None:
    """A few kilobytes may hold many megabytes: nobody unpacks them all."""
    bomb = CODINGS[coding](b" " * (64 << 20))
    assert len(bomb) < 100_000
    async with bridged(provider.url, recorder, max_body_size=1 << 20) as url:
        answer = await ask(url + MESSAGES.path, bomb, {"Content-Encoding": coding})
    assert answer.status == 413
    assert not provider.asked


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [10, 1 << 20])
async def test_a_packed_stream_is_relayed_as_it_came_and_read_all_the_same(
    coding: str, size: int, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    packed = CODINGS[coding](dialect.stream)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    provider.says(events(*pieces, headers=[("Content-Encoding", coding)]))
    answer = await ask(bridge + dialect.path, dialect.request(stream_options={"include_usage": True}))
    assert answer.header("Content-Encoding") == coding
    assert answer.body == packed
    check_records(recorder, dialect, stream=True)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_packed_document_is_relayed_as_it_came(
    coding: str, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    packed = CODINGS[coding](dialect.document)
    provider.says(document(packed, headers=[("Content-Encoding", coding)]))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert (answer.header("Content-Encoding"), answer.body) == (coding, packed)
    check_records(recorder, dialect, stream=False)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_packed_stream_of_which_something_is_withheld_is_unpacked(
    coding: str, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """The usage chunk, that the gateway asked for, can not be taken out of it otherwise."""
    provider.says(events(CODINGS[coding](CHAT.stream), headers=[("Content-Encoding", coding)]))
    answer = await ask(bridge + CHAT.path, CHAT.request())
    assert answer.header("Content-Encoding") is None
    assert answer.body == CHAT.for_client
    check_records(recorder, CHAT, stream=True)


async def test_an_answer_in_an_unknown_coding_is_relayed_but_not_understood(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(b"\x04\x22\x4d\x18", headers=[("Content-Encoding", "lz4")]))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert (answer.status, answer.body, answer.complete) == (200, b"\x04\x22\x4d\x18", True)
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "unreadable_answer")
    assert "'lz4' is not supported" in (ended.error_message or "")


async def test_an_answer_that_is_not_what_it_says_is_relayed_but_not_understood(
    dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(dialect.document, headers=[("Content-Encoding", "gzip")]))
    answer = await ask(bridge + dialect.path, dialect.request(stream=False))
    assert (answer.status, answer.body) == (200, dialect.document)
    assert recorder.one(InterceptionEnded).error_type == "unreadable_answer"


@pytest.mark.parametrize("spoken", [MESSAGES, RESPONSES], ids=lambda dialect: dialect.name)
async def test_a_bomb_is_relayed_but_not_unpacked_to_its_end(
    spoken: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    bomb = brotli.compress(b" " * (512 << 20), quality=1)
    provider.says(document(bomb, headers=[("Content-Encoding", "br")]))
    answer = await ask(bridge + spoken.path, spoken.request(stream=False))
    assert answer.body == bomb
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "unreadable_answer")
    assert recorder.one(PromptUsage)
    assert not recorder.all(TokenUsage)
