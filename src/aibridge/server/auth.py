"""Who asks: how the gateway finds the actor of a request."""

from __future__ import annotations

from collections.abc import Callable

from aibridge.actor import Scope, as_actor
from aibridge.server.settings import Auth

ANONYMOUS = "anonymous"

Authenticate = Callable[[Scope], Scope]
"""Puts the actor on a request's scope where there is one, and takes the gateway's own credential off it."""


def authentication(settings: Auth) -> Authenticate:
    """The authentication that the settings name."""
    return _Header(settings.header) if settings.mode == "header" else _anonymous


def _anonymous(scope: Scope) -> Scope:
    return as_actor(scope, ANONYMOUS)


class _Header:
    """A trusted proxy in front of the gateway names the actor in a header."""

    def __init__(self, header: str) -> None:
        self._name = header.lower().encode()

    def __call__(self, scope: Scope) -> Scope:
        own, headers = self._name, scope["headers"]
        others = [field for field in headers if field[0] != own]
        if len(others) == len(headers):  # nobody
            return scope
        values = {value.strip() for name, value in headers if name == own}
        actor = values.pop().decode("utf-8", "replace")
        # A client may add a name of its own to the proxy's: then it is nobody as well.
        known = as_actor(scope, actor) if actor and not values else {**scope}
        known["headers"] = others
        return known
