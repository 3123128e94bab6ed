"""The five tables of records, and what is needed to fill them.

Every column bears the name of the record's field that it holds. Partial indexes leave out the rows that have nothing
to be found by.

In SQLite times are UTC in ISO 8601, always with microseconds, so that they sort as text.

In PostgreSQL the tables of records are partitioned by id, for ids begin with their time (`aibridge.records.new_id`): so
the primary key is the id alone, and whole weeks can be dropped. What has an id of another kind is in the default
partition. Texts compare byte by byte, as in SQLite, so that the beginning of an id can be looked up. An index holds at
most 256 characters of what a client or a provider chose, since PostgreSQL refuses rows whose index entry is too long.
"""

from __future__ import annotations

from alembic import op

from aibridge.recording.schema import sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables. SQLite may have them already, without the table that tells so."""
    op.execute(sql(op.get_context().dialect.name, revision))
