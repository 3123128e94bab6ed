"""What the bridge hands its records to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)


@runtime_checkable
class Recorder(Protocol):
    """Takes the records of every interception; a host application may bring its own.

    For one interception the calls come in this order: `record_interception` (before anything is sent upstream),
    `record_prompt_usage` where there is a prompt, then for each turn its usage, tool calls and thoughts, and
    `record_interception_ended` exactly once, before the client has got the last byte of its answer.

    A method returns when the record is safe. It raises `aibridge.errors.RecordingError` when it can not be kept:
    from `record_interception` that refuses the request (503); from any other it is logged and counted, and the
    exchange goes on. The methods are awaited on the path of the request, so they must be quick.
    """

    async def record_interception(self, record: Interception, /) -> None:
        """Keep that an interception has begun."""

    async def record_interception_ended(self, record: InterceptionEnded, /) -> None:
        """Keep how an interception ended."""

    async def record_token_usage(self, record: TokenUsage, /) -> None:
        """Keep what a turn used."""

    async def record_prompt_usage(self, record: PromptUsage, /) -> None:
        """Keep the user's prompt."""

    async def record_tool_usage(self, record: ToolUsage, /) -> None:
        """Keep a tool call."""

    async def record_model_thought(self, record: ModelThought, /) -> None:
        """Keep a thought."""


@runtime_checkable
class BatchRecorder(Recorder, Protocol):
    """A recorder that would rather take together what belongs together; the bridge then calls only this."""

    async def record_all(self, records: Sequence[Record], /) -> None:
        """Keep records, in their order. Raises `RecordingError` as the methods for one record do."""


RecordAll = Callable[[Sequence[Record]], Awaitable[None]]


def batching(recorder: Recorder) -> RecordAll:
    """What hands several records over, in their order, in whichever way the recorder takes them."""
    if isinstance(recorder, BatchRecorder):
        return recorder.record_all
    methods: dict[type[Any], Callable[[Any], Awaitable[None]]] = {
        Interception: recorder.record_interception,
        InterceptionEnded: recorder.record_interception_ended,
        TokenUsage: recorder.record_token_usage,
        PromptUsage: recorder.record_prompt_usage,
        ToolUsage: recorder.record_tool_usage,
        ModelThought: recorder.record_model_thought,
    }

    async def record_each(records: Sequence[Record]) -> None:
        fault: Exception | None = None
        for record in records:
            try:
                await methods[type(record)](record)
            except Exception as error:  # the others are to be kept all the same
                if isinstance(record, Interception):
                    raise
                fault = error
        if fault:
            raise fault

    return record_each
