"""One name for several providers of a dialect: which are asked for a model, in which order, and by which name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from aibridge.errors import Fault, Kind
from aibridge.providers.provider import NAME, Provider
from aibridge.wire.dialect import Dialect

Alias = str | Mapping[str, str]
"""The name of a model upstream: at every provider, or by the provider's name."""


class ModelRoute:
    """Providers in the order in which they are asked, served below `/{name}` as one provider is.

    Patterns are of the shell's kind (`claude-*`), and case counts. `allow` lists the models that clients may ask for,
    by the names that they use; empty for all. `when` says of a provider for which models it is asked, by the same
    names; one that is not in it is asked for all. `aliases` tell by which name a provider knows what clients call so.

    Clients' own credentials are for none of several providers: they are dropped, and the providers' configured keys
    are used. Raises `ValueError` where an argument can not be used.
    """

    def __init__(
        self,
        name: str,
        providers: Sequence[Provider],
        *,
        allow: Iterable[str] = (),
        when: Mapping[str, Iterable[str]] = MappingProxyType({}),
        aliases: Mapping[str, Alias] = MappingProxyType({}),
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"the route name {name!r} does not match ^{NAME.pattern}$")
        if not providers:
            raise ValueError(f"the route {name!r} has no providers")
        self.name, self.providers = name, tuple(providers)
        self._allow = tuple(allow)
        self._when = {provider: tuple(patterns) for provider, patterns in when.items()}
        self._aliases = dict(aliases)
        first, names = self.first, [each.name for each in self.providers]
        for other in self.providers[1:]:
            if _dialects(other) != _dialects(first):
                raise ValueError(f"the route {name!r} leads to {first.name!r} and {other.name!r}: not of one dialect")
        if len(set(names)) < len(names):
            raise ValueError(f"the route {name!r} names a provider twice")
        told = [each for alias in self._aliases.values() if isinstance(alias, Mapping) for each in alias]
        for unknown in {*self._when, *told} - set(names):
            raise ValueError(f"the route {name!r} tells of {unknown!r}, which is none of its providers")

    @property
    def first(self) -> Provider:
        """The provider that is asked first."""
        return self.providers[0]

    def legs(self, model: str) -> list[tuple[Provider, str]]:
        """The providers that are asked for a model, in this order, each with the name by which it knows the model.

        Raises `Fault` (MODEL_NOT_ALLOWED) where it is not on the list, or no provider is asked for it.
        """
        if self._allow and not _matches(model, self._allow):
            raise Fault(Kind.MODEL_NOT_ALLOWED, f"the model {model} is not allowed on the route {self.name}")
        alias = self._aliases.get(model, model)
        legs = [
            (provider, alias if isinstance(alias, str) else alias.get(provider.name, model))
            for provider in self.providers
            if provider.name not in self._when or _matches(model, self._when[provider.name])
        ]
        if not legs:
            raise Fault(Kind.MODEL_NOT_ALLOWED, f"no provider of the route {self.name} is asked for the model {model}")
        return legs


def _dialects(provider: Provider) -> dict[str, str]:
    bridged: Mapping[str, Dialect] = provider.bridged
    return {path: dialect.name for path, dialect in bridged.items()}


def _matches(model: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)
