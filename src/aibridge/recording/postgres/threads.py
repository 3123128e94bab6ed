"""Linking interceptions into threads, in PostgreSQL: what `aibridge.recording.threads` says, a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

from aibridge.recording.postgres.connection import Connection

# Who may have waited for these tool usages. Indexes hold 256 characters of a call's id; the rest is compared as well.
_WAITING = """
SELECT DISTINCT answer.id
FROM unnest($1::uuid[]) AS stored (id)
JOIN aibridge_tool_usages AS call ON call.id = stored.id
JOIN aibridge_interceptions AS asker ON asker.id = call.interception_id
JOIN aibridge_interceptions AS answer
    ON left(answer.correlating_tool_call_id, 256) = left(call.provider_tool_call_id, 256)
    AND answer.correlating_tool_call_id = call.provider_tool_call_id
    AND answer.started_at >= call.created_at
WHERE answer.initiator_id = asker.initiator_id
"""

_CALLS = "SELECT id FROM aibridge_tool_usages WHERE interception_id = ANY($1::uuid[])"

_SET_PARENTS = """
UPDATE aibridge_interceptions AS answer
SET thread_parent_id = found.parent
FROM (
    SELECT answer.id, asker.id AS parent
    FROM unnest($1::uuid[]) AS affected (id)
    JOIN aibridge_interceptions AS answer ON answer.id = affected.id
    CROSS JOIN LATERAL (
        SELECT asker.id
        FROM aibridge_tool_usages AS call
        JOIN aibridge_interceptions AS asker
            ON asker.id = call.interception_id AND asker.initiator_id = answer.initiator_id AND asker.id <> answer.id
        WHERE left(call.provider_tool_call_id, 256) = left(answer.correlating_tool_call_id, 256)
            AND call.provider_tool_call_id = answer.correlating_tool_call_id
            AND call.created_at <= answer.started_at
        ORDER BY call.created_at DESC, call.id DESC
        LIMIT 1
    ) AS asker
) AS found
WHERE answer.id = found.id AND answer.thread_parent_id IS DISTINCT FROM found.parent
RETURNING answer.id
"""

# All that follow the affected ones get the root of the first that is above them. UNION, not UNION ALL: it ends even
# where equal times made two interceptions each other's parent.
_SET_ROOTS = """
WITH RECURSIVE
below (id) AS (
    SELECT unnest($1::uuid[])
    UNION
    SELECT child.id FROM below JOIN aibridge_interceptions AS child ON child.thread_parent_id = below.id
),
rooted (id, root) AS (
    SELECT top.id, coalesce(parent.thread_root_id, parent.id)
    FROM unnest($1::uuid[]) AS affected (id)
    JOIN aibridge_interceptions AS top ON top.id = affected.id
    JOIN aibridge_interceptions AS parent ON parent.id = top.thread_parent_id
    WHERE parent.id NOT IN (SELECT id FROM below)
    UNION
    SELECT child.id, rooted.root
    FROM rooted JOIN aibridge_interceptions AS child ON child.thread_parent_id = rooted.id
)
UPDATE aibridge_interceptions AS changed
SET thread_root_id = rooted.root
FROM rooted
WHERE changed.id = rooted.id AND changed.thread_root_id IS DISTINCT FROM rooted.root
"""


async def link(connection: Connection, answers: Sequence[str], calls: Sequence[str], askers: Sequence[str]) -> None:
    """Link what a batch may have changed, within the transaction that stored it.

    `answers` are its interceptions that answer a call, `calls` its tool usages, `askers` its interceptions whose tool
    usages were stored before.
    """
    if askers:
        calls = [*calls, *(row[0] for row in await connection.fetch(_CALLS, askers))]
    affected = set(map(str, answers))
    if calls:
        affected |= {str(row[0]) for row in await connection.fetch(_WAITING, calls)}
    if affected:
        changed = await connection.fetch(_SET_PARENTS, sorted(affected))
        if changed:
            await connection.execute(_SET_ROOTS, [row[0] for row in changed])
