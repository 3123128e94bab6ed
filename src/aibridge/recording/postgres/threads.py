"""Linking interceptions into threads, in PostgreSQL: what `aibridge.recording.threads` says, a whole batch at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from aibridge.recording.postgres.connection import Connection
from aibridge.recording.postgres.partitions import first_id, week_of

# Who may have waited for these tool usages. Indexes hold 256 characters of a call's id; the rest is compared as well.
_WAITING = """
SELECT DISTINCT answer.id
FROM unnest($1::uuid[]) AS stored (id)
JOIN aibridge_tool_usages AS call ON call.id = stored.id AND call.id >= $2
JOIN aibridge_interceptions AS asker ON asker.id = call.interception_id
JOIN aibridge_interceptions AS answer
    ON left(answer.correlating_tool_call_id, 256) = left(call.provider_tool_call_id, 256)
    AND answer.correlating_tool_call_id = call.provider_tool_call_id
    AND answer.started_at >= call.created_at
WHERE answer.initiator_id = asker.initiator_id AND answer.id >= $2
"""

_CALLS = "SELECT id FROM aibridge_tool_usages WHERE interception_id = ANY($1::uuid[])"

_PARENTS = """
SELECT answer.id, asker.id, asker.thread_root_id, answer.thread_parent_id, answer.thread_root_id
FROM unnest($1::uuid[]) AS affected (id)
JOIN aibridge_interceptions AS answer ON answer.id = affected.id
CROSS JOIN LATERAL (
    SELECT asker.id, asker.thread_root_id
    FROM aibridge_tool_usages AS call
    JOIN aibridge_interceptions AS asker
        ON asker.id = call.interception_id AND asker.initiator_id = answer.initiator_id AND asker.id <> answer.id
    WHERE left(call.provider_tool_call_id, 256) = left(answer.correlating_tool_call_id, 256)
        AND call.provider_tool_call_id = answer.correlating_tool_call_id
        AND call.created_at <= answer.started_at AND call.id >= $2
    ORDER BY call.created_at DESC, call.id DESC
    LIMIT 1
) AS asker
"""

_LINK = """
UPDATE aibridge_interceptions AS answer SET thread_parent_id = linked.parent, thread_root_id = linked.root
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS linked (id, parent, root)
WHERE answer.id = linked.id
"""

# UNION, not UNION ALL: it ends even where equal times made two interceptions each other's parent.
_SET_ROOTS_BELOW = """
WITH RECURSIVE below (id, root) AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[])
    UNION
    SELECT child.id, below.root FROM below JOIN aibridge_interceptions AS child ON child.thread_parent_id = below.id
)
UPDATE aibridge_interceptions AS follower SET thread_root_id = below.root
FROM below WHERE follower.id = below.id AND follower.thread_root_id IS DISTINCT FROM below.root
"""


_LEAST = "00000000-0000-0000-0000-000000000000"


class _Found(NamedTuple):
    """The parent of an answer with its own root, and what the answer had for both before."""

    parent: str
    root_of_parent: str | None
    old_parent: str | None
    old_root: str | None


async def link(connection: Connection, begun: Collection[str], calls: Sequence[str], askers: Sequence[str]) -> None:
    """Link what a batch may have changed, within the transaction that stored it.

    `begun` are its interceptions that were not there before, `calls` its tool usages, `askers` those of its
    interceptions whose tool usages were stored before.
    """
    # A plan that was made while there was little would look through whole weeks, and for all weeks.
    await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    if askers:
        calls = [*calls, *(str(row[0]) for row in await connection.fetch(_CALLS, askers))]
    affected = set(begun)
    if calls:
        affected |= {str(row[0]) for row in await connection.fetch(_WAITING, calls, _since(calls))}
    if not affected:
        return
    since = _since(affected)
    rows = await connection.fetch(_PARENTS, [*affected], since)
    if len(rows) < len(affected) and since != _LEAST:
        elsewhere = affected - {str(row[0]) for row in rows}
        rows += await connection.fetch(_PARENTS, [*elsewhere], _LEAST)
    found = {str(row[0]): _Found(*(value and str(value) for value in tuple(row)[1:])) for row in rows}
    linked = [
        (answer, each.parent, root)
        for answer, each in found.items()
        if (each.parent, root := _root(answer, found)) != (each.old_parent, each.old_root)
    ]
    if linked:
        await connection.execute(_LINK, *map(list, zip(*linked, strict=True)))
    # What has just begun can not have followers but in this batch, and these were linked with it.
    below = [(answer, root) for answer, _, root in linked if answer not in begun]
    if below:
        await connection.execute(_SET_ROOTS_BELOW, *map(list, zip(*below, strict=True)))


def _since(ids: Iterable[str]) -> str:
    """An id from the week before these: nearly always, calls and answers are found without older partitions."""
    weeks = list(map(week_of, ids))
    known = [week for week in weeks if week is not None]
    return first_id(min(known) - 1) if len(known) == len(weeks) else _LEAST


def _root(answer: str, found: Mapping[str, _Found]) -> str:
    """The first interception of a thread; of several that follow each other in a circle, any one."""
    seen = set()
    while found[answer].parent in found and answer not in seen:
        seen.add(answer)
        answer = found[answer].parent
    return found[answer].root_of_parent or found[answer].parent
