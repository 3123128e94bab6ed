"""The weeks that the tables of records are partitioned into.

A week begins on Monday, 00:00 UTC. Ids of the gateway begin with their time, so a week is a range of ids. What has an
id of another kind, or of a time that can not be true, is in the default partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from time import time

from aibridge.recording.postgres.connection import MIGRATING, Connection, has_table

TABLES = (
    "aibridge_interceptions",
    "aibridge_token_usages",
    "aibridge_user_prompts",
    "aibridge_tool_usages",
    "aibridge_model_thoughts",
)
"""The tables that are partitioned, in the order in which they are locked."""

_EPOCH = datetime(1969, 12, 29, tzinfo=UTC)
_WEEK = timedelta(weeks=1)
_MILLISECONDS = 7 * 24 * 3600 * 1000
_OFFSET = 3 * 24 * 3600 * 1000  # 1970 began on a Thursday
_PAST, _FUTURE = 60, 1
"""The weeks before and after this one that may get partitions: a wrong clock must not make thousands of them."""


def week_of(record_id: str) -> int | None:
    """The number of the week in which an id was made; None where it is none that begins with its time."""
    if record_id[14:15] != "7":
        return None
    try:
        return (int(record_id[:8] + record_id[9:13], 16) + _OFFSET) // _MILLISECONDS
    except ValueError:
        return None


def week_at(time: datetime) -> int:
    """The number of the week of a time: the weeks below it are wholly before."""
    return (int(time.timestamp() * 1000) + _OFFSET) // _MILLISECONDS


async def weeks_of(connection: Connection, table: str) -> list[int]:
    """The weeks that a table has partitions for, the oldest first."""
    partitions = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass"
    dates = [name.rpartition("_")[2] for (name,) in await connection.fetch(partitions, table)]
    return sorted((datetime.strptime(f"{date}+0000", "%Y%m%d%z") - _EPOCH) // _WEEK for date in dates if date.isdigit())


def first_id(week: int) -> str:
    """The least id of a week."""
    digits = f"{max(0, week * _MILLISECONDS - _OFFSET):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def name_of(table: str, week: int) -> str:
    """The partition of a table for a week: its name ends in the date of that week's Monday."""
    return f"{table}_{_EPOCH + week * _WEEK:%Y%m%d}"


class Partitions:
    """Makes the partitions that are needed, those of this week and the next ahead of need."""

    def __init__(self) -> None:
        self._there: set[int] = set()

    async def provide(self, connection: Connection, ids: Iterable[str]) -> None:
        """See that there are partitions for these ids. It must not be called within a transaction."""
        this_week = int(time() * 1000 + _OFFSET) // _MILLISECONDS
        wanted = {this_week, this_week + 1}
        wanted |= {
            week
            for week in set(map(week_of, ids))
            if week is not None and this_week - _PAST <= week <= this_week + _FUTURE
        }
        for week in sorted(wanted - self._there):
            await _make(connection, week)
            self._there.add(week)


async def _make(connection: Connection, week: int) -> None:
    """Make a week's partitions, unless another process has done so; they get what the default ones have of it."""
    newest = name_of(TABLES[-1], week)
    if await has_table(connection, newest):
        return
    least, beyond = first_id(week), first_id(week + 1)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
        if await has_table(connection, newest):
            return
        for table in TABLES:
            name = name_of(table, week)
            await connection.execute(f"""
                LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE;
                CREATE TABLE {name} (LIKE {table} INCLUDING ALL);
                WITH moved AS (DELETE FROM {table}_default WHERE id >= '{least}' AND id < '{beyond}' RETURNING *)
                INSERT INTO {name} SELECT * FROM moved;
                ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{least}') TO ('{beyond}');
            """)  # noqa: S608 - names and bounds are made here
