"""The ends of interceptions, as a batch has them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from aibridge.records import InterceptionEnded


def merged(ends: Iterable[InterceptionEnded]) -> dict[str, InterceptionEnded]:
    """Ends by their interceptions; of several of one, the last, with the metadata of all."""
    found: dict[str, InterceptionEnded] = {}
    for end in ends:
        earlier = found.get(end.interception_id)
        found[end.interception_id] = (
            msgspec.structs.replace(end, metadata=earlier.metadata | end.metadata) if earlier else end
        )
    return found
