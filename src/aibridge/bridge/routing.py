"""Which route a path belongs to. Only listed paths reach a provider, and none by a disguise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aibridge.bridge.asgi import Scope
from aibridge.providers import ModelRoute, Provider
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
    via: ModelRoute | None = None
    """What leads to this provider, and perhaps to others."""


class Routes:
    """The routes of a set of providers, and of what leads to several of them.

    All have names of their own, and no other provider is led to. Raises `ValueError` where that is not so.
    """

    def __init__(self, providers: Iterable[Provider], model_routes: Iterable[ModelRoute] = ()) -> None:
        self.providers: dict[str, Provider] = {}
        self._prefixes: dict[str, tuple[Provider, ModelRoute | None]] = {}
        self._bridged: dict[str, Route] = {}
        for provider in providers:
            self._add(provider.name, provider, None)
            self.providers[provider.name] = provider
        for via in model_routes:
            for provider in via.providers:
                if self.providers.get(provider.name) is not provider:
                    raise ValueError(f"the route {via.name!r} leads to {provider.name!r}, which is not a provider here")
            self._add(via.name, via.first, via)

    def _add(self, name: str, provider: Provider, via: ModelRoute | None) -> None:
        if name in self._prefixes:
            raise ValueError(f"two providers or routes are named {name!r}")
        self._prefixes[name] = (provider, via)
        for path, dialect in provider.bridged.items():
            self._bridged[f"/{name}{path}"] = Route(provider, path, dialect=dialect, via=via)

    def find(self, path: str) -> Route | None:
        """The route of a path; None where its prefix is no provider's, or something is wrong with it."""
        if found := self._bridged.get(path):
            return found
        name, slash, rest = path[1:].partition("/")
        if name not in self._prefixes or not path.startswith("/"):
            return None
        provider, via = self._prefixes[name]
        below = slash + rest
        pattern = provider.passthrough_pattern(below) if _is_plain(below) else None
        return Route(provider, below, passthrough=pattern, via=via)


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
