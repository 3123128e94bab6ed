"""The provider's own usage object beside the figures that were taken from it, as JSON."""

from __future__ import annotations

from alembic import op

from aibridge.recording.schema import sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column. PostgreSQL's `json` keeps the text as it is, which `jsonb` would not."""
    op.execute(sql(op.get_context().dialect.name, revision))
