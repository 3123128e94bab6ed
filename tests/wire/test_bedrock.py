"""Claude at Bedrock: a request loses what Bedrock does not take, and an answer is put as Anthropic would put it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import Fault
from aibridge.wire import sse
from aibridge.wire.bedrock import answers, requests
from aibridge.wire.bedrock.models import BETAS, GATED, REMOVED, betas_for, thinks_adaptively
from support.bedrock import chunk, chunks, exception, frame
from support.dialects import MESSAGES

from .test_recorded_exchanges import ARCHIVES, sections

SONNET_45 = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS_45 = "eu.anthropic.claude-opus-4-5-20251101-v1:0"
OPUS_46 = "global.anthropic.claude-opus-4-6-v1"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"


def put(body: bytes, model: str = SONNET_45, betas: Sequence[str] = ()) -> bytes:
    return requests.invocation(body, requests.asked(body), model, betas)


def request(**members: Any) -> bytes:
    return json.dumps({"model": "claude-x", "max_tokens": 32000, "messages": []} | members).encode()


def test_the_model_and_the_stream_go_and_the_version_comes() -> None:
    body = b'{ "model": "claude-sonnet-4-5", "max_tokens":  1e3,\n "messages": [{"role":"user"}], "stream": true }'
    assert put(body) == (
        b'{"anthropic_version":"bedrock-2023-05-31", "max_tokens":  1e3,\n "messages": [{"role":"user"}] }'
    )


@pytest.mark.skipif(not ARCHIVES.is_dir(), reason="no recorded exchanges lie beside the project")
def test_the_recorded_request() -> None:
    body = sections(ARCHIVES / "anthropic" / "simple_bedrock.txtar")["request"]
    assert json.loads(put(body)) == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 32000,
        "messages": json.loads(body)["messages"],
        "thinking": {"type": "enabled", "budget_tokens": 16000},
    }


@pytest.mark.parametrize("member", REMOVED)
@pytest.mark.parametrize("model", [SONNET_45, OPUS_45, OPUS_46, PROFILE])
def test_what_no_model_takes_is_removed(member: str, model: str) -> None:
    assert member not in json.loads(put(request(**{member: {"any": "value"}}), model, betas=list(BETAS)))


@pytest.mark.parametrize(
    ("model", "kept", "flags"),
    [
        (SONNET_45, ["context_management"], ["context-management-2025-06-27"]),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", ["context_management"], ["context-management-2025-06-27"]),
        (OPUS_45, ["output_config"], ["effort-2025-11-24"]),
        (OPUS_46, ["output_config"], []),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", [], []),
    ],
)
def test_members_of_a_beta_stay_where_the_model_takes_it(model: str, kept: list[str], flags: list[str]) -> None:
    members = {key: {"effort": "low"} for key in GATED}
    with_betas = json.loads(put(request(**members), model, [*GATED.values()]))
    assert [member for member in GATED if member in with_betas] == kept
    assert with_betas.get("anthropic_beta", []) == flags

    without = json.loads(put(request(**members), model))
    assert [member for member in GATED if member in without] == [member for member in kept if not flags]
    assert "anthropic_beta" not in without


def test_unknown_beta_flags_are_removed_and_others_take_bedrocks_name() -> None:
    asked = [
        "claude-code-20250219",
        "advanced-tool-use-2025-11-20",
        "tool-search-tool-2025-10-19",
        "afk-mode-2026-01-31",
    ]
    assert betas_for(SONNET_45, asked) == ["tool-search-tool-2025-10-19"]
    told = json.loads(put(request(anthropic_beta=["context-1m-2025-08-07", 5]), betas=asked))
    assert told["anthropic_beta"] == ["tool-search-tool-2025-10-19", "context-1m-2025-08-07"]


@pytest.mark.parametrize(
    ("effort", "max_tokens", "thinking"),
    [
        ("low", 10_000, {"type": "enabled", "budget_tokens": 2000}),
        ("medium", 10_000, {"type": "enabled", "budget_tokens": 5000}),
        ("high", 10_000, {"type": "enabled", "budget_tokens": 8000}),
        (None, 10_000, {"type": "enabled", "budget_tokens": 8000}),
        ("max", 10_000, {"type": "enabled", "budget_tokens": 9500}),
        ("low", 5119, {"type": "disabled"}),
        ("low", 5120, {"type": "enabled", "budget_tokens": 1024}),
        ("max", 1000, {"type": "disabled"}),
    ],
)
def test_adaptive_thinking_becomes_a_budget(effort: str | None, max_tokens: int, thinking: dict[str, Any]) -> None:
    members = {"output_config": {"effort": effort}} if effort else {}
    body = request(thinking={"type": "adaptive", "display": "summarized"}, max_tokens=max_tokens, **members)
    assert json.loads(put(body))["thinking"] == thinking
    assert json.loads(put(body, OPUS_46))["thinking"] == {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize("max_tokens", [None, "many", 1e400])
def test_without_a_number_of_tokens_thinking_stays_for_bedrock_to_judge(max_tokens: Any) -> None:
    body = request(thinking={"type": "adaptive"}, max_tokens=max_tokens).replace(b"Infinity", b"1e400")
    assert b'"thinking": {"type": "adaptive"}' in put(body)


def test_other_thinking_is_left_alone() -> None:
    for thinking in ({"type": "enabled", "budget_tokens": 2000}, {"type": "disabled"}, None, "adaptive"):
        assert json.loads(put(request(thinking=thinking)))["thinking"] == thinking


def test_a_profile_of_ones_own_is_what_the_client_calls_it() -> None:
    adaptive = {"thinking": {"type": "adaptive"}}
    assert json.loads(put(request(model="claude-opus-4-5", **adaptive), PROFILE))["thinking"]["type"] == "enabled"
    assert json.loads(put(request(model="claude-opus-4-6", **adaptive), PROFILE))["thinking"]["type"] == "adaptive"
    assert json.loads(put(request(model="opus", **adaptive), PROFILE))["thinking"]["type"] == "adaptive"


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", False),
        ("us.anthropic.claude-opus-4-20250514-v1:0", False),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", False),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", False),
        (SONNET_45, False),
        (OPUS_45, False),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", False),
        (OPUS_46, True),
        ("anthropic.claude-sonnet-4-6", True),
        ("anthropic.claude-opus-4-7", True),
        ("anthropic.claude-fable-5", True),
    ],
)
def test_who_thinks_adaptively(model: str, adaptive: bool) -> None:
    assert thinks_adaptively(model) is adaptive


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 5}', b"\xff"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(Fault):
        requests.asked(body)


def test_counting_wraps_an_invocation() -> None:
    body = b'{"model":"claude-x","messages":[{"role":"user","content":"hi"}],"system":"s"}'
    told = json.loads(requests.counting(body, requests.asked(body), SONNET_45, []))
    inner = base64.b64decode(told["input"]["invokeModel"]["body"])
    assert json.loads(inner) == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "hi"}],
        "system": "s",
    }


@pytest.mark.parametrize(
    ("thinking", "put_as", "max_tokens"),
    [
        ({"type": "adaptive"}, {"type": "disabled"}, 1),
        ({"type": "enabled", "budget_tokens": 5000}, {"type": "enabled", "budget_tokens": 5000}, 5001),
    ],
)
def test_counting_with_thinking(thinking: dict[str, Any], put_as: dict[str, Any], max_tokens: int) -> None:
    body = json.dumps({"model": "claude-x", "messages": [], "thinking": thinking}).encode()
    told = json.loads(requests.counting(body, requests.asked(body), SONNET_45, []))
    inner = json.loads(base64.b64decode(told["input"]["invokeModel"]["body"]))
    assert (inner["thinking"], inner["max_tokens"]) == (put_as, max_tokens)


# Answers

members = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=3)
events = st.lists(st.tuples(st.sampled_from(["ping", "message_start", "x"]), members, st.booleans()), max_size=5)


def heard(pieces: Sequence[bytes]) -> tuple[bytes, str | None]:
    """The server-sent events of a stream, and why it can not go on."""
    frames = answers.EventFrames("bedrock", [], "req-1")
    told = b"".join(frames.feed(piece) for piece in pieces) + frames.close()
    return told, frames.fault.message if frames.fault else None


@given(events, st.lists(st.integers(0, 2000), max_size=8), st.booleans())
def test_events_are_the_same_however_their_frames_are_cut(
    events: list[tuple[str, dict[str, Any], bool]], places: list[int], damaged: bool
) -> None:
    data = [json.dumps({**members, "type": kind}, indent=1 if pretty else None) for kind, members, pretty in events]
    whole = b"".join(chunk(each.encode()) for each in data) + b"\0" * (20 if damaged else 0)
    cuts = sorted({min(place, len(whole)) for place in places})
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    told, why = heard(pieces)
    assert (told, why) == heard([whole])
    assert bool(why) is damaged
    found = sse.EventSplitter().feed(told)
    assert [json.loads(sse.data_of(event)) for event in found] == [json.loads(each) for each in data]
    assert [event.partition(b"\n")[0].decode() for event in found] == [f"event: {kind}" for kind, _, _ in events]


def test_a_stream_is_told_as_anthropic_tells_it() -> None:
    told, why = heard(chunks(MESSAGES.events))
    assert told == MESSAGES.stream
    assert why is None


def test_what_bedrock_adds_to_an_event_passes() -> None:
    event = b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":3}}'
    assert heard([chunk(event)])[0] == b"event: message_stop\ndata: " + event + b"\n\n"


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("throttlingException", "rate_limit_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelTimeoutException", "timeout_error"),
        ("validationException", "invalid_request_error"),
        ("internalServerException", "api_error"),
        ("modelStreamErrorException", "api_error"),
        ("somethingNewException", "api_error"),
    ],
)
def test_an_exception_becomes_an_error_event(kind: str, type_: str) -> None:
    told, why = heard([chunk(b'{"type":"ping"}'), exception(kind, "Too many tokens.")])
    name, _, data = told.removeprefix(b'event: ping\ndata: {"type":"ping"}\n\n').partition(b"\n")
    assert (name, why) == (b"event: error", None)
    assert json.loads(sse.data_of(data)) == {
        "type": "error",
        "error": {"type": type_, "message": "Too many tokens."},
        "request_id": "req-1",
    }


def test_an_error_frame_becomes_an_error_event() -> None:
    told, _ = heard([frame({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Oh."}, b"")])
    assert json.loads(sse.data_of(told))["error"] == {"type": "api_error", "message": "Oh."}


def test_an_exception_that_says_nothing_is_named() -> None:
    told, _ = heard([frame({":message-type": "exception", ":exception-type": "throttlingException"}, b"\xff")])
    assert json.loads(sse.data_of(told))["error"]["message"] == "throttlingException"


def test_other_frames_are_passed_over_and_broken_ones_are_not() -> None:
    headers = {":message-type": "event", ":event-type": "initial-response"}
    assert heard([frame(headers, b"{}")]) == (b"", None)
    broken = frame({":message-type": "event", ":event-type": "chunk"}, b'{"bytes": "?"}')
    assert heard([chunk(b"{}"), broken]) == (
        b"data: {}\n\n",
        "the answer of bedrock broke off: a frame holds no event",
    )


def error(text: bytes, status: int = 400, kind: str = "") -> bytes:
    document = answers.ErrorDocument([], status, kind, "req-9")
    return b"".join(document.feed(text[at : at + 3]) for at in range(0, len(text), 3)) + document.close()


@pytest.mark.parametrize(
    ("text", "status", "kind", "type_"),
    [
        (b'{"message":"m"}', 400, "ValidationException", "invalid_request_error"),
        (b'{"message":"m"}', 429, "ThrottlingException", "rate_limit_error"),
        (b'{"message":"m"}', 429, "ModelNotReadyException", "overloaded_error"),
        (b'{"Message":"m"}', 403, "AccessDeniedException", "permission_error"),
        (
            b'{"__type":"com.amazon.coral.service#UnrecognizedClientException","message":"m"}',
            403,
            "",
            "authentication_error",
        ),
        (b'{"message":"m"}', 404, "", "not_found_error"),
        (b'{"message":"m"}', 424, "ModelErrorException", "api_error"),
        (b'{"message":"m"}', 418, "Odd", "api_error"),
    ],
)
def test_an_error_is_told_in_anthropics_shape(text: bytes, status: int, kind: str, type_: str) -> None:
    assert json.loads(error(text, status, kind)) == {
        "type": "error",
        "error": {"type": type_, "message": "m"},
        "request_id": "req-9",
    }


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"{}", b'{"type":"error","error":{"type":"t","message":"m"}}', b'{"message":5}', b"[" * 9000],
)
def test_what_is_no_error_of_aws_passes_as_it_came(text: bytes) -> None:
    assert error(text) == text


def test_a_long_error_passes_as_it_comes() -> None:
    document = answers.ErrorDocument([], 500, "", "")
    long = b'{"message":"' + b"m" * answers.MAX_DOCUMENT
    assert document.feed(long) == long
    assert document.feed(b'"}') == b'"}'
    assert document.close() == b""


def test_a_count() -> None:
    document = answers.CountDocument([])
    assert document.feed(b'{"inputTokens"') + document.feed(b":42}") + document.close() == b'{"input_tokens":42}'
    other = answers.CountDocument([])
    assert other.feed(b"{}") + other.close() == b"{}"


@pytest.mark.parametrize(("told", "name"), [("A", "A"), ("A:http://x/", "A"), ("com.amazon#A", "A"), ("", "")])
def test_names_of_errors(told: str, name: str) -> None:
    assert answers.error_name(told) == name
