"""Which schema a PostgreSQL database has, and bringing it to this program's."""

from __future__ import annotations

from aibridge.errors import RecordingError
from aibridge.recording.postgres.connection import MIGRATING, Connection, has_table, shown
from aibridge.recording.postgres.sums import CUTTING, rebuild
from aibridge.recording.rollups import rebuilding
from aibridge.recording.schema import REVISION, VERSION_TABLE, migration


class SchemaError(RecordingError):
    """The database has a schema that this program can not work with; the message says what to do."""


async def revision(connection: Connection) -> str | None:
    """The schema that a database has, as `aibridge.recording.schema` numbers them; None for one without any."""
    if not await has_table(connection, VERSION_TABLE):
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608
    return found


async def prepare(connection: Connection, url: str) -> None:
    """See that the database has this program's schema, and make it where there is none.

    Another one is not changed by itself, for other gateways may be working with it: SchemaError is raised.
    """
    found = await revision(connection)
    if found is None:
        await upgrade(connection, url)
    elif found < REVISION:
        raise SchemaError(
            f"the database {shown(url)} has the schema of an older aibridge ({found}, this one needs {REVISION}): "
            "run `aibridge db upgrade`"
        )
    elif found > REVISION:
        raise _newer(url, found)


def _newer(url: str, found: str) -> SchemaError:
    return SchemaError(
        f"the database {shown(url)} was written by a newer aibridge (schema {found}, this one knows {REVISION}): "
        "upgrade aibridge, or set storage.url to another database"
    )


async def upgrade(connection: Connection, url: str) -> str | None:
    """Bring the schema up to date; several may do so at once. The revision that was found is returned."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
        found = await revision(connection)
        if found is not None and found > REVISION:
            raise _newer(url, found)
        if found != REVISION:
            await connection.execute(migration("postgresql", found), timeout=None)
            if found is not None:
                await rebuild(connection)
    return found


def script(found: str | None) -> str:
    """The SQL that brings a database of this revision up to date, to be run in one transaction."""
    steps = [migration("postgresql", found)]
    if found is not None:
        steps += [f"{statement};\n" for statement in rebuilding(CUTTING)]
    return "".join(steps)
