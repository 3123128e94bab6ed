"""The provider's own usage object beside the figures that were taken from it, as JSON."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column. PostgreSQL's `json` keeps the text as it is, which `jsonb` would not."""
    kind = "TEXT" if op.get_context().dialect.name == "sqlite" else "json"
    op.execute(f"ALTER TABLE aibridge_token_usages ADD COLUMN provider_usage {kind}")
