"""Requests that can not be read, errors of providers in all their shapes, and faults as each dialect tells them."""

from __future__ import annotations

import json

import pytest

from aibridge.errors import Fault, Kind
from aibridge.wire import sse
from aibridge.wire.dialect import Dialect, ProviderError
from aibridge.wire.document import MAX_ERROR_MESSAGE, DocumentReader

from .hearing import CHAT, DIALECTS, MESSAGES, RESPONSES, STREAM, hear, stream_reader, whole

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: str(dialect.name))


@every_dialect
@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", "the request body is empty"),
        (b"Hello?", "not JSON"),
        (b'{"model":"m"', "not JSON"),
        (b'{"model":"m"} {}', "not JSON"),
        (b'{"model":"m","n":NaN}', "not JSON"),
        (b'\xef\xbb\xbf{"model":"m"}', "not JSON"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"{}", "missing required field `model`|member `model`"),
        (b'{"model":null}', "member `model`: Expected `str`, got `null`"),
        (b'{"model":["m"]}', "member `model`: Expected `str`, got `array`"),
        (b'{"stream":true,"model":5,"messages":7}', "member `model`: Expected `str`, got `int`"),
        (b'{"model":"\xff"}', "not UTF-8"),
        (b'{"model":"m","messages":' + b"[" * 5000, "nested too deeply"),
        (b'{"model":"m","messages":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
    ],
)
def test_a_body_that_can_not_be_read_is_refused_with_its_cause(dialect: Dialect, body: bytes, cause: str) -> None:
    with pytest.raises(Fault, match=cause) as refused:
        dialect.parse(body)
    assert refused.value.kind is Kind.INVALID_REQUEST


@every_dialect
def test_what_is_not_looked_at_is_the_providers_to_judge(dialect: Dialect) -> None:
    body = b'{"model":"m","x":"\xe2\x82"}'
    assert dialect.parse(body).body == body


@every_dialect
def test_of_members_with_one_name_the_last_one_counts(dialect: Dialect) -> None:
    request = dialect.parse(b'{"model":"a","stream":false,"model":"b","stream":true}')
    assert (request.model, request.streaming) == ("b", True)


@every_dialect
def test_half_characters_of_a_request_stand_in_nobodys_way(dialect: Dialect) -> None:
    messages = b'[{"role":"user","content":"\\udc00 Hi"}]'
    request = dialect.parse(b'{"model":"m\\ud83d","messages":%s,"metadata":1,"input":1}' % messages)
    assert request.model == "m\ufffd"
    assert request.prompt == (None if dialect is RESPONSES else "\ufffd Hi")


@every_dialect
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            529,
            b'{"type":"error","error":{"type":"overloaded_error","message":"Later."}}',
            ("overloaded_error", "Later."),
        ),
        (400, b'{"error":{"message":"No.","type":null,"param":"n","code":"bad_n"}}', ("bad_n", "No.")),
        (400, b'{"error":{"code":400,"message":{"reason":"x"}}}', ("400", "{'reason': 'x'}")),
        (400, b'{"error":{"reason":"x"}}', (None, '{"reason":"x"}')),
        (404, b'{"error":"model not found"}', (None, "model not found")),
        (404, b'{"detail":"Not Found"}', (None, "Not Found")),
        (422, b'{"detail":[{"loc":["body"],"msg":"bad"}]}', (None, "[{'loc': ['body'], 'msg': 'bad'}]")),
        (403, b'{"message":"Forbidden","type":"AccessDenied"}', ("AccessDenied", "Forbidden")),
        (403, b'{"error":{"message":"cut \\ud83d"}}', (None, "cut \ufffd")),
        (500, b'{"error":null}', (None, "HTTP status 500")),
        (500, b"[]", (None, "HTTP status 500")),
        (502, b"<html>Bad Gateway</html>", (None, "HTTP status 502")),
        (502, b"\xff\xfe", (None, "HTTP status 502")),
        (503, b"", (None, "HTTP status 503")),
        (500, b"[" * 5000, (None, "HTTP status 500")),
    ],
)
def test_an_error_answer_is_read_in_any_shape(
    dialect: Dialect, status: int, body: bytes, error: tuple[str | None, str]
) -> None:
    heard = whole(dialect, body, status)
    assert heard.client == body
    assert heard.turn.error == ProviderError(*error)
    assert not heard.turn.complete


