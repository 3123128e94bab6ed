"""What makes an upstream: the base of every provider type."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from aibridge.providers.credential import BEARER, CREDENTIAL_HEADERS, NO_CREDENTIAL, Credential
from aibridge.providers.interpreter import Interpreter
from aibridge.providers.subscriptions import subscription_of
from aibridge.wire.dialect import Dialect

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Provider(ABC):
    """A named upstream. A host application makes a type of its own by subclassing.

    A type names its `bridged` routes, each with its dialect, its `passthrough` routes (a trailing `/*` stands for any
    sub-path), and with which credential a request goes upstream. Routes are below the provider's prefix, `/{name}`.

    `base_url` may have a path of its own. `api_key` is the gateway's own credential, for clients that bring none, or
    `api_keys` are several, of which the next is taken where one is limited or refused; `byok=False` drops what a client
    brings. `max_retries` counts attempts after the first. `key_header` names the header that carries a key, where that
    is another than usual; `headers` and `query` are sent with every request, in place of a client's own of these names.
    With `record_contents=False`, prompts, tool arguments, thoughts and errors' texts of its exchanges are not recorded.
    Raises `ValueError` where an argument can not be used.
    """

    type: ClassVar[str]
    bridged: Mapping[str, Dialect]
    passthrough: ClassVar[tuple[str, ...]] = ()
    key_header_name: str = BEARER
    """The header that carries a key; there, it is a bearer token."""
    subscriptions: ClassVar[frozenset[str]] = frozenset()
    """The kinds of subscriptions (`aibridge.providers.subscriptions`) whose credentials are this provider's."""
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
        api_keys: Sequence[str] = (),
        max_retries: int = 2,
        send_actor_headers: bool = False,
        byok: bool = True,
        record_contents: bool = True,
        key_header: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name or self.type
        if not NAME.fullmatch(self.name):
            raise ValueError(f"the provider name {self.name!r} does not match ^{NAME.pattern}$")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the base URL of provider {self.name!r} is not of the form http(s)://host[:port][/path]")
        self.base_url = base_url.rstrip("/")
        if api_key and api_keys:
            raise ValueError(f"provider {self.name!r} has both an api_key and api_keys")
        keys = dict.fromkeys([api_key] if api_key else api_keys)  # a key that stands twice is one
        if key_header:
            self.key_header_name = key_header
        self.headers = tuple((name.lower(), value) for name, value in headers.items())
        """What is sent with every request; names in lower case."""
        for name, _ in self.headers:
            if name in CREDENTIAL_HEADERS:
                raise ValueError(
                    f"the header {name!r} of provider {self.name!r} holds a credential, which is an api_key"
                )
        self._query = dict(query)
        self.credentials = tuple(Credential("centralized", key, self.key_header(key)) for key in keys)
        """The gateway's own, where there are any."""
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
        """The gateway's own credential at this provider; of several, the first."""
        return self.credentials[0] if self.credentials else NO_CREDENTIAL

    def key_header(self, key: str) -> tuple[str, str]:
        """The header that carries a key upstream."""
        return _header(self.key_header_name, key)

    def own(self, secret: str | None, headers: Mapping[str, str], name: str | None = None) -> Credential | None:
        """A client's credential, as it goes upstream in the header of this name, or that of keys.

        None for none, and for one that belongs to a subscription at somebody else: that goes nowhere.
        """
        if not secret:
            return None
        subscription = subscription_of(secret, headers)
        if subscription and subscription not in self.subscriptions:
            return None
        return Credential("byok", secret, _header(name, secret) if name else self.key_header(secret), subscription)

    @property
    def key_headers(self) -> frozenset[str]:
        """Lower-case names of the headers by which this provider takes keys."""
        return frozenset([self.key_header("")[0].lower()])

    @property
    def secret_headers(self) -> frozenset[str]:
        """Lower-case names of those headers upstream whose values are nobody else's business."""
        return self.key_headers.union(name for name, _ in self.headers)

    def with_query(self, url: str, query: str) -> str:
        """A URL upstream with a client's query, and what is sent with every request."""
        if self._query:
            others = [field for field in parse_qsl(query, keep_blank_values=True) if field[0] not in self._query]
            query = urlencode([*others, *self._query.items()])
        return f"{url}?{query}" if query else url


def _header(name: str, secret: str) -> tuple[str, str]:
    return (name, f"Bearer {secret}" if name.lower() == BEARER.lower() else secret)
