"""What holds for every answer: how it is cut changes nothing, and nothing that it says does harm."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import islice, repeat
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.errors import Fault
from aibridge.wire import sse
from aibridge.wire.dialect import Dialect

from .hearing import CHAT, DIALECTS, MESSAGES, STREAM, STREAM_WITH_USAGE, cut, hear, one_by_one, stream_reader, streamed
from .streams import streams, texts

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: str(dialect.name))
every_stream = pytest.mark.parametrize(
    ("dialect", "request_body"),
    [(dialect, STREAM_WITH_USAGE) for dialect in DIALECTS] + [(CHAT, STREAM)],
    ids=["messages", "chat", "responses", "chat withholding usage"],
)


@every_stream
@given(st.data())
def test_a_stream_shows_the_same_however_it_is_cut(dialect: Dialect, request_body: bytes, data: st.DataObject) -> None:
    stream = data.draw(streams(dialect))
    at_once = streamed(dialect, stream, request_body)
    pieces = cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))

    assert hear(stream_reader(dialect, request_body), pieces) == at_once
    assert hear(stream_reader(dialect, request_body), one_by_one(stream)) == at_once


@every_dialect
@given(st.data())
def test_a_stream_that_needs_no_change_is_relayed_at_once_and_as_it_came(dialect: Dialect, data: st.DataObject) -> None:
    stream = data.draw(streams(dialect) | st.binary())
    reader = stream_reader(dialect)
    assert not reader.rewrites
    for piece in cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8))):
        assert reader.feed(piece) == piece
    assert reader.close() == b""


@every_dialect
@given(st.data())
def test_the_client_may_have_all_but_the_end_before_it_is_read(dialect: Dialect, data: st.DataObject) -> None:
    stream = data.draw(streams(dialect))
    reader = stream_reader(dialect)
    for piece in cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8))):
        ended, ahead = reader.ended, reader.ahead(piece)
        reader.feed(piece[:ahead])
        assert reader.ended == ended
        reader.feed(piece[ahead:])


@every_dialect
def test_of_a_burst_only_the_end_waits_to_be_read(dialect: Dialect) -> None:
    said = [b"event: a\ndata: {}\n\n"] * 3
    end = {
        "messages": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        "chat_completions": b"data: [DONE]\n\n",
        "responses": b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
    }[dialect.name]
    reader = stream_reader(dialect)
    assert reader.ahead(b"".join(said)) == len(b"".join(said))
    assert reader.ahead(b"".join([*said, end])) == len(b"".join(said))
    assert reader.ahead(end) == 0


@given(streams(CHAT))
def test_only_usage_that_stands_alone_is_withheld(stream: bytes) -> None:
    heard = streamed(CHAT, stream, STREAM)
    assert heard.turn == streamed(CHAT, stream, STREAM_WITH_USAGE).turn

    splitter = sse.EventSplitter()
    left = heard.client
    for event in splitter.feed(stream):
        if left.startswith(event):
            left = left.removeprefix(event)
        else:
            assert _is_usage_alone(sse.data_of(event))
    rest = splitter.rest()
    assert left == rest or (left == b"" and (_is_cut(sse.data_of(rest)) or _is_usage_alone(sse.data_of(rest))))


def _is_usage_alone(data: bytes) -> bool:
    told = json.loads(data)
    said = [choice for choice in told["choices"] if any([*(choice.get("delta") or {}).values()])]
    return not said and not any(choice.get("finish_reason") for choice in told["choices"]) and bool(told["usage"])


def _is_cut(data: bytes) -> bool:
    """The data is the beginning of an event whose end never came."""
    try:
        json.loads(data)
    except ValueError:
        return True
    return False


def _noise(sample: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and events that were damaged somewhere."""
    damaged = st.tuples(st.integers(0, len(sample)), st.integers(0, 20), st.binary(max_size=5)).map(
        lambda at: sample[: at[0]] + at[2] + sample[at[0] + at[1] :]
    )
    return st.binary() | damaged


