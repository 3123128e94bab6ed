"""What the bridge hands its records to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aibridge.records import Interception, InterceptionEnded, ModelThought, PromptUsage, TokenUsage, ToolUsage


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
