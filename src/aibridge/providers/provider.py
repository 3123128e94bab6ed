"""What makes an upstream: the base of every provider type."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from aibridge.providers.credential import NO_CREDENTIAL, Credential
from aibridge.providers.interpreter import Interpreter
from aibridge.wire.dialect import Dialect

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Provider(ABC):
    """A named upstream. A host application makes a type of its own by subclassing.

    A type names its `bridged` routes, each with its dialect, its `passthrough` routes (a trailing `/*` stands for any
    sub-path), and with which credential a request goes upstream. Routes are below the provider's prefix, `/{name}`.

    `base_url` may have a path of its own. `api_key` is the gateway's own credential, for clients that bring none;
    `byok=False` drops what a client brings. `max_retries` counts attempts after the first. With
    `record_contents=False`, prompts, tool arguments, thoughts and errors' texts of its exchanges are not recorded.
    Raises `ValueError` where an argument can not be used.
    """

    type: ClassVar[str]
    bridged: ClassVar[Mapping[str, Dialect]]
    passthrough: ClassVar[tuple[str, ...]] = ()
    probes: ClassVar[frozenset[str]] = frozenset()
    """Paths that the gateway itself answers when a client asks by HEAD whether anybody is there."""
    interpreter: Interpreter | None = None
    """What translates for a provider that has a wire format of its own."""

    def __init__(
        self,
        base_url: str,
        *,
        name: str | None = None,
        api_key: str | None = None,
        max_retries: int = 2,
        send_actor_headers: bool = False,
        byok: bool = True,
        record_contents: bool = True,
    ) -> None:
        self.name = name or self.type
        if not NAME.fullmatch(self.name):
            raise ValueError(f"the provider name {self.name!r} does not match ^{NAME.pattern}$")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the base URL of provider {self.name!r} is not of the form http(s)://host[:port][/path]")
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key or ""
        self.max_retries = max_retries
        self.send_actor_headers = send_actor_headers
        self.byok = byok
        self.record_contents = record_contents

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, name={self.name!r})"

    @property
    def dialect(self) -> Dialect:
        """In whose shape faults are told that belong to no bridged route."""
        return next(iter(self.bridged.values()))

    def passthrough_pattern(self, path: str) -> str | None:
        """The passthrough route that a path below the prefix belongs to; None where it is not on the list."""
        for pattern in self.passthrough:
            if path == pattern or (pattern.endswith("/*") and path.startswith(pattern[:-1])):
                return pattern
        return None

    def upstream_url(self, path: str) -> str:
        """Where a path below the prefix is found upstream. A version that the base URL carries is not doubled."""
        if self.base_url.endswith("/v1"):
            path = path.removeprefix("/v1")
        return self.base_url + path

    def metadata(self, model: str) -> Mapping[str, Any]:
        """What is recorded of an interception that asks for this model, as a part of its metadata."""
        return {}

    @abstractmethod
    def credential(self, headers: Mapping[str, str]) -> Credential:
        """With which credential a request with these headers (lower-case names) goes upstream."""

    def key_credential(self) -> Credential:
        """The gateway's own credential at this provider."""
        return Credential("centralized", self.api_key, self.key_header(self.api_key)) if self.api_key else NO_CREDENTIAL

    def key_header(self, key: str) -> tuple[str, str]:
        """The header that carries a key upstream."""
        return ("Authorization", f"Bearer {key}")
