"""Contents that are not recorded, or not as they are: the record is there all the same, and says so."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from aibridge.recording.contents import Redaction, without_contents
from aibridge.recording.recorder import batching
from aibridge.records import InterceptionEnded, ModelThought, PromptUsage, Record, TokenUsage, ToolUsage
from support.client import ask
from support.dialects import PROMPT, Dialect
from support.provider import Provider, error, events
from support.recorder import ListRecorder
from support.serving import bridged

from .samples import NOON, end_of, interception, prompt, tokens, tool


def an_exchange() -> list[Record]:
    return [
        interception("i", metadata={"team": "tides"}),
        prompt("i", "When?"),
        tokens("i"),
        tool("i", "call-1", input="", metadata={"partial": True}),
        tool("i", "call-2", input="{}", invocation_error="no such harbour", metadata={"duration_ms": 3}),
        ModelThought(id="t", interception_id="i", provider_response_id=None, content="Hm.", created_at=NOON),
        end_of("i", error_message="When? is no question", metadata={"retries": ["429"]}),
    ]


async def test_without_contents_every_figure_stays() -> None:
    kept = ListRecorder()
    await without_contents(batching(kept))(an_exchange())
    assert [type(each) for each in kept.records] == [type(each) for each in an_exchange()]
    assert kept.records[0] == an_exchange()[0]
    assert kept.one(TokenUsage).input_tokens == 3
    assert (kept.one(PromptUsage).prompt, kept.one(PromptUsage).metadata) == ("", {"contents": "off"})
    empty, failed = kept.all(ToolUsage)
    assert (empty.input, empty.metadata) == ("", {"partial": True}), "there was nothing to leave out"
    assert (failed.input, failed.invocation_error) == ("", ""), "that it failed is a figure"
    assert failed.metadata == {"duration_ms": 3, "contents": "off"}
    assert kept.one(ModelThought).content == ""
    end = kept.one(InterceptionEnded)
    assert (end.error_message, end.metadata) == ("", {"retries": ["429"], "contents": "off"})


async def test_a_redactor_sees_all_contents_and_nothing_else() -> None:
    seen: list[str] = []

    def see(text: str) -> str:
        seen.append(text)
        return text

    kept = ListRecorder()
    await Redaction(see).before(batching(kept))(an_exchange())
    assert sorted(seen) == ["Hm.", "When?", "When? is no question", "no such harbour", "{}"]
    assert kept.one(PromptUsage).metadata == {}, "nothing was changed"


async def test_what_a_redactor_changed_is_marked() -> None:
    kept = ListRecorder()
    await Redaction(str.upper).before(batching(kept))(an_exchange())
    assert (kept.one(PromptUsage).prompt, kept.one(PromptUsage).metadata) == ("WHEN?", {"contents": "masked"})
    assert kept.all(ToolUsage)[1].invocation_error == "NO SUCH HARBOUR"


@pytest.mark.parametrize("answer", [RuntimeError, None, b"bytes"])
async def test_where_a_redactor_fails_its_text_is_left_out_and_no_other(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    def particular(text: str) -> object:
        if text != "When?":
            return text
        if answer is RuntimeError:
            raise RuntimeError(text)
        return answer

    kept = ListRecorder()
    await Redaction(particular).before(batching(kept))(an_exchange())  # type: ignore[arg-type]
    assert (kept.one(PromptUsage).prompt, kept.one(PromptUsage).metadata) == ("", {"contents": "withheld"})
    assert kept.one(ModelThought).content == "Hm."
    (told,) = caplog.messages
    assert "redactor failed" in told
    assert "When?" not in told, "a fault's own text may quote the contents"


async def test_a_slow_redactor_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    released = threading.Event()
    kept = ListRecorder()

    def stuck(text: str) -> str:
        released.wait(30)
        return text

    redacted = Redaction(stuck, time_limit=0.1).before(batching(kept))
    try:
        await asyncio.gather(*(redacted([prompt("i", "secret")]) for _ in range(6)))
        assert [each.metadata for each in kept.all(PromptUsage)] == [{"contents": "withheld"}] * 6
        assert "longer than 0.1 s" in caplog.text
        began = time.perf_counter()
        for _ in range(100):
            await redacted([prompt("i", "secret")])
        assert time.perf_counter() - began < 5, "while every thread is stuck, nobody waits for one"
        assert len(kept.records) == 106
        assert not any(each.prompt for each in kept.all(PromptUsage))
    finally:
        released.set()
    deadline = time.monotonic() + 15
    while not kept.all(PromptUsage)[-1].prompt:
        assert time.monotonic() < deadline, "it works again once its threads are back"
        await redacted([prompt("i", "public")])


async def test_an_exchange_with_a_provider_whose_contents_are_off(dialect: Dialect, provider: Provider) -> None:
    recorder = ListRecorder()
    provider.says(events(dialect.stream), error(400, f"can not make sense of {PROMPT}"))
    async with bridged(provider.url, recorder, record_contents=False) as url:
        answer = await ask(url + dialect.path, dialect.request())
        assert PROMPT.encode() in provider.last.body, "what goes upstream is whole"
        assert answer.body == dialect.for_client
        assert (await ask(url + dialect.path, dialect.request())).status == 400
    assert recorder.all(TokenUsage)[0].input_tokens == dialect.tokens[0]
    assert [each.prompt for each in recorder.all(PromptUsage)] == ["", ""]
    assert [(each.tool, each.input) for each in recorder.all(ToolUsage)] == [("read_tides", "")]
    assert not any(each.content for each in recorder.all(ModelThought))
    assert PROMPT not in str(recorder.records)


async def test_an_exchange_whose_contents_are_redacted(dialect: Dialect, provider: Provider) -> None:
    recorder = ListRecorder()
    provider.says(events(dialect.stream), error(400, "what is Lyme?"))
    redaction = Redaction(lambda text: text.replace("Lyme", "[a place]"))
    async with bridged(provider.url, recorder, redaction=redaction) as url:
        assert (await ask(url + dialect.path, dialect.request())).body == dialect.for_client
        await ask(url + dialect.path, dialect.request())
    assert [each.prompt for each in recorder.all(PromptUsage)] == ["When is high water at [a place]?"] * 2
    assert recorder.one(ToolUsage).input == '{"harbour": "[a place]", "day":  1e0}'
    completed, failed = recorder.all(InterceptionEnded)
    assert completed.error_message is None
    assert (failed.error_message, failed.metadata["contents"]) == ("what is [a place]?", "masked")
    assert "Lyme" not in str(recorder.records)
