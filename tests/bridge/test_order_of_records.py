"""An interception is recorded before the provider knows of it, and its end before the client has the last byte."""

from __future__ import annotations

import asyncio

import pytest

from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)
from support.client import ask, begun
from support.dialects import Dialect
from support.provider import Provider, document, events, raw
from support.recorder import ListRecorder
from support.serving import bridged
from support.waiting import until


class SlowRecorder(ListRecorder):
    """Does not finish with records of one type before it may."""

    def __init__(self, kind: type[Record]) -> None:
        super().__init__()
        self._kind = kind
        self.waiting = asyncio.Event()
        self.may = asyncio.Event()

    async def keep(self, record: Record) -> None:
        if isinstance(record, self._kind):
            self.waiting.set()
            await self.may.wait()
        await super().keep(record)


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_is_sent_upstream_before_it_is_recorded(
    dialect: Dialect, provider: Provider, stream: bool
) -> None:
    recorder = SlowRecorder(Interception)
    provider.says(events(dialect.stream) if stream else document(dialect.document))
    async with bridged(provider.url, recorder) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request(stream=stream)))
        await recorder.waiting.wait()
        await asyncio.sleep(0.05)
        assert not provider.connections
        recorder.may.set()
        assert (await asking).complete
    assert len(provider.asked) == 1


@pytest.mark.parametrize("kind", [InterceptionEnded, TokenUsage, ToolUsage])
async def test_a_stream_does_not_end_before_its_end_is_recorded(
    dialect: Dialect, provider: Provider, kind: type[Record]
) -> None:
    """The last event waits for the record, so that nobody who has a whole answer can be missed."""
    recorder = SlowRecorder(kind)
    *most, last = dialect.events
    provider.says(events(*most, last))
    async with bridged(provider.url, recorder) as url, begun(url + dialect.path, dialect.request()) as answer:
        reading = asyncio.create_task(answer.rest())
        await recorder.waiting.wait()
        await asyncio.sleep(0.05)
        assert not reading.done()
        assert last not in answer.body
        recorder.may.set()
        assert (await reading).body == dialect.for_client
    assert recorder.one(InterceptionEnded).status == "completed"


async def test_a_document_does_not_begin_before_its_end_is_recorded(dialect: Dialect, provider: Provider) -> None:
    recorder = SlowRecorder(InterceptionEnded)
    provider.says(document(dialect.document))
    async with bridged(provider.url, recorder) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request(stream=False)))
        await recorder.waiting.wait()
        await asyncio.sleep(0.05)
        assert not asking.done()
        recorder.may.set()
        assert (await asking).body == dialect.document


async def test_records_come_in_the_order_that_is_promised(
    dialect: Dialect, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(events(dialect.stream))
    async with bridged(provider.url, recorder) as url:
        await ask(url + dialect.path, dialect.request())
    kinds = [type(record) for record in recorder.records]
    thoughts = [ModelThought] * len(dialect.thoughts)
    assert kinds == [Interception, PromptUsage, TokenUsage, ToolUsage, *thoughts, InterceptionEnded]


async def test_a_client_that_leaves_while_a_record_is_written_loses_none(dialect: Dialect, provider: Provider) -> None:
    recorder = SlowRecorder(TokenUsage)
    provider.says(events(dialect.stream))
    async with bridged(provider.url, recorder) as url:
        async with begun(url + dialect.path, dialect.request()):
            await recorder.waiting.wait()
        await asyncio.sleep(0.2)
        recorder.may.set()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded", within=1)
    assert len(recorder.all(TokenUsage)) == 1
    assert len(recorder.all(InterceptionEnded)) == 1


async def test_a_client_that_leaves_between_two_records_of_a_turn_has_none_of_them_twice(
    dialect: Dialect, provider: Provider
) -> None:
    recorder = SlowRecorder(ToolUsage)
    provider.says(events(dialect.stream))
    async with bridged(provider.url, recorder) as url:
        async with begun(url + dialect.path, dialect.request()):
            await recorder.waiting.wait()
        await asyncio.sleep(0.2)
        recorder.may.set()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded", within=1)
    assert len(recorder.all(TokenUsage)) == 1
    assert len(recorder.all(ToolUsage)) == 1
    assert len(recorder.all(InterceptionEnded)) == 1


async def test_a_client_that_leaves_while_the_beginning_is_recorded(dialect: Dialect, provider: Provider) -> None:
    recorder = SlowRecorder(Interception)
    provider.says(raw(asyncio.Event()))
    async with bridged(provider.url, recorder) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request()))
        await recorder.waiting.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.05)
        recorder.may.set()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    assert recorder.one(InterceptionEnded).status == "cancelled"


async def test_a_client_that_leaves_while_the_prompt_is_recorded(dialect: Dialect, provider: Provider) -> None:
    recorder = SlowRecorder(PromptUsage)
    provider.says(raw(asyncio.Event()))
    async with bridged(provider.url, recorder) as url:
        asking = asyncio.create_task(ask(url + dialect.path, dialect.request()))
        await recorder.waiting.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.05)
        recorder.may.set()
        await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    assert recorder.one(InterceptionEnded).status == "cancelled"
