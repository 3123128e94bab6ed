"""Responses that clients know by another id than the provider: the first turn's instead of the last one's.

Only the last one leads to all that was said, so a request that goes on from such a response is led there.
"""

from __future__ import annotations

from aibridge.actor import Actor
from aibridge.recording.memory import TurnMemory
from aibridge.wire.dialect import Request
from aibridge.wire.responses import going_on_from


async def remember_id(memory: TurnMemory, actor: Actor, known_as: str, own: str) -> None:
    """Keep that the actor's client knows the provider's response `own` as `known_as`."""
    await memory.remember(actor.id, [_key(known_as)], own.encode())


async def led_on(memory: TurnMemory, actor: Actor, request: Request) -> Request:
    """The request, going on from the response that the provider knows."""
    if request.goes_on_from is None:
        return request
    key = _key(request.goes_on_from)
    found = (await memory.recall(actor.id, [key])).get(key)
    return going_on_from(request, found.decode()) if found else request


def _key(known_as: str) -> str:
    return f"response:{known_as}"
