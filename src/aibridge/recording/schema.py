"""Which schema this program knows, and the SQL that brings a database to it.

The migrations stand in `migrations/versions`, one file for each version, written for Alembic. Alembic puts them
together as SQL; each store runs that on its own connection, in one transaction and under its own lock. So an operator
can read the SQL beforehand, and Alembic, which takes its time to import, is needed only where there is something to
migrate: what it writes for an empty database is kept in `migrations/empty_<dialect>.sql`, by `scripts/schema`.

A revision is the number of its version in four digits. PostgreSQL keeps it in the table `VERSION_TABLE`; SQLite in its
`user_version` too, which is cheaper to ask for, and where the first versions kept it.
"""

from __future__ import annotations

import functools
import threading
from importlib.resources import files
from typing import Literal, TypeAlias

REVISION = "0003"
"""The version of the schema that this program works with."""

VERSION_TABLE = "aibridge_schema_version"

Dialect: TypeAlias = Literal["sqlite", "postgresql"]

_alembic_is_not_thread_safe = threading.Lock()


def migration(dialect: Dialect, since: str | None, to: str = REVISION) -> str:
    """The SQL that brings a database from one revision to another; None is that of an empty one."""
    if since is None and to == REVISION:
        return (files("aibridge.recording.migrations") / f"empty_{dialect}.sql").read_text("utf-8")
    return written_by_alembic(dialect, since, to)


@functools.cache
def written_by_alembic(dialect: Dialect, since: str | None, to: str = REVISION) -> str:
    """The same, put together anew."""
    import io

    from alembic import command
    from alembic.config import Config

    written = io.StringIO()
    config = Config(output_buffer=written, attributes={"dialect": dialect})
    config.set_main_option("script_location", "aibridge.recording:migrations")
    with _alembic_is_not_thread_safe:
        command.upgrade(config, f"{since or 'base'}:{to}", sql=True)
    return written.getvalue()
