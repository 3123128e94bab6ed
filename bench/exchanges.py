"""Records of exchanges as a fleet has them, made from a seed: the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    TokenUsage,
    ToolUsage,
)

if TYPE_CHECKING:
    from aibridge.records import Record, Status

ACTORS = 500
_CLIENTS = ("Claude Code", "Codex", "OpenCode", "LiteLLM")
_MODELS = ("claude-opus-4-5", "claude-sonnet-4-5", "gpt-5", "gpt-5-mini")
_WORDS = ("look", "at", "the", "parser", "and", "say", "why", "its", "test", "fails", "on", "empty", "input")


class _Session(NamedTuple):
    """What an actor's next request goes on from."""

    client_session_id: str
    call: str | None = None
    interception: str | None = None
    root: str | None = None


class Exchange(NamedTuple):
    """The records of an exchange, and what linking them comes to."""

    records: list[Record]
    thread_parent_id: str | None
    thread_root_id: str | None


class Fleet:
    """Actors at work: each has a session for a while, in which every request answers the call of the one before."""

    def __init__(self, seed: int, began_at: datetime) -> None:
        self._random = random.Random(seed)
        self._now = began_at
        self._every = timedelta()
        self._sessions: dict[int, _Session] = {}

    def exchanges(self, every: timedelta) -> Iterator[Exchange]:
        """One exchange after another, so much later each, for ever."""
        self._every = every
        while True:
            yield self._exchange()
            self._now += every

    def _exchange(self) -> Exchange:
        random = self._random
        number = random.randrange(ACTORS)
        session, call, parent, root = self._sessions.get(number) or _Session(self._id())
        client, model = _CLIENTS[number % len(_CLIENTS)], _MODELS[number % len(_MODELS)]
        interception, now = self._id(), self._now
        answered = f"msg_{interception[:18]}"
        provider = "anthropic" if model.startswith("claude") else "openai"
        records: list[Record] = [
            Interception(
                id=interception,
                initiator_id=f"actor-{number}@example.com",
                provider=provider,
                provider_name=provider,
                model=model,
                started_at=now,
                route="/v1/messages",
                streaming=True,
                client=client,
                client_session_id=session,
                user_agent=f"{client.lower()}/1.2.3",
                correlating_tool_call_id=call,
                metadata={"team": f"team-{number % 20}"},
            )
        ]
        if call is None:
            records.append(
                PromptUsage(id=self._id(), interception_id=interception, prompt=self._text(60), created_at=now)
            )
        later = now + random.random() * self._every  # before the next request, which may answer a call of this one
        records.append(
            TokenUsage(
                id=self._id(),
                interception_id=interception,
                provider_response_id=answered,
                input_tokens=random.randrange(4000),
                output_tokens=random.randrange(2000),
                cache_read_input_tokens=random.randrange(100_000),
                cache_write_input_tokens=random.randrange(5000),
                metadata={"service_tier": "standard"},
                provider_usage='{"input_tokens":2095,"output_tokens":503,"service_tier":"standard"}',
                created_at=later,
            )
        )
        goes_on = random.random() < 0.9
        called = f"toolu_{self._id()[:23]}" if goes_on else None
        if called:
            records.append(
                ToolUsage(
                    id=self._id(),
                    interception_id=interception,
                    provider_response_id=answered,
                    provider_tool_call_id=called,
                    tool="Bash",
                    input=f'{{"command":"{self._text(20)}"}}',
                    created_at=later,
                )
            )
        if random.random() < 0.3:
            records.append(
                ModelThought(
                    id=self._id(),
                    interception_id=interception,
                    provider_response_id=answered,
                    content=self._text(80),
                    metadata={"source": "thinking"},
                    created_at=later,
                )
            )
        status: Status = random.choices(("completed", "failed", "cancelled"), (96, 3, 1))[0]
        records.append(InterceptionEnded(interception_id=interception, ended_at=later, status=status, http_status=200))
        if goes_on:
            self._sessions[number] = _Session(session, called, interception, root or interception)
        else:
            self._sessions.pop(number, None)
        return Exchange(records, parent, root)

    def _id(self) -> str:
        milliseconds = int(self._now.timestamp() * 1000)
        return str(UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | self._random.getrandbits(62)))

    def _text(self, words: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=words))
