"""The ends of interceptions, as a batch has them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from aibridge.records import Interception, InterceptionEnded

OUTCOME = ("ended_at", "status", "http_status", "error_type", "error_message")
"""The columns of an interception that its end fills."""


def merged(ends: Iterable[InterceptionEnded]) -> dict[str, InterceptionEnded]:
    """Ends by their interceptions; of several of one, the last, with the metadata of all."""
    found: dict[str, InterceptionEnded] = {}
    for end in ends:
        earlier = found.get(end.interception_id)
        found[end.interception_id] = (
            msgspec.structs.replace(end, metadata=earlier.metadata | end.metadata) if earlier else end
        )
    return found


def with_end(interception: Interception, end: InterceptionEnded) -> Interception:
    """The interception, with what is known at its end only."""
    if not end.metadata:
        return interception
    return msgspec.structs.replace(interception, metadata=interception.metadata | end.metadata)
