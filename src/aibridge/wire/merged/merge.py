"""What merging turns has in common in every dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from aibridge.wire import json_bytes
from aibridge.wire.dialect import Reader, Request, ToolCall
from aibridge.wire.tools import OfferedTool, ToolResult

SHOWN = msgspec.Raw(b"null")
"""Stands in what is remembered for a part that the client has, and will send again."""


def is_hidden(part: msgspec.Raw) -> bool:
    """The part of a remembered message is one that the client does not have."""
    return bytes(part) != b"null"


class Answered(NamedTuple):
    """A call that the gateway ran, and what it gave."""

    call: ToolCall
    result: ToolResult


class Remembered(NamedTuple):
    """What the client was not shown of a message, for when it comes back in a later request of the conversation."""

    keys: list[str]
    """By which the message is known again: ids of the client's own calls in it, or a digest of its text."""
    hidden: bytes
    """The hidden parts and their places, as JSON."""


def digest(texts: Iterable[str]) -> str | None:
    """By which a message without calls is known again; None of one without text."""
    told = "\0".join(text for text in texts if text)
    return "text:" + sha256(told.encode("utf-8", "surrogatepass")).hexdigest() if told else None


class Merge(ABC):
    """The turns of one interception on their way to becoming one message.

    For each turn, its answer is read with a reader made here, which passes on what the client may see at once and
    holds back the rest: the calls of injected tools, and, where there are such, the end of the turn. Those calls are
    then in `waiting`. Once they are run, `add_results` keeps them; then either `goes_on`, and `body` is the next turn's
    request, or the client has calls of its own to run, and `end` is what it gets.
    """

    history: str
    """The member of a request that holds the conversation."""

    def __init__(self, request: Request, tools: Sequence[OfferedTool]) -> None:
        taken = self._names_taken(request.body)
        self.tools = [tool for tool in tools if tool.name not in taken]
        self.names = frozenset(tool.name for tool in self.tools)
        self.request = request
        self._given = request.body
        self.waiting: list[ToolCall] = []
        self.goes_on = False
        self.turns = 0
        self.answered_last = False
        """The calls of the last turn have run, and their results are part of the conversation."""
        self._offering = True
        self._said: list[bytes] = []  # what the turns added to the conversation, as JSON
        self._last_said: list[bytes] = []
        self._last_calls: list[ToolCall] = []
        self._counted: list[dict[str, Any]] = []

    @property
    def body(self) -> bytes:
        """The request of the next turn: the client's own, with the tools and with what was said since."""
        body = self._given
        if self._said:
            body = self._with_history(body, b",".join(self._said))
        if self._offering and self.tools:
            body = self._with_tools(body)
        return body

    def stop_offering(self) -> None:
        """The next turn is the last: no tool is offered any more."""
        self._offering = False

    @abstractmethod
    def stream_reader(self) -> Reader:
        """A reader for the next turn's answer in server-sent events."""

    @abstractmethod
    def document_reader(self) -> Reader:
        """A reader for the next turn's answer in one JSON document."""

    @abstractmethod
    def end(self) -> bytes:
        """The end of the message, which was held back while calls were waiting."""

    @abstractmethod
    def keep_alive(self) -> bytes:
        """A sign of life for the client of a stream, fit to stand at this place of it."""

    def add_results(self, answered: Sequence[Answered]) -> None:
        """The waiting calls have run: what the model said, and what they gave, becomes part of the conversation."""
        self._said += self._last_said
        self._said += self._results(answered)
        self.waiting = []
        self.answered_last = True

    def took(self, calls: Sequence[ToolCall], said: list[bytes], usage: dict[str, Any] | None) -> None:
        """A turn has come to its end (for readers): its calls, what it said for the conversation, and its raw usage."""
        self.turns += 1
        self.answered_last = False
        self._last_calls = list(calls)
        self.waiting = [call for call in calls if call.name in self.names]
        self.goes_on = bool(self.waiting) and len(self.waiting) == len(calls)
        self._last_said = said
        if usage:
            self._counted.append(usage)

    def usage(self) -> dict[str, Any]:
        """The counters of all turns together."""
        total: dict[str, Any] = {}
        for usage in self._counted:
            total = added(total, usage)
        return total

    @abstractmethod
    def keys(self) -> list[str]:
        """By which messages of the request may be remembered."""

    @abstractmethod
    def restore(self, remembered: Mapping[str, bytes]) -> None:
        """Put what the client was not shown back into its request, for each of `keys` that something is remembered of.

        What does not fit exactly is left as it is.
        """

    @abstractmethod
    def remembered(self) -> Remembered | None:
        """What is to be remembered of this message, once it is at its end; None where nothing was hidden."""

    @abstractmethod
    def _names_taken(self, body: bytes) -> frozenset[str]:
        """Names of the client's own tools."""

    @abstractmethod
    def _with_tools(self, body: bytes) -> bytes:
        """The request with the tools offered."""

    @abstractmethod
    def _results(self, answered: Sequence[Answered]) -> list[bytes]:
        """The results as elements of the conversation."""

    def _with_history(self, body: bytes, elements: bytes) -> bytes:
        begin, end = json_bytes.member_spans(body)[self.history]
        return body[:begin] + json_bytes.insert_last(body[begin:end], elements) + body[end:]


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Counters added up, name by name, within objects too; of what is no number, the later stands."""
    total = dict(one)
    for name, value in other.items():
        before = total.get(name)
        if isinstance(value, dict):
            total[name] = added(before if isinstance(before, dict) else {}, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            total[name] = value + (before if isinstance(before, int | float) else 0)
        elif value is not None or name not in total:
            total[name] = value
    return total
