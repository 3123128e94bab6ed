"""Providers that speak a dialect in a wire format of their own: what translates in both directions.

The bridge, its readers and its records know the dialect only. A provider's interpreter stands between them and the
wire: it makes of each request what the provider takes, and of each answer what the dialect would have said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aibridge.errors import Fault

Headers = Sequence[tuple[str, str]]
RawHeaders = Sequence[tuple[bytes, bytes]]


class Outgoing(NamedTuple):
    """A request as it goes over the wire."""

    url: str
    headers: Headers
    body: bytes


class Incoming(Protocol):
    """Translates one answer: a pure state machine that gives the same bytes in all, however its own are cut."""

    headers: RawHeaders
    """Those of the answer, as the dialect would have sent them."""
    fault: Fault | None
    """Why the answer can not be translated any further, once that is so; what was given until then stands."""

    def feed(self, data: bytes) -> bytes:
        """The next bytes off the wire; returns those of the dialect that are known by now."""

    def close(self) -> bytes:
        """The answer has ended; returns the last bytes."""


class Interpreter(Protocol):
    """Translates between a dialect and what a provider takes and answers."""

    async def ready(self) -> None:
        """Be ready to tell the credential: called before a provider is asked for it. Raises nothing."""

    async def outgoing(self, path: str, headers: Headers, body: bytes) -> Outgoing:
        """What is sent for a request; asked for each attempt, since signatures and credentials grow old.

        `path` is below the provider's prefix. Raises `aibridge.errors.Fault` where nothing can be sent.
        """

    def incoming(self, path: str, status: int, headers: RawHeaders) -> Incoming | None:
        """What translates an answer of which this is the head; None where it passes as it comes."""
