"""The facts that are kept of an interception, as pure data.

Every record has an id made by the gateway (a UUID in its canonical text form), so that storing it twice
is the same as storing it once. Times are aware and in UTC. Texts are as the client or the model sent them.
"""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count
from random import SystemRandom
from time import time_ns
from typing import Any, Literal, TypeAlias

import msgspec


class _Sequence:
    """What makes the ids of one process differ among themselves, by a counter, and from those of every other one.

    The second part is drawn at random, as is where the counter begins (RFC 9562, 6.2): ids must differ, not be secret.
    """

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Be another process's."""
        random = SystemRandom()
        self.process = f"7{random.getrandbits(12):03x}-{random.getrandbits(14) | 0x8000:04x}"
        self.counter = count(random.getrandbits(47))  # of the 48 bits that there are, for it rises


_sequence = _Sequence()


def new_id() -> str:
    """A fresh id: a UUID that begins with the time (RFC 9562, version 7) in its canonical text form.

    Ids that rise with time are put at the end of a database's indices, so storing stays cheap however much is stored.
    """
    time = (time_ns() // 1_000_000).to_bytes(6).hex("-", -4)
    return f"{time}-{_sequence.process}-{next(_sequence.counter).to_bytes(6).hex()}"


def least_id(time: datetime) -> str:
    """The least id that `new_id` can have made at a time: what is below it was made before."""
    text = f"{int(time.timestamp() * 1000):012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


Status: TypeAlias = Literal["completed", "failed", "cancelled"]
"""How an interception ended: with the provider's whole answer, with a fault, or by a client that left."""

CredentialKind: TypeAlias = Literal["centralized", "byok"]
"""Whose credential the provider saw: the gateway's configured one, or the client's own."""

ThoughtSource: TypeAlias = Literal["thinking", "reasoning_summary", "commentary"]


# `gc=False`: nothing that a record holds can hold the record, so the collector need not look for circles.


class Interception(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="interception"):
    """One request on a bridged route, as known before it is sent upstream."""

    id: str
    initiator_id: str
    provider: str
    """The provider's type, such as `anthropic`."""
    provider_name: str
    model: str
    """The model that the client asked for."""
    started_at: datetime
    route: str
    """The bridged route below the provider's prefix, such as `/v1/messages`."""
    streaming: bool
    client: str
    client_session_id: str | None = None
    user_agent: str | None = None
    correlating_tool_call_id: str | None = None
    """The tool call that the request's last message answers; it links interceptions into threads."""
    credential_kind: CredentialKind = "centralized"
    credential_hint: str = ""
    metadata: dict[str, Any] = {}


class InterceptionEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="interception_ended"):
    """The end of an interception, and its outcome."""

    interception_id: str
    ended_at: datetime
    status: Status
    http_status: int | None = None
    """The status that the client was answered with; None where it left before there was one."""
    error_type: str | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = {}
    """Facts known at the end only, such as the number of retries; merged into the interception's own."""


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="token_usage"):
    """What one turn used, in tokens; final figures."""

    id: str
    interception_id: str
    provider_response_id: str | None
    input_tokens: int
    """Input that was neither read from nor written to a cache."""
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    metadata: dict[str, Any] = {}
    """Every other counter under the provider's own name; `partial: true` where the exchange was cut."""
    provider_usage: str | None = None
    """The provider's own usage object as JSON text, just as it was sent; one told in pieces is put together."""
    created_at: datetime


class PromptUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="prompt_usage"):
    """The user's own words that began an interception."""

    id: str
    interception_id: str
    provider_response_id: str | None = None
    prompt: str
    metadata: dict[str, Any] = {}
    created_at: datetime


class ToolUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="tool_usage"):
    """One tool call that the model asked for."""

    id: str
    interception_id: str
    provider_response_id: str | None
    provider_tool_call_id: str
    tool: str
    """The tool's own name, without the prefix under which an injected tool is offered."""
    input: str
    """The arguments, exactly as the model sent them (JSON text, but for custom tools and cut calls)."""
    injected: bool = False
    server_url: str | None = None
    invocation_error: str | None = None
    metadata: dict[str, Any] = {}
    created_at: datetime


class ModelThought(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="model_thought"):
    """Something that the model thought aloud; `metadata["source"]` says in which form."""

    id: str
    interception_id: str
    provider_response_id: str | None
    content: str
    metadata: dict[str, Any] = {}
    created_at: datetime


Record: TypeAlias = Interception | InterceptionEnded | TokenUsage | PromptUsage | ToolUsage | ModelThought
