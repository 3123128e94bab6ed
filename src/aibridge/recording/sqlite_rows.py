"""Rows as SQLite takes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

_ROWS = 16
"""How many rows one statement takes: between statements the thread asks for the interpreter, which others need."""


def execute_rows(db: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> list[Any]:
    """Execute a statement with some rows at a time in place of its `{rows}`; what it returns."""
    returned: list[Any] = []
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        values = list(chain.from_iterable(some))
        returned += db.execute(_with_marks(statement, len(some), len(some[0])), values).fetchall()
    return returned


@lru_cache(maxsize=256)
def _with_marks(statement: str, rows: int, columns: int) -> str:
    marks = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([marks] * rows))


def utc(time: datetime) -> str:
    """A time as `isoformat(timespec="microseconds")` writes it in UTC, in a tenth of the time that this takes."""
    told = _encode(time if time.tzinfo is UTC else time.astimezone(UTC))[1:-2]  # "2026-01-31T09:30:00.000001Z"
    return (told if time.microsecond else told + b".000000").decode() + "+00:00"
