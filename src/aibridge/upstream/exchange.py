"""What is sent upstream, and who follows how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from aibridge.errors import Fault
from aibridge.providers.interpreter import Headers, Interpreter, RawHeaders

if TYPE_CHECKING:
    from aibridge.upstream.attempts import Ways


class UpstreamRequest(msgspec.Struct, frozen=True):
    """What is sent upstream. `provider` is the provider's name, and is told in faults."""

    provider: str
    method: str
    url: str
    headers: Headers
    body: bytes
    max_retries: int = 0
    exchange_id: str = ""
    """Of the interception; a dump's files are named after it."""
    endpoint: str = ""
    """The path below the provider's prefix, such as `/v1/messages`."""
    model: str | None = None
    """The model that is asked for; None on a passthrough route, which no circuit breaker guards."""
    turn: int = 1
    """Which request of its interception this is."""
    streams: bool = False
    """The client has asked for an event stream, as far as that is known."""
    interpreter: Interpreter | None = None
    """What makes of this request the one that is really sent, and translates the answer."""
    ways: Ways | None = None
    """In which ways it may be sent, where there are several; each makes of this the request that it sends."""

    def __repr__(self) -> str:
        """Without what is secret, or long."""
        return f"UpstreamRequest({self.provider!r}, {self.method!r}, {self.endpoint!r}, turn={self.turn})"

    def with_headers(self, headers: Headers) -> UpstreamRequest:
        """The same with these headers as well."""
        return msgspec.structs.replace(self, headers=[*self.headers, *headers]) if headers else self


class Follower(Protocol):
    """Is told how one exchange with a provider goes: a circuit breaker, a dump. Its methods do not raise."""

    def answered(self, status: int, reason: str, headers: RawHeaders) -> None:
        """The head of the answer is there; attempts that were repeated are not told."""

    def received(self, data: bytes) -> None:
        """A piece of the answer's body is there."""

    def failed(self, fault: Fault) -> None:
        """No answer came, or it broke off."""

    def ended(self, *, whole: bool) -> None:
        """The exchange is over, in whatever way; `whole` if all of the answer was read. Nothing is told after it."""
