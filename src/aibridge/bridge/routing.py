"""Which route a path belongs to. Only listed paths reach a provider, and none by a disguise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aibridge.bridge.asgi import Scope
from aibridge.providers import Provider
from aibridge.wire.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Route:
    """A path below a provider's prefix; at most one of `dialect` and `passthrough` is there."""

    provider: Provider
    path: str
    """As the client sent it, from the slash after the prefix on."""
    dialect: Dialect | None = None
    passthrough: str | None = None
    """The pattern on the provider's list."""


class Routes:
    """The routes of a set of providers, whose names are unique. Raises `ValueError` where they are not."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self.providers: dict[str, Provider] = {}
        self._bridged: dict[str, Route] = {}
        for provider in providers:
            if provider.name in self.providers:
                raise ValueError(f"two providers are named {provider.name!r}")
            self.providers[provider.name] = provider
            for path, dialect in provider.bridged.items():
                self._bridged[f"/{provider.name}{path}"] = Route(provider, path, dialect=dialect)

    def find(self, path: str) -> Route | None:
        """The route of a path; None where its prefix is no provider's, or something is wrong with it."""
        if found := self._bridged.get(path):
            return found
        name, slash, rest = path[1:].partition("/")
        provider = self.providers.get(name)
        if provider is None or not path.startswith("/"):
            return None
        below = slash + rest
        return Route(provider, below, passthrough=provider.passthrough_pattern(below) if _is_plain(below) else None)


def path_of(scope: Scope) -> str:
    """The path of a request as it was sent, below the place where the bridge is mounted."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1").removeprefix(scope.get("root_path", ""))


def _is_plain(path: str) -> bool:
    """No segment of the path can be taken for something else upstream, however often that decodes it."""
    return all(_is_plain_segment(segment) for segment in path.split("/")[1:])


def _is_plain_segment(segment: str) -> bool:
    told = segment.encode("latin-1")
    while (decoded := unquote_to_bytes(told)) != told:
        told = decoded
    return told not in (b"", b".", b"..") and not any(byte < 0x20 or byte in b"/\\\x7f" for byte in told)
