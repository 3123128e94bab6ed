"""What every dialect offers: reading a request, and reading an answer while it passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aibridge.errors import Fault
    from aibridge.records import ThoughtSource
    from aibridge.wire.merged.merge import Merge
    from aibridge.wire.tools import OfferedTool


class Usage(msgspec.Struct, frozen=True):
    """What one turn used, in tokens; `input` was neither read from nor written to a cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    extra: dict[str, Any] = {}
    """Every other counter, under the provider's own name; those of a nested object as `object.counter`."""


class ToolCall(msgspec.Struct):
    """A tool call that the model asked for. `arguments` is the text that it sent."""

    id: str
    name: str
    arguments: str = ""
    complete: bool = False
    """False while, or if for ever, the stream was cut before the call's end."""
    namespace: str | None = None
    """Responses: that of the tool, where the client has put it into one."""


class Thought(msgspec.Struct, frozen=True):
    """Something that the model thought aloud."""

    source: ThoughtSource
    content: str


class ProviderError(msgspec.Struct, frozen=True):
    """The provider's own report of a failure: in an answer's body, or as an event of a stream."""

    type: str | None
    message: str | None


class Turn(msgspec.Struct):
    """What one answer of the provider showed."""

    response_id: str | None = None
    usage: Usage | None = None
    """None where the provider named none."""
    provider_usage: str | None = None
    """The provider's own usage object, as the JSON text that it sent; of what came in pieces, all of them in one."""
    tool_calls: list[ToolCall] = []
    thoughts: list[Thought] = []
    stop_reason: str | None = None
    complete: bool = False
    """The answer came to the end that its dialect demands."""
    counted: bool = False
    """`usage` holds final figures, though the answer may have failed."""
    error: ProviderError | None = None


class SessionHints(msgspec.Struct, frozen=True):
    """Members of a request's body from which the client's session may be told (see `aibridge.clients`)."""

    user_id: str | None = None
    """Messages: `metadata.user_id`."""
    client_session_id: str | None = None
    """Responses: `client_metadata.session_id`."""
    prompt_cache_key: str | None = None


class Request(msgspec.Struct, frozen=True):
    """What a request on a bridged route asks for."""

    body: bytes
    """What goes upstream: the client's own bytes, but for what the dialect must set."""
    model: str
    streaming: bool
    prompt: str | None = None
    """The user's own words, where the request's last message holds them."""
    correlating_tool_call_id: str | None = None
    hints: SessionHints = SessionHints()
    goes_on_from: str | None = None
    """The earlier response that this one goes on from, by the id that the client knows (`previous_response_id`)."""
    withholds_usage: bool = False
    """The gateway asked for a usage chunk that the client did not ask for, and must not see."""


class Reader(Protocol):
    """Reads one answer as it passes: a pure state machine that gives the same however its bytes are cut.

    `feed` and `close` raise `aibridge.wire.sse.EventTooLarge` where an event has no end in sight.
    """

    turn: Turn
    """What was seen so far; whole once `close` was called."""
    rewrites: bool
    """Something may be kept from the client, or changed: the answer can not be relayed as it came."""

    @property
    def ended(self) -> bool:
        """The dialect's own end was seen: whatever follows changes nothing."""

    @property
    def between_events(self) -> bool:
        """The client has whole events only, so that an event of the gateway's own may follow."""

    def ahead(self, data: bytes) -> int:
        """How many of the next bytes the client may have before they are read: none that may end the answer."""

    def feed(self, data: bytes) -> bytes:
        """Read the next bytes of the answer (decoded); returns what the client may have of it by now."""

    def close(self) -> bytes:
        """The answer has ended: read what was left over; returns the last bytes for the client."""


class Dialect(Protocol):
    """The wire format of a bridged route."""

    name: str
    keep_alive: bytes
    """What keeps a silent stream open, in a form that every known client accepts."""

    def parse(self, body: bytes) -> Request:
        """Read a request. Raises `aibridge.errors.Fault` (INVALID_REQUEST) where it is not one of this dialect."""

    def stream_reader(self, request: Request) -> Reader:
        """A reader for an answer in server-sent events."""

    def document_reader(self, request: Request, status: int) -> Reader:
        """A reader for an answer in one JSON document; with an HTTP status of 400 or more, for an error's body."""

    def merge(self, request: Request, tools: Sequence[OfferedTool]) -> Merge | None:
        """What makes one message of the turns, where the gateway offers tools; None where the request forbids them."""

    def error_body(self, fault: Fault, request_id: str) -> bytes:
        """A fault as the JSON body of an error answer."""

    def error_event(self, fault: Fault, request_id: str, reader: Reader) -> bytes:
        """A fault as the last event of a stream that can not go on."""
