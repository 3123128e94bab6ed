"""On whose behalf a request is made."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

_KEY = "aibridge.actor"

Scope = MutableMapping[str, Any]
"""An ASGI connection scope."""


class Actor(msgspec.Struct, frozen=True):
    """Who a request belongs to: a stable id, and whatever else is worth keeping beside it."""

    id: str
    metadata: Mapping[str, str] = {}


def as_actor(scope: Scope, id: str, metadata: Mapping[str, str] | None = None) -> Scope:  # noqa: A002  # as hosts say it
    """The same ASGI scope with an actor on it, for the bridge to find.

    A host application calls this in its authentication layer, before the request reaches the bridge:

        await bridge(as_actor(scope, user.id, {"team": user.team}), receive, send)
    """
    if not id:
        raise ValueError("an actor needs an id that is not empty")
    return {**scope, _KEY: Actor(id, metadata or {})}


def actor_of(scope: Scope) -> Actor | None:
    """The actor that `as_actor` put on the request; None where nobody did."""
    found = scope.get(_KEY)
    return found if isinstance(found, Actor) else None
