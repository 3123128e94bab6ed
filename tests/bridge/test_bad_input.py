"""Whatever a client sends, it is told what is wrong with it, nothing goes upstream, and the next request is served."""

from __future__ import annotations

import asyncio
import json

import pytest

from aibridge.records import Interception
from support.client import ask, say
from support.dialects import MESSAGES, Dialect
from support.provider import Provider, document
from support.recorder import ListRecorder

BODIES = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "truncated": b'{"model": "m", "messages": [{"role": "us',
    "more than one value": b'{"model": "m"} {}',
    "no object": b'["model"]',
    "a string": b'"model"',
    "null": b"null",
    "a model that is not UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "a form": b"model=m&stream=true",
    "no model": b'{"messages": []}',
    "a model that is none": b'{"model": {"a": 1}}',
    "model null": b'{"model": null}',
    "100,000 brackets": b'{"model": ' + b"[" * 100_000,
    "100,000 pairs of brackets as model": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number too long": b'{"model": 1' + b"0" * 100_000 + b"}",
    "a NUL": b'{"model": "m"\x00}',
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(1000),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_is_no_request_is_refused(
    body: bytes, dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    answer = await ask(bridge + dialect.path, body, {"Content-Type": "application/json"})
    assert answer.status == 400
    kind, _, message = dialect.error_in(answer.body)
    assert kind == "invalid_request_error"
    assert "body" in message
    assert len(message) < 500
    assert answer.id
    assert not provider.asked
    assert not recorder.records


@pytest.mark.parametrize("place", ["messages", "unknown"])
async def test_what_is_nested_deeply_is_the_providers_to_judge_or_refused(
    place: str, dialect: Dialect, bridge: str, provider: Provider
) -> None:
    """It never takes the gateway down."""
    provider.says(document(dialect.document))
    deep = b"[" * 100_000 + b"]" * 100_000
    body = dialect.request(stream=False)[:-1] + b', "%b": %b}' % (place.encode(), deep)
    answer = await ask(bridge + dialect.path, body)
    assert answer.status in (200, 400)
    assert (await ask(bridge + dialect.path, dialect.request(stream=False))).status == 200


async def test_text_that_is_not_utf_8_is_refused_or_the_providers_to_judge(
    dialect: Dialect, bridge: str, provider: Provider
) -> None:
    """It is forwarded as it came, or not at all."""
    provider.says(document(b'{"error": {"type": "invalid_request_error", "message": "no"}}', 400))
    for odd in (b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf"):
        body = dialect.request(stream=False, user="ODD").replace(b"ODD", odd)
        assert (await ask(bridge + dialect.path, body)).status == 400
        assert not provider.asked or provider.last.body == body


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_the_content_type_is_the_providers_to_judge(
    content_type: str, dialect: Dialect, bridge: str, provider: Provider
) -> None:
    provider.says(document(dialect.document))
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await ask(bridge + dialect.path, dialect.request(stream=False), headers)).status == 200
    assert provider.last.header("Content-Type") == (content_type or None)


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "no list"},
        {"messages": [None, 7, "text"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": 7, "content": {"a": 1}}]},
        {"messages": [{"role": "user", "content": [None, {"type": 7}, {"type": "text", "text": {}}]}]},
        {"input": {"no": "list"}},
        {"input": [None, 7, {"type": 7}]},
        {"stream": "yes", "stream_options": 7, "metadata": 7, "prompt_cache_key": {}, "client_metadata": []},
        {"metadata": {"user_id": {"a": 1}}},
    ],
)
async def test_members_that_are_odd_are_the_providers_to_judge(
    odd: dict[str, object], dialect: Dialect, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(document(b'{"error": {"type": "invalid_request_error", "message": "no"}}', 400))
    body = json.dumps({"model": "m"} | odd).encode()
    answer = await ask(bridge + dialect.path, body)
    assert (answer.status, answer.json()["error"]["message"]) == (400, "no")
    assert provider.last.body == body
    assert recorder.one(Interception).model == "m"


async def test_33_megabytes_are_refused_and_32_are_not(bridge: str, provider: Provider) -> None:
    provider.says(document(MESSAGES.document))
    padding = (32 << 20) - len(MESSAGES.request(stream=False, user=""))
    most = MESSAGES.request(stream=False, user="x" * padding)
    assert (await ask(bridge + MESSAGES.path, most)).status == 200
    assert provider.last.body == most
    answer = await ask(bridge + MESSAGES.path, most + bytes(1 << 20))
    assert answer.status == 413
    assert MESSAGES.error_in(answer.body)[0] == "request_too_large"
    assert len(provider.asked) == 1


HEAD = f"POST {MESSAGES.path} HTTP/1.1\r\nHost: bridge\r\n".encode()
BODY = MESSAGES.request(stream=False)
SMUGGLED = b"GET /anthropic/v1/models HTTP/1.1\r\nHost: bridge\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"X-Bad : 1\r\nX Bad: 1\r\n\r\n",
        HEAD + b"X-Nul: a\x00b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(80) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_never_reaches_the_provider(
    request_bytes: bytes, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    """Where two readers could disagree on where a request ends, a second one could be smuggled in."""
    provider.says(document(MESSAGES.document))
    answer = None
    try:
        answer = await say(bridge, request_bytes)
    except asyncio.IncompleteReadError:
        pass  # closed without an answer
    assert answer is None or 400 <= answer.status < 500
    assert not provider.asked
    assert not recorder.records
    assert (await ask(bridge + MESSAGES.path, BODY)).status == 200


async def test_a_header_can_not_be_smuggled_upstream(bridge: str, provider: Provider) -> None:
    """A bare line feed or carriage return within a value is not the end of it to everybody."""
    provider.says(document(MESSAGES.document))
    for line_end in (b"\n", b"\r", b"\r\n "):
        length = b"Content-Length: %d\r\n\r\n" % len(BODY)
        before = len(provider.asked)
        try:
            await say(bridge, HEAD + b"X-A: 1" + line_end + b"X-Api-Key: evil\r\n" + length + BODY)
        except asyncio.IncompleteReadError:
            continue
        for asked in provider.asked[before:]:
            assert asked.header("X-Api-Key") != "evil-and-more"
            assert not any("\r" in value or "\n" in value for _, value in asked.headers)


async def test_requests_one_after_the_other_on_one_connection(bridge: str, provider: Provider) -> None:
    """A bad one in between does not mix them up."""
    provider.says(document(MESSAGES.document))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(bridge.rpartition(":")[2]))
    for body, status in [(BODY, 200), (b"{", 400), (BODY, 200)]:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
            await reader.readexactly(int(length.removeprefix(b"content-length: ")))
        assert head.startswith(b"HTTP/1.1 %d " % status)
    writer.close()
    await writer.wait_closed()


async def test_odd_headers_do_no_harm(bridge: str, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(MESSAGES.document))
    odd = {
        "User-Agent": "\xff\xfe" + "x" * 2000,
        "X-Claude-Code-Session-Id": " ",
        "X-Empty": "",
        "Authorization": "Bearer",
        "Content-Encoding": "identity",
        "Expect": "100-continue",
    }
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in odd.items())
    request = HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    reader, writer = await asyncio.open_connection("127.0.0.1", int(bridge.rpartition(":")[2]))
    writer.write(request)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 100 " in head:
            head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert recorder.one(Interception).client_session_id is None
