"""Linking interceptions into threads, in SQLite.

An interception that answers a tool call has as its parent the interception of the same initiator that made the
call: the one with the newest tool usage of that call id that is not later than itself (some providers number their
calls anew in every answer). Its root is the parent's root, or the parent where that has none. Links are worked out
anew whenever a record arrives that could change them, so they come out the same in whatever order records arrive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from aibridge.recording.sqlite_rows import utc
from aibridge.records import Interception, ToolUsage

# Who may have waited for tool usages, or for those of interceptions.
_WAITING = """
SELECT answer.started_at, answer.id
FROM aibridge_tool_usages AS call
JOIN aibridge_interceptions AS asker ON asker.id = call.interception_id
JOIN aibridge_interceptions AS answer
    ON answer.correlating_tool_call_id = call.provider_tool_call_id AND answer.started_at >= call.created_at
WHERE answer.initiator_id = asker.initiator_id AND call.{column} IN (SELECT value FROM json_each(?))
"""
_WAITING_FOR_CALL = _WAITING.format(column="id")
_WAITING_FOR_ASKER = _WAITING.format(column="interception_id")

# CROSS JOIN keeps SQLite to this order: the answer, then its calls from the newest on, until one's asker fits.
_PARENT = """
SELECT asker.id, coalesce(asker.thread_root_id, asker.id), answer.thread_parent_id, answer.thread_root_id
FROM aibridge_interceptions AS answer
CROSS JOIN aibridge_tool_usages AS call
    ON call.provider_tool_call_id = answer.correlating_tool_call_id AND call.created_at <= answer.started_at
CROSS JOIN aibridge_interceptions AS asker
    ON asker.id = call.interception_id AND asker.initiator_id = answer.initiator_id AND asker.id <> answer.id
WHERE answer.id = ?
ORDER BY call.created_at DESC, call.id DESC
LIMIT 1
"""

_SET_PARENT = "UPDATE aibridge_interceptions SET thread_parent_id = ? WHERE id = ?"

# UNION, not UNION ALL: it ends even where equal times made two interceptions each other's parent.
_SET_ROOT = """
WITH RECURSIVE thread (id) AS (
    SELECT ?
    UNION
    SELECT child.id FROM thread JOIN aibridge_interceptions AS child ON child.thread_parent_id = thread.id
)
UPDATE aibridge_interceptions SET thread_root_id = ? WHERE id IN thread
"""


def link(
    db: sqlite3.Connection, begun: Iterable[Interception], calls: Sequence[ToolUsage], askers: Sequence[str]
) -> None:
    """Link what a batch may have changed, within the transaction that stored it.

    `begun` are its interceptions that were not there before, `calls` its tool usages, `askers` those of its
    interceptions whose tool usages were stored before.
    """
    answers = [each for each in begun if each.correlating_tool_call_id is not None]
    affected = {*zip(utc([each.started_at for each in answers]), (each.id for each in answers), strict=True)}
    if askers:
        affected.update(db.execute(_WAITING_FOR_ASKER, _as_json(askers)))
    if calls:
        affected.update(db.execute(_WAITING_FOR_CALL, _as_json([call.id for call in calls])))
    _relink(db, [answer for _, answer in sorted(affected)])


def _as_json(ids: Sequence[str]) -> tuple[str]:
    """Ids as one JSON text: to ask for all of them at once costs far less than one after another."""
    return (msgspec.json.encode(ids).decode(),)


def _relink(db: sqlite3.Connection, answers: Iterable[str]) -> None:
    for answer in answers:
        found = db.execute(_PARENT, (answer,)).fetchone()
        if found is None:
            continue
        parent, root, old_parent, old_root = found
        if parent != old_parent:
            db.execute(_SET_PARENT, (parent, answer))
        if root != old_root:
            db.execute(_SET_ROOT, (answer, root))
