"""What there is to say about one MCP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Transport = Literal["streamable-http", "sse"]
"""How a server with a URL is spoken to; `sse` is the HTTP+SSE transport of protocol version 2024-11-05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """An OAuth 2 client that acts for itself (RFC 6749, 4.4); it asks for the scopes that the server names."""

    client_id: str
    client_secret: str = field(repr=False)
    issuer: str
    """The authorization server that the credentials belong to; they are sent to no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One MCP server: reached at `url`, or started as `command`. Raises `ValueError` where it is both, or neither."""

    name: str
    """Part of the name under which its tools are offered; unique among the servers."""
    url: str | None = None
    command: Sequence[str] | None = None
    """The program, and its arguments."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for the command; of the gateway's own it gets `PATH`, `HOME` and a few as harmless."""
    transport: Transport = "streamable-http"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request to `url`, secrets included."""
    oauth: ClientCredentials | None = None
    tool_allow: str = ""
    """A regular expression that is searched for in the tool's own name; only tools with a match are offered."""
    tool_deny: str = ""
    """The same for tools that are not; it wins over `tool_allow`."""

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.command):
            raise ValueError(f"the MCP server {self.name!r} needs either a url or a command")

    @property
    def location(self) -> str:
        """Where the server is, as it may be shown: a URL without credentials and query, or `stdio:<program>`."""
        if self.command:
            return f"stdio:{self.command[0]}"
        scheme, authority, path, _, _ = urlsplit(self.url or "")
        return urlunsplit((scheme, authority.rpartition("@")[2], path, "", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How patient the gateway is with a server. All in seconds."""

    connect: float = 30.0
    """From the first byte to the list of tools; a command may have to be downloaded first."""
    list: float = 10.0
    """For the list of tools, once connected."""
    refresh: float = 300.0
    """The tools are listed anew this often, and whenever the server says that they have changed."""
    first_retry: float = 0.5
    longest_retry: float = 30.0
    """Between attempts to connect; each wait is about twice the one before."""
    stable: float = 5.0
    """A connection that lasted this long was a good one: when it ends, the next attempt follows at once."""