@every_dialect
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"text"', b"{}", b'{"type":"mess', b'{"id":\xff}', b"[" * 5000]
)
def test_an_answer_of_success_that_is_no_document_is_relayed_and_told(dialect: Dialect, body: bytes) -> None:
    heard = whole(dialect, body)
    assert heard.client == body
    assert heard.turn.error
    assert heard.turn.error.type == "unreadable_answer"
    assert not heard.turn.complete


@every_dialect
def test_a_long_error_is_kept_in_part(dialect: Dialect) -> None:
    error = whole(dialect, b'{"error":{"message":"%s"}}' % (b"a" * 100_000), 500).turn.error
    assert error == ProviderError(None, "a" * MAX_ERROR_MESSAGE)


@every_dialect
def test_a_document_beyond_the_limit_is_relayed_but_not_read(dialect: Dialect) -> None:
    class_of_reader = type(dialect.document_reader(dialect.parse(b'{"model":"m"}'), 200))
    assert issubclass(class_of_reader, DocumentReader)
    heard = hear(class_of_reader(200, limit=10), [b"01234", b"56789", b"0"])
    assert heard.client == b"01234567890"
    assert heard.turn.error == ProviderError("unreadable_answer", "the answer is longer than 10 bytes")


FAULT = Fault(Kind.UPSTREAM_FAULT, 'the connection to "upstream" broke')


def test_a_fault_is_told_in_the_shape_of_each_dialect() -> None:
    assert json.loads(MESSAGES.error_body(FAULT, "i-1")) == {
        "type": "error",
        "error": {"type": "api_error", "message": FAULT.message},
        "request_id": "i-1",
    }
    openai = {"error": {"message": FAULT.message, "type": "server_error", "param": None, "code": "server_error"}}
    assert json.loads(CHAT.error_body(FAULT, "i-1")) == openai
    assert json.loads(RESPONSES.error_body(FAULT, "i-1")) == openai


def test_a_stream_that_can_not_go_on_ends_in_an_event_of_its_dialect() -> None:
    event = MESSAGES.error_event(FAULT, "i-1", stream_reader(MESSAGES))
    assert event == b"event: error\ndata: " + MESSAGES.error_body(FAULT, "i-1") + b"\n\n"

    event = CHAT.error_event(FAULT, "i-1", stream_reader(CHAT))
    assert event == b"data: " + CHAT.error_body(FAULT, "i-1") + b"\n\n"


def test_a_response_fails_under_its_own_id_and_the_next_number() -> None:
    reader = stream_reader(RESPONSES)
    reader.feed(b'data: {"type":"response.created","sequence_number":6,"response":{"id":"resp_1"}}\n\n')
    event = RESPONSES.error_event(FAULT, "i-1", reader)

    assert event.startswith(b"event: response.failed\n")
    failed = json.loads(sse.data_of(event))
    assert failed["type"] == "response.failed"
    assert failed["sequence_number"] == 7
    assert failed["response"]["id"] == "resp_1"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": FAULT.message}


@every_dialect
def test_the_event_of_a_fault_never_runs_into_one_that_was_cut(dialect: Dialect) -> None:
    reader = stream_reader(dialect)
    begun = b'data: {"type":"response.created","sequence_number":6,"response":{"id":"re'
    client = reader.feed(begun) + reader.close()
    assert not reader.between_events

    client += dialect.error_event(FAULT, "i-1", reader)
    splitter = sse.EventSplitter()
    cut, told = splitter.feed(client)
    assert cut == begun + b"\n\n"
    assert FAULT.message in json.dumps(json.loads(sse.data_of(told))).replace('\\"', '"')
    assert splitter.rest() == b""


def test_whoever_withholds_usage_gives_whole_events_only_until_the_stream_breaks() -> None:
    reader = stream_reader(CHAT, STREAM)
    assert reader.feed(b'data: {"id":"a"}\n\ndata: {"id') == b'data: {"id":"a"}\n\n'
    assert reader.between_events
    assert not CHAT.error_event(FAULT, "i-1", reader).startswith(b"\n")


@every_dialect
def test_what_keeps_a_stream_alive_is_a_whole_event_that_shows_nothing(dialect: Dialect) -> None:
    heard = hear(stream_reader(dialect), [dialect.keep_alive])
    assert heard.turn == stream_reader(dialect).turn
    splitter = sse.EventSplitter()
    assert splitter.feed(dialect.keep_alive) == [dialect.keep_alive]