SAMPLE = sse.write(
    b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","input":{"a":"b"}},'
    b'"choices":[{"delta":{"tool_calls":[{"index":0}]}}],"usage":{"input_tokens":"12","odd":{"a":1}},'
    b'"response":{"id":"r","usage":{"a":-1e9}},"item":{"type":"function_call","action":{"a":[1]}},"error":{"a":"\\ud83d"}}'
)


@every_stream
@given(st.lists(_noise(SAMPLE), max_size=4))
def test_no_bytes_of_a_stream_do_harm(dialect: Dialect, request_body: bytes, pieces: list[bytes]) -> None:
    heard = hear(stream_reader(dialect, request_body), pieces)
    assert heard == streamed(dialect, b"".join(pieces), request_body)


@every_dialect
@pytest.mark.parametrize("status", [200, 500])
@given(_noise(SAMPLE.removeprefix(b"data: ")))
def test_no_bytes_of_a_document_do_harm(dialect: Dialect, status: int, body: bytes) -> None:
    request = dialect.parse(b'{"model":"m"}')
    heard = hear(dialect.document_reader(request, status), [body])
    assert heard.client == body
    assert hear(dialect.document_reader(request, status), one_by_one(body)) == heard


REQUEST = (
    b'{"model":"m","stream":true,"stream_options":{"include_usage":false,"x":1e5},"metadata":{"user_id":"u"},'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"\\ud83d\xc3\xa9"}]}],"input":[{"role":"user"}]}'
)


@every_dialect
@given(_noise(REQUEST))
def test_no_bytes_of_a_request_do_harm(dialect: Dialect, body: bytes) -> None:
    with suppress(Fault):
        request = dialect.parse(body)
        assert request.body == body or request.withholds_usage


@pytest.mark.parametrize("request_body", [STREAM, STREAM_WITH_USAGE])
def test_an_event_without_an_end_is_given_up(request_body: bytes) -> None:
    endless = repeat(b"data: " + b"a" * (1 << 20))
    with pytest.raises(sse.EventTooLarge):
        hear(stream_reader(CHAT, request_body), islice(endless, 1 + (sse.MAX_EVENT >> 20)))


@settings(max_examples=50)
@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_calls_are_put_together_whatever_order_their_pieces_come_in(calls: list[list[str]], order: Random) -> None:
    """Calls side by side, the pieces of each in their order, those of different calls mixed anyhow."""
    waiting = [list(pieces) for pieces in calls]
    messages, chat = [], []
    for index in range(len(calls)):
        block = {"type": "tool_use", "id": f"call_{index}", "name": "f", "input": {}}
        messages.append({"type": "content_block_start", "index": index, "content_block": block})
        chat.append({"index": index, "id": f"call_{index}", "function": {"name": "f", "arguments": ""}})
    while any(waiting):
        index = order.choice([index for index, pieces in enumerate(waiting) if pieces])
        piece = waiting[index].pop(0)
        delta = {"type": "input_json_delta", "partial_json": piece}
        messages.append({"type": "content_block_delta", "index": index, "delta": delta})
        chat.append({"index": index, "function": {"arguments": piece}})

    said = [
        streamed(MESSAGES, b"".join(sse.write(json.dumps(event).encode()) for event in messages)),
        streamed(
            CHAT,
            b"".join(sse.write(json.dumps({"choices": [{"delta": {"tool_calls": [c]}}]}).encode()) for c in chat),
        ),
    ]
    for heard in said:
        assert [call.id for call in heard.turn.tool_calls] == [f"call_{index}" for index in range(len(calls))]
    assert [call.arguments for call in said[0].turn.tool_calls] == ["".join(pieces) or "{}" for pieces in calls]
    assert [call.arguments for call in said[1].turn.tool_calls] == ["".join(pieces) for pieces in calls]
