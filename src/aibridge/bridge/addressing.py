"""Where a client's request goes upstream, and with which headers."""

from __future__ import annotations

from aibridge.actor import Actor
from aibridge.bridge.asgi import Scope
from aibridge.bridge.headers import TextHeaders, for_upstream
from aibridge.providers import Credential, Provider


class Addressing:
    """Makes URL and headers for any provider of what a client sent.

    `path` is below the prefix; headers that are `not_forwarded` go to nobody.
    """

    __slots__ = ("_actor", "_not_forwarded", "_path", "_query", "fields")

    def __init__(
        self, scope: Scope, path: str, fields: TextHeaders, actor: Actor, not_forwarded: frozenset[str]
    ) -> None:
        self.fields = fields
        """The client's headers; names in lower case."""
        self._path, self._actor, self._not_forwarded = path, actor, not_forwarded
        self._query: bytes = scope.get("query_string", b"")

    def unpacked(self) -> None:
        """The body is sent without its coding."""
        self.fields = [field for field in self.fields if field[0] != "content-encoding"]

    def __call__(self, provider: Provider, credential: Credential) -> tuple[str, list[tuple[str, str]]]:
        """The URL, and the headers with this credential."""
        url = provider.with_query(provider.upstream_url(self._path), self._query.decode("latin-1"))
        told = self._actor if provider.send_actor_headers else None
        return url, for_upstream(self.fields, credential, told, self._not_forwarded, provider.headers)
