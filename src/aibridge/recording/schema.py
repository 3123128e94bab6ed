"""Which schema this program knows, and the SQL that brings a database to it.

The SQL of each version stands in `migrations/sql`, for each kind of database. Alembic puts the migrations together that
an older database needs, and each store runs what that gives on its own connection, in one transaction and under its own
lock: so an operator can read it beforehand. An empty database gets all of it, for which Alembic, which takes its time
to import, is not needed.

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
_SQL = files("aibridge.recording.migrations") / "sql"


def sql(dialect: str, revision: str) -> str:
    """The statements of one version, the last of them without its semicolon, as Alembic wants it."""
    return (_SQL / f"{revision}_{dialect}.sql").read_text("utf-8").rstrip().removesuffix(";")


def migration(dialect: Dialect, since: str | None, to: str = REVISION) -> str:
    """The SQL that brings a database from one revision to another; None is that of an empty one."""
    if since is not None:
        return _upgrade(dialect, since, to)
    statements = [
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{to}')",  # noqa: S608 - a number
        *(sql(dialect, f"{version:04}") for version in range(1, int(to) + 1)),
    ]
    return "".join(f"{each};\n" for each in statements)


@functools.cache
def _upgrade(dialect: Dialect, since: str, to: str) -> str:
    import io

    from alembic import command
    from alembic.config import Config

    written = io.StringIO()
    config = Config(output_buffer=written, attributes={"dialect": dialect})
    config.set_main_option("script_location", "aibridge.recording:migrations")
    with _alembic_is_not_thread_safe:
        command.upgrade(config, f"{since}:{to}", sql=True)
    return written.getvalue()
