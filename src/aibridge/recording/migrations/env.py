"""Alembic runs this to put migrations together as SQL; there is no database that it could run them on."""

from __future__ import annotations

from alembic import context

from aibridge.recording.schema import VERSION_TABLE

context.configure(
    dialect_name=context.config.attributes["dialect"],
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # whoever runs the SQL begins and ends the transaction
)
context.run_migrations()
