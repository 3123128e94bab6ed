"""What the dialects of the simulated upstream have in common."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from aibridge.server.simulated.conversation import CHARACTERS_PER_TOKEN, Answer, Conversation

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHEABLE = 1024
"""A prefix of fewer tokens is never cached (Anthropic and OpenAI alike, for most models)."""


class RefusedError(Exception):
    """The request is one that the provider would refuse."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an exchange used, in tokens."""

    total_input: int
    cached: int
    """Of `total_input`: what was in the cache, or would be from now on."""
    output: int
    """With what was thought."""
    thought: int

    @classmethod
    def of(cls, body: bytes, conversation: Conversation, answer: Answer) -> Tokens:
        """An estimate by the number of characters; of a long request all but its end can be cached."""
        total = tokens(body.decode(errors="replace"))
        cached = total * 9 // 10 // 128 * 128 if total >= _CACHEABLE else 0
        thought = tokens(answer.thought) if answer.thought else 0
        said = tokens(answer.text + "".join(call.name + call.arguments for call in answer.calls))
        return cls(total, cached, said + thought, thought)


class Ids:
    """Ids that look random, and are the same for the same seed."""

    def __init__(self, seed: bytes) -> None:
        self._seed = hashlib.sha256(seed).digest()
        self._made = 0

    def __call__(self, prefix: str, size: int = 24) -> str:
        """The next id: `size` letters and digits after the prefix."""
        self._made += 1
        return prefix + hashlib.sha512(self._seed + bytes([self._made])).hexdigest()[:size]


@dataclass(slots=True)
class Exchange:
    """One request, with what is answered."""

    body: dict[str, Any]
    conversation: Conversation
    answer: Answer
    tokens: Tokens
    new_id: Ids
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since the epoch."""
    _ids: dict[str, str] = field(default_factory=dict)

    def once(self, prefix: str, size: int) -> str:
        """The id of the answer itself, the same each time it is told."""
        if prefix not in self._ids:
            self._ids[prefix] = self.new_id(prefix, size)
        return self._ids[prefix]

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body["model"])


class Dialect(Protocol):
    """One wire format of a provider."""

    def read(self, body: dict[str, Any]) -> Conversation:
        """What the request says; raises `RefusedError` where the provider would."""

    def document(self, exchange: Exchange) -> dict[str, Any]:
        """The whole answer as one JSON document."""

    def events(self, exchange: Exchange) -> list[bytes]:
        """The answer as server-sent events, a block each."""

    def failure(self, exchange: Exchange, sent: int) -> bytes:
        """The server-sent event that reports an error after `sent` others."""

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        """The body of an answer that is an error."""


def tokens(text: str) -> int:
    """An estimate of the number of tokens."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def words(text: str) -> list[str]:
    """The text in pieces of about a word, as a model streams it; never none."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) or [text]


def pieces(text: str) -> list[str]:
    """The text in pieces of equal size, as a model streams a call's arguments."""
    return [text[at : at + 12] for at in range(0, len(text), 12)]


def block(data: dict[str, Any], event: str | None = None) -> bytes:
    """A server-sent event, with a name where the dialect names its events."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + msgspec.json.encode(data) + b"\n\n"


def text_of(content: Any) -> str:
    """The text of a message's or a result's content: a string, or parts of which some have text."""
    if isinstance(content, list):
        return "\n".join(_texts(content))
    return content if isinstance(content, str) else ""


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            yield text
