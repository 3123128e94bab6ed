"""Bedrock behind Messages: the official SDK talks to what it takes for Anthropic, and AWS gets what it can read."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, BedrockProvider, Metrics, ModelRoute, RequestBridge
from aibridge.records import Interception, InterceptionEnded, ModelThought, PromptUsage, TokenUsage, ToolUsage
from support.bedrock import (
    KEY_ID,
    REGION,
    SECRET,
    Bedrock,
    answer,
    chunk,
    chunks,
    exception,
    frames,
    is_signed,
    key_of,
    refusal,
    without_aws,
)
from support.client import ask, begun
from support.dialects import MESSAGES, PROMPT
from support.provider import CLOSE, Provider, document, error, events
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.speech import SPEECHES, TIDES, Call, Part, Text
from support.tools import Tools

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
SMALL = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3"
PATH = "/bedrock/v1/messages"
KEYS = {"access_key": KEY_ID, "access_key_secret": SECRET}


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_aws(monkeypatch, tmp_path)


@pytest.fixture
async def provider() -> AsyncIterator[Bedrock]:
    async with Bedrock() as listening:
        yield listening


@asynccontextmanager
async def bridged(
    provider: Bedrock, recorder: ListRecorder, toolbox: Any = None, dump_dir: Path | None = None, **settings: Any
) -> AsyncIterator[str]:
    """The URL of a bridge to the stand-in, asked by `ada`."""
    known: dict[str, Any] = {"region": REGION, "model": MODEL, "small_fast_model": SMALL, "max_retries": 0}
    keys = {} if "api_key" in settings else KEYS
    bedrock = BedrockProvider(provider.url, **known | keys | settings)
    bridge = RequestBridge([bedrock], recorder, Metrics(CollectorRegistry()), toolbox=toolbox, dump_dir=dump_dir)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        yield url


@pytest.fixture
async def bridge(provider: Bedrock, recorder: ListRecorder) -> AsyncIterator[str]:
    async with bridged(provider, recorder) as url:
        yield url


@pytest.fixture
async def client(bridge: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="sk-ant-of-ada", base_url=f"{bridge}/bedrock", max_retries=0) as sdk:
        yield sdk


def asking(**members: Any) -> Any:
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 4000,
        "messages": [{"role": "user", "content": PROMPT}],
    } | members


async def test_a_stream(client: anthropic.AsyncAnthropic, provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(frames(*chunks(MESSAGES.events)))
    async with client.messages.stream(**asking(metadata={"user_id": "ada"})) as stream:
        message = await stream.get_final_message()

    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert stream.request_id == "req-1"
    asked = provider.last
    assert asked.target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
    assert asked.json() == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 4000,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    assert asked.header("Content-Type") == asked.header("Accept") == "application/json"
    assert not asked.all("X-Api-Key") + asked.all("anthropic-version")
    assert b"sk-ant-of-ada" not in str(asked.headers).encode()

    begun = recorder.one(Interception)
    assert (begun.provider, begun.model, begun.streaming) == ("bedrock", "claude-sonnet-5-5", True)
    assert (begun.credential_kind, begun.credential_hint) == ("centralized", "AKID...0123")
    assert begun.metadata["upstream_model"] == MODEL
    usage = recorder.one(TokenUsage)
    counted = (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens)
    assert counted == MESSAGES.tokens
    assert recorder.one(PromptUsage).prompt == PROMPT
    assert recorder.one(ToolUsage).tool == "read_tides"
    assert [(thought.metadata["source"], thought.content) for thought in recorder.all(ModelThought)] == [
        *MESSAGES.thoughts
    ]
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_a_document(client: anthropic.AsyncAnthropic, provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(answer(MESSAGES.document))
    message = await client.messages.create(**asking(model="claude-haiku-5-5"))
    assert message.id == MESSAGES.response_id
    assert message._request_id == "req-1"
    quoted = "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3"
    assert provider.last.target == f"/model/{quoted}/invoke"
    assert recorder.one(Interception).metadata["upstream_model"] == SMALL
    assert recorder.one(TokenUsage).input_tokens == MESSAGES.tokens[0]


async def test_beta_flags_go_into_the_body(client: anthropic.AsyncAnthropic, provider: Bedrock) -> None:
    provider.says(answer(MESSAGES.document))
    await client.beta.messages.create(
        **asking(context_management={"edits": []}),
        betas=["context-management-2025-06-27", "files-api-2025-04-14", "interleaved-thinking-2025-05-14"],
    )
    asked = provider.last
    assert asked.target.endswith("/invoke"), "without the query of the beta API"
    assert asked.json()["anthropic_beta"] == ["context-management-2025-06-27", "interleaved-thinking-2025-05-14"]
    assert asked.json()["context_management"] == {"edits": []}
    assert not asked.all("anthropic-beta")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
async def test_an_injected_tool(stream: bool, provider: Bedrock, recorder: ListRecorder) -> None:
    speech = SPEECHES[0]
    looking: list[Part] = [Text("I look."), Call("call_1", TIDES)]
    saying: list[Part] = [Text("At six.")]
    turns = [(1, looking), (2, saying)]
    if stream:
        events = [[event + b"\n\n" for event in speech.stream(*turn).split(b"\n\n")[:-1]] for turn in turns]
        provider.says(*(frames(*chunks(each)) for each in events))
    else:
        provider.says(*(answer(speech.document(*turn)) for turn in turns))
    async with bridged(provider, recorder, Tools()) as url:
        told = await ask(url + PATH, speech.request(speech.asked(PROMPT), stream=stream))

    assert told.status == 200
    assert speech.heard(told.body, stream=stream).content == speech.shown([*looking, *saying])
    first, second = (asked.json() for asked in provider.asked)
    assert TIDES in [tool["name"] for tool in first["tools"]]
    assert "the tides" in json.dumps(second["messages"][-1])
    assert all(asked.json()["anthropic_version"] == "bedrock-2023-05-31" for asked in provider.asked)
    assert recorder.one(ToolUsage).injected
    assert [usage.output_tokens for usage in recorder.all(TokenUsage)] == [10, 20]


@pytest.mark.parametrize(
    ("status", "kind", "raised", "type_"),
    [
        (400, "ValidationException", anthropic.BadRequestError, "invalid_request_error"),
        (403, "AccessDeniedException", anthropic.PermissionDeniedError, "permission_error"),
        (404, "ResourceNotFoundException", anthropic.NotFoundError, "not_found_error"),
        (429, "ThrottlingException", anthropic.RateLimitError, "rate_limit_error"),
        (500, "InternalServerException", anthropic.InternalServerError, "api_error"),
        (503, "ServiceUnavailableException", anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_an_error_raises_what_the_sdk_always_raises(
    status: int,
    kind: str,
    raised: type[anthropic.APIStatusError],
    type_: str,
    client: anthropic.AsyncAnthropic,
    provider: Bedrock,
    recorder: ListRecorder,
) -> None:
    provider.says(refusal(status, kind, "prompt is too long: 5 tokens > 4 maximum", [("Retry-After", "7")]))
    with pytest.raises(raised) as refused:
        await client.messages.create(**asking(stream=True))
    error = refused.value
    assert (error.status_code, error.request_id) == (status, "req-9")
    assert error.body == {
        "type": "error",
        "error": {"type": type_, "message": "prompt is too long: 5 tokens > 4 maximum"},
        "request_id": "req-9",
    }
    assert error.response.headers["Retry-After"] == "7"
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.http_status, ended.error_type) == ("failed", status, type_)
    assert ended.error_message == "prompt is too long: 5 tokens > 4 maximum"


async def test_throttling_in_the_middle_of_a_stream(
    client: anthropic.AsyncAnthropic, provider: Bedrock, recorder: ListRecorder
) -> None:
    provider.says(
        frames(*chunks(MESSAGES.events[: MESSAGES.spoken + 1]), exception("throttlingException", "Too many."))
    )
    with pytest.raises(anthropic.APIStatusError, match="Too many"):
        async with client.messages.stream(**asking()) as stream:
            await stream.get_final_message()
    ended = recorder.one(InterceptionEnded)
    assert (ended.status, ended.error_type, ended.error_message) == ("failed", "rate_limit_error", "Too many.")
    assert recorder.one(TokenUsage).metadata["partial"] is True


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ((chunk(b'{"type":"ping"}')[:-1] + b"\0",), "the checksum of a frame is wrong"),
        ((chunk(b'{"type":"ping"}')[:-9],), "it ended in the middle of a frame"),
        ((chunk(b'{"type":"ping"}')[:-9], CLOSE), None),
    ],
    ids=["damaged", "cut", "broken off"],
)
async def test_a_damaged_stream_never_ends_well(
    end: tuple[Any, ...], why: str | None, bridge: str, provider: Bedrock, recorder: ListRecorder
) -> None:
    begin = MESSAGES.events[: MESSAGES.spoken + 1]
    provider.says(frames(*chunks(begin), *end))
    told = await ask(bridge + PATH, MESSAGES.request())
    assert not told.complete
    assert told.body.startswith(b"".join(begin))
    message = MESSAGES.error_event_in(told.body)
    assert why is None or message == f"the answer of bedrock broke off: {why}"
    assert recorder.one(InterceptionEnded).status == "failed"


async def test_events_are_relayed_when_they_arrive(bridge: str, provider: Bedrock) -> None:
    go_on = asyncio.Event()
    first, *others = chunks(MESSAGES.events)
    provider.says(frames(first, others[0][:10], go_on, others[0][10:], *others[1:]))
    async with begun(bridge + PATH, MESSAGES.request()) as told:
        await told.until(MESSAGES.events[0])
        assert told.body == MESSAGES.events[0]
        go_on.set()
        assert (await told.rest()).body == MESSAGES.stream


async def test_signatures_hold_whatever_is_sent(provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(answer(MESSAGES.document))
    body = MESSAGES.request(stream=False, model="claude-ümlaut", system="ü" * 1000)
    headers = {"X-Amz-Date": "20200101T000000Z", "X-Amz-Security-Token": "mine", "X-Odd": "a  b"}
    async with bridged(provider, recorder, model=None, session_token="tide-token") as url:
        packed = await ask(url + PATH, gzip.compress(body), {**headers, "Content-Encoding": "gzip"})
        assert (packed.status, packed.body) == (200, MESSAGES.document)
    asked = provider.last
    assert is_signed(asked, SECRET)
    assert asked.header("X-Amz-Security-Token") == "tide-token"
    assert asked.target == "/model/claude-%C3%BCmlaut/invoke"
    assert not asked.all("Content-Encoding")
    assert "upstream_model" not in recorder.one(Interception).metadata


@pytest.mark.parametrize("model", ["", ".", ".."])
async def test_no_model_leads_to_another_path(model: str, provider: Bedrock, recorder: ListRecorder) -> None:
    async with bridged(provider, recorder, model=None) as url:
        told = await ask(url + PATH, MESSAGES.request(model=model))
    assert (told.status, MESSAGES.error_in(told.body)[0]) == (400, "invalid_request_error")
    assert not provider.asked


async def test_a_model_stays_within_its_segment(provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(answer(MESSAGES.document))
    async with bridged(provider, recorder, model=None) as url:
        await ask(url + PATH, MESSAGES.request(stream=False, model="../x?y#z%2f"))
    assert provider.last.target == "/model/..%2Fx%3Fy%23z%252f/invoke"
    assert is_signed(provider.last, SECRET)


async def test_a_wrong_secret_is_refused(provider: Bedrock, recorder: ListRecorder) -> None:
    async with bridged(provider, recorder, access_key_secret="another") as url:
        told = await ask(url + PATH, MESSAGES.request())
    assert (told.status, MESSAGES.error_in(told.body)[0]) == (403, "authentication_error")
    assert not [each for each in recorder.records if "another" in repr(each)]


async def test_an_api_key_needs_no_signature(provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(answer(MESSAGES.document))
    key = "bedrock-api-key-0123456789abcdef"
    async with bridged(provider, recorder, api_key=key) as url:
        assert (await ask(url + PATH, MESSAGES.request(stream=False), {"X-Api-Key": "mine"})).status == 200
    assert provider.last.header("Authorization") == f"Bearer {key}"
    assert not provider.last.all("X-Amz-Date")
    assert recorder.one(Interception).credential_hint == "bedr...cdef"


async def test_without_credentials_the_request_is_refused_and_recorded(
    provider: Bedrock, recorder: ListRecorder
) -> None:
    async with bridged(provider, recorder, access_key=None, access_key_secret=None) as url:
        told = await ask(url + PATH, MESSAGES.request())
    assert told.status == 502
    type_, _, message = MESSAGES.error_in(told.body)
    assert type_ == "api_error"
    assert message.startswith("no AWS credentials found; tried were the environment (AWS_ACCESS_KEY_ID, ")
    assert "the instance's role" in message
    assert not provider.asked
    assert (recorder.one(Interception).credential_hint, recorder.one(PromptUsage).prompt) == ("", PROMPT)
    assert recorder.one(InterceptionEnded).error_type == "no_credential"


async def test_counting_tokens(client: anthropic.AsyncAnthropic, provider: Bedrock) -> None:
    provider.says(document(b'{"inputTokens": 42}'))
    counted = await client.messages.count_tokens(
        model="claude-sonnet-5-5", messages=[{"role": "user", "content": PROMPT}], system="Be brief."
    )
    assert counted.input_tokens == 42
    assert provider.last.target == "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    assert provider.last.json().keys() == {"input"}

    provider.says(refusal(400, "ValidationException", "The provided model doesn't support counting tokens."))
    with pytest.raises(anthropic.BadRequestError, match="doesn't support counting tokens"):
        await client.messages.count_tokens(model="claude-sonnet-5-5", messages=[])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/bedrock", 200),
        ("HEAD", "/bedrock/api/hello", 200),
        ("GET", "/bedrock/v1/models", 404),
        ("POST", "/bedrock/api/event_logging/batch", 404),
        ("POST", "/bedrock/v1/messages/count_tokens", 400),
        ("POST", "/bedrock/model/x/invoke", 404),
    ],
)
async def test_other_routes(method: str, path: str, status: int, bridge: str, provider: Bedrock) -> None:
    told = await ask(bridge + path, b"no JSON", method=method)
    assert told.status == status
    if method != "HEAD":
        assert told.json()["type"] == "error"
    assert not provider.asked


async def test_a_key_that_aws_does_not_know_any_more_is_looked_for_again(
    provider: Bedrock, recorder: ListRecorder, tmp_path: Path
) -> None:
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    provider.says(answer(MESSAGES.document))
    later = "AKIDOFTOMORROW012345"

    def written(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")

    written(KEY_ID)
    async with bridged(provider, recorder, access_key=None, access_key_secret=None, max_retries=2) as url:
        assert (await ask(url + PATH, MESSAGES.request(stream=False))).status == 200
        written(later)
        provider.key = later  # what the gateway has in hand is not known any more
        assert (await ask(url + PATH, MESSAGES.request(stream=False))).status == 200
        assert [key_of(asked) for asked in provider.asked] == [KEY_ID, KEY_ID, later]

    assert [ended.metadata.get("retries") for ended in recorder.all(InterceptionEnded)] == [None, ["403"]]


async def test_where_there_is_no_other_key_nothing_is_repeated_for_long(
    provider: Bedrock, recorder: ListRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with bridged(provider, recorder, access_key=None, access_key_secret=None, max_retries=5) as url:
        told = await ask(url + PATH, MESSAGES.request(stream=False))
    assert (told.status, told.header("x-should-retry")) == (403, None)
    assert len(provider.asked) == 2


@asynccontextmanager
async def routed(
    recorder: ListRecorder, providers: Sequence[AnthropicProvider | BedrockProvider]
) -> AsyncIterator[str]:
    """The URL of a bridge with a route to these providers, in this order."""
    routes = [ModelRoute("team", providers)]
    bridge = RequestBridge(providers, recorder, Metrics(CollectorRegistry()), routes=routes)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        yield f"{url}/team/v1/messages"


def at_bedrock(provider: Bedrock, **keys: str) -> BedrockProvider:
    return BedrockProvider(provider.url, region=REGION, model=MODEL, max_retries=0, **keys)


def at_anthropic(provider: Provider) -> AnthropicProvider:
    return AnthropicProvider(provider.url, api_key="sk-ant-of-the-gateway", max_retries=0)


@pytest.mark.parametrize("keys", [KEYS, {}], ids=["throttled", "without credentials"])
async def test_another_provider_takes_over(keys: dict[str, str], provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(refusal(429, "ThrottlingException", "Too many."))
    async with Provider() as other:
        other.says(events(MESSAGES.stream))
        async with routed(recorder, [at_bedrock(provider, **keys), at_anthropic(other)]) as url:
            told = await ask(url, MESSAGES.request())
    assert (told.status, told.body) == (200, MESSAGES.stream)
    assert other.last.body == MESSAGES.request()
    assert other.last.header("X-Api-Key") == "sk-ant-of-the-gateway"
    assert not other.last.all("Authorization") + other.last.all("X-Amz-Date")
    assert recorder.one(InterceptionEnded).metadata["asked_last"] == "anthropic"


async def test_it_takes_over_from_another(provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(frames(*chunks(MESSAGES.events)))
    async with Provider() as other:
        other.says(error(529))
        async with routed(recorder, [at_anthropic(other), at_bedrock(provider, **KEYS)]) as url:
            told = await ask(url, MESSAGES.request())
    assert (told.status, told.body) == (200, MESSAGES.stream)
    assert "sk-ant-of-the-gateway" not in str(provider.last.headers)
    assert is_signed(provider.last, SECRET)


async def test_the_dump_masks_the_signature(provider: Bedrock, recorder: ListRecorder, tmp_path: Path) -> None:
    provider.says(frames(*chunks(MESSAGES.events)))
    folder, token = tmp_path / "dump", "session-token-0123456789abcdef"
    async with bridged(provider, recorder, dump_dir=folder, session_token=token) as url:
        await ask(url + PATH, MESSAGES.request())
    (asked,) = folder.rglob("*.req.txt")
    text = asked.read_text()
    assert text.startswith("POST /model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream ")
    assert '"anthropic_version": "bedrock-2023-05-31"' in text
    assert token not in text
    assert "Signature=" not in text
    assert KEY_ID not in text


async def test_a_retry_is_signed_anew(provider: Bedrock, recorder: ListRecorder) -> None:
    provider.says(
        refusal(429, "ThrottlingException", "Wait.", [("Retry-After", "0")]), frames(*chunks(MESSAGES.events))
    )
    async with bridged(provider, recorder, max_retries=1) as url:
        assert (await ask(url + PATH, MESSAGES.request())).body == MESSAGES.stream
    assert len(provider.asked) == 2
    assert all(is_signed(asked, SECRET) for asked in provider.asked)
    assert recorder.one(InterceptionEnded).metadata["retries"] == ["429"]
