"""Sums by the hour and by the day (`aibridge.recording.rollups`), and in SQLite an index for the latest activity.

Whoever upgrades a database fills the sums afterwards, with the code that keeps them.
"""

from __future__ import annotations

from alembic import op

from aibridge.recording.schema import sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.execute(sql(op.get_context().dialect.name, revision))
