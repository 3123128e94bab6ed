"""A recorder that keeps records in lists."""

from __future__ import annotations

from typing import TypeVar

from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)

R = TypeVar("R", bound=Record)


class ListRecorder:
    """Keeps every record in the order in which it came. A test overrides `keep` to see or to hinder that."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def keep(self, record: Record) -> None:
        """Take one record."""
        self.records.append(record)

    def all(self, kind: type[R]) -> list[R]:
        """The records of one type."""
        return [record for record in self.records if isinstance(record, kind)]

    def one(self, kind: type[R]) -> R:
        """The only record of a type."""
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} records of {kind.__name__}, one due: {found}"
        return found[0]

    async def record_interception(self, record: Interception, /) -> None:
        await self.keep(record)

    async def record_interception_ended(self, record: InterceptionEnded, /) -> None:
        await self.keep(record)

    async def record_token_usage(self, record: TokenUsage, /) -> None:
        await self.keep(record)

    async def record_prompt_usage(self, record: PromptUsage, /) -> None:
        await self.keep(record)

    async def record_tool_usage(self, record: ToolUsage, /) -> None:
        await self.keep(record)

    async def record_model_thought(self, record: ModelThought, /) -> None:
        await self.keep(record)
