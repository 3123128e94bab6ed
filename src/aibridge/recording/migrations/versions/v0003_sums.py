"""Sums by the hour and by the day (`aibridge.recording.rollups`), and in SQLite an index for the latest activity.

Whoever upgrades a database fills the sums afterwards, with the code that keeps them.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_SQLITE = """
CREATE TABLE aibridge_hourly_usage (
    starts_at                TEXT NOT NULL,
    initiator_id             TEXT NOT NULL,
    provider                 TEXT NOT NULL,
    provider_name            TEXT NOT NULL,
    model                    TEXT NOT NULL,
    client                   TEXT NOT NULL,
    interceptions            INTEGER NOT NULL,
    failed                   INTEGER NOT NULL,
    cancelled                INTEGER NOT NULL,
    turns                    INTEGER NOT NULL,
    tool_calls               INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cache_read_input_tokens  INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    PRIMARY KEY (starts_at, initiator_id, provider, provider_name, model, client)
) WITHOUT ROWID;

CREATE TABLE aibridge_daily_usage (
    starts_at                TEXT NOT NULL,
    initiator_id             TEXT NOT NULL,
    provider                 TEXT NOT NULL,
    provider_name            TEXT NOT NULL,
    model                    TEXT NOT NULL,
    client                   TEXT NOT NULL,
    interceptions            INTEGER NOT NULL,
    failed                   INTEGER NOT NULL,
    cancelled                INTEGER NOT NULL,
    turns                    INTEGER NOT NULL,
    tool_calls               INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cache_read_input_tokens  INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    PRIMARY KEY (starts_at, initiator_id, provider, provider_name, model, client)
) WITHOUT ROWID;

-- What belongs to interceptions that are not there yet; it leaves when its interception arrives.
CREATE TABLE aibridge_early_figures (
    interception_id          TEXT PRIMARY KEY NOT NULL,
    interceptions            INTEGER NOT NULL,
    failed                   INTEGER NOT NULL,
    cancelled                INTEGER NOT NULL,
    turns                    INTEGER NOT NULL,
    tool_calls               INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cache_read_input_tokens  INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL
);

DROP INDEX aibridge_interceptions_initiator;
CREATE INDEX aibridge_interceptions_initiator
    ON aibridge_interceptions (initiator_id, coalesce(ended_at, started_at));
CREATE INDEX aibridge_interceptions_latest ON aibridge_interceptions (coalesce(ended_at, started_at))
"""

_POSTGRESQL = """
CREATE TABLE aibridge_hourly_usage (
    starts_at                timestamptz NOT NULL,
    initiator_id             text COLLATE "C" NOT NULL,
    provider                 text COLLATE "C" NOT NULL,
    provider_name            text COLLATE "C" NOT NULL,
    model                    text COLLATE "C" NOT NULL,
    client                   text COLLATE "C" NOT NULL,
    interceptions            bigint NOT NULL,
    failed                   bigint NOT NULL,
    cancelled                bigint NOT NULL,
    turns                    bigint NOT NULL,
    tool_calls               bigint NOT NULL,
    input_tokens             bigint NOT NULL,
    output_tokens            bigint NOT NULL,
    cache_read_input_tokens  bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX aibridge_hourly_usage_key ON aibridge_hourly_usage (
    starts_at,
    md5(initiator_id || chr(31) || provider || chr(31) || provider_name || chr(31) || model || chr(31) || client)
);

CREATE TABLE aibridge_daily_usage (
    starts_at                timestamptz NOT NULL,
    initiator_id             text COLLATE "C" NOT NULL,
    provider                 text COLLATE "C" NOT NULL,
    provider_name            text COLLATE "C" NOT NULL,
    model                    text COLLATE "C" NOT NULL,
    client                   text COLLATE "C" NOT NULL,
    interceptions            bigint NOT NULL,
    failed                   bigint NOT NULL,
    cancelled                bigint NOT NULL,
    turns                    bigint NOT NULL,
    tool_calls               bigint NOT NULL,
    input_tokens             bigint NOT NULL,
    output_tokens            bigint NOT NULL,
    cache_read_input_tokens  bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX aibridge_daily_usage_key ON aibridge_daily_usage (
    starts_at,
    md5(initiator_id || chr(31) || provider || chr(31) || provider_name || chr(31) || model || chr(31) || client)
);

-- What belongs to interceptions that are not there yet; it leaves when its interception arrives.
CREATE TABLE aibridge_early_figures (
    interception_id          uuid PRIMARY KEY,
    interceptions            bigint NOT NULL,
    failed                   bigint NOT NULL,
    cancelled                bigint NOT NULL,
    turns                    bigint NOT NULL,
    tool_calls               bigint NOT NULL,
    input_tokens             bigint NOT NULL,
    output_tokens            bigint NOT NULL,
    cache_read_input_tokens  bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL
)
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(_SQLITE if op.get_context().dialect.name == "sqlite" else _POSTGRESQL)
