"""Where a client's request goes upstream, and with which headers."""

from __future__ import annotations

from aibridge.actor import Actor
from aibridge.bridge.asgi import Scope
from aibridge.bridge.headers import Forwarded, TextHeaders, as_text, by_name, end_to_end, for_upstream
from aibridge.providers import Credential, Provider


class Addressing:
    """Makes URL and headers for any provider of what a client sent.

    `path` is below the prefix; `forwarded` tells which headers go to anybody.
    """

    __slots__ = ("_actor", "_fields", "_forwarded", "_path", "_query", "headers")

    def __init__(self, scope: Scope, path: str, actor: Actor, forwarded: Forwarded) -> None:
        fields: TextHeaders = as_text(scope["headers"])
        self.headers = by_name(fields)
        """The client's headers by their names in lower case; of those sent more than once, the first."""
        self._fields = end_to_end(fields) if "connection" in self.headers else fields
        self._path, self._actor, self._forwarded = path, actor, forwarded
        self._query: bytes = scope.get("query_string", b"")

    def unpacked(self) -> None:
        """The body is sent without its coding."""
        self._fields = [field for field in self._fields if field[0] != "content-encoding"]

    def __call__(self, provider: Provider, credential: Credential) -> tuple[str, list[tuple[str, str]]]:
        """The URL, and the headers with this credential."""
        url = provider.with_query(provider.upstream_url(self._path), self._query.decode("latin-1"))
        told = self._actor if provider.send_actor_headers else None
        return url, for_upstream(self._fields, credential, told, self._forwarded, provider.headers)
