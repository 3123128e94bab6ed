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

revision = "0001"
down_revision = None

_SQLITE = """
CREATE TABLE IF NOT EXISTS aibridge_interceptions (
    id                       TEXT PRIMARY KEY NOT NULL,
    initiator_id             TEXT NOT NULL,
    provider                 TEXT NOT NULL,
    provider_name            TEXT NOT NULL,
    model                    TEXT NOT NULL,
    started_at               TEXT NOT NULL,
    ended_at                 TEXT,
    metadata                 TEXT NOT NULL,
    client                   TEXT NOT NULL,
    client_session_id        TEXT,
    user_agent               TEXT,
    thread_parent_id         TEXT,
    thread_root_id           TEXT,
    correlating_tool_call_id TEXT,
    credential_kind          TEXT NOT NULL,
    credential_hint          TEXT NOT NULL,
    route                    TEXT NOT NULL,
    streaming                INTEGER NOT NULL,
    status                   TEXT,
    http_status              INTEGER,
    error_type               TEXT,
    error_message            TEXT
);
CREATE INDEX IF NOT EXISTS aibridge_interceptions_started ON aibridge_interceptions (started_at);
CREATE INDEX IF NOT EXISTS aibridge_interceptions_initiator ON aibridge_interceptions (initiator_id, started_at);
CREATE INDEX IF NOT EXISTS aibridge_interceptions_session ON aibridge_interceptions (client_session_id, started_at)
    WHERE client_session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS aibridge_interceptions_answers
    ON aibridge_interceptions (correlating_tool_call_id, initiator_id, started_at)
    WHERE correlating_tool_call_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS aibridge_interceptions_parent ON aibridge_interceptions (thread_parent_id)
    WHERE thread_parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS aibridge_interceptions_root ON aibridge_interceptions (thread_root_id)
    WHERE thread_root_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS aibridge_token_usages (
    id                       TEXT PRIMARY KEY NOT NULL,
    interception_id          TEXT NOT NULL,
    provider_response_id     TEXT,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cache_read_input_tokens  INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    metadata                 TEXT NOT NULL,
    created_at               TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS aibridge_token_usages_interception ON aibridge_token_usages (interception_id);

CREATE TABLE IF NOT EXISTS aibridge_user_prompts (
    id                       TEXT PRIMARY KEY NOT NULL,
    interception_id          TEXT NOT NULL,
    provider_response_id     TEXT,
    prompt                   TEXT NOT NULL,
    metadata                 TEXT NOT NULL,
    created_at               TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS aibridge_user_prompts_interception ON aibridge_user_prompts (interception_id);

CREATE TABLE IF NOT EXISTS aibridge_tool_usages (
    id                       TEXT PRIMARY KEY NOT NULL,
    interception_id          TEXT NOT NULL,
    provider_response_id     TEXT,
    provider_tool_call_id    TEXT NOT NULL,
    server_url               TEXT,
    tool                     TEXT NOT NULL,
    input                    TEXT NOT NULL,
    injected                 INTEGER NOT NULL,
    invocation_error         TEXT,
    metadata                 TEXT NOT NULL,
    created_at               TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS aibridge_tool_usages_interception ON aibridge_tool_usages (interception_id);
CREATE INDEX IF NOT EXISTS aibridge_tool_usages_call
    ON aibridge_tool_usages (provider_tool_call_id, created_at, id);

CREATE TABLE IF NOT EXISTS aibridge_model_thoughts (
    id                       TEXT PRIMARY KEY NOT NULL,
    interception_id          TEXT NOT NULL,
    provider_response_id     TEXT,
    content                  TEXT NOT NULL,
    metadata                 TEXT NOT NULL,
    created_at               TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS aibridge_model_thoughts_interception ON aibridge_model_thoughts (interception_id);

-- Ends whose interception is not there yet; each leaves when its interception arrives.
CREATE TABLE IF NOT EXISTS aibridge_early_ends (
    interception_id          TEXT PRIMARY KEY NOT NULL,
    record                   TEXT NOT NULL
)
"""

_POSTGRESQL = """
CREATE TABLE aibridge_interceptions (
    id                       uuid PRIMARY KEY,
    initiator_id             text COLLATE "C" NOT NULL,
    provider                 text COLLATE "C" NOT NULL,
    provider_name            text COLLATE "C" NOT NULL,
    model                    text COLLATE "C" NOT NULL,
    started_at               timestamptz NOT NULL,
    ended_at                 timestamptz,
    metadata                 jsonb NOT NULL,
    client                   text COLLATE "C" NOT NULL,
    client_session_id        text COLLATE "C",
    user_agent               text,
    thread_parent_id         uuid,
    thread_root_id           uuid,
    correlating_tool_call_id text COLLATE "C",
    credential_kind          text NOT NULL,
    credential_hint          text NOT NULL,
    route                    text NOT NULL,
    streaming                boolean NOT NULL,
    status                   text,
    http_status              integer,
    error_type               text,
    error_message            text
) PARTITION BY RANGE (id);
CREATE INDEX aibridge_interceptions_started ON aibridge_interceptions (started_at);
CREATE INDEX aibridge_interceptions_latest ON aibridge_interceptions ((coalesce(ended_at, started_at)));
CREATE INDEX aibridge_interceptions_initiator
    ON aibridge_interceptions (left(initiator_id, 256), (coalesce(ended_at, started_at)));
CREATE INDEX aibridge_interceptions_session ON aibridge_interceptions (left(client_session_id, 256), started_at)
    WHERE client_session_id IS NOT NULL;
CREATE INDEX aibridge_interceptions_answers ON aibridge_interceptions (left(correlating_tool_call_id, 256), started_at)
    WHERE correlating_tool_call_id IS NOT NULL;
CREATE INDEX aibridge_interceptions_parent ON aibridge_interceptions (thread_parent_id)
    WHERE thread_parent_id IS NOT NULL;
CREATE INDEX aibridge_interceptions_root ON aibridge_interceptions (thread_root_id)
    WHERE thread_root_id IS NOT NULL;

CREATE TABLE aibridge_token_usages (
    id                       uuid PRIMARY KEY,
    interception_id          uuid NOT NULL,
    provider_response_id     text COLLATE "C",
    input_tokens             bigint NOT NULL,
    output_tokens            bigint NOT NULL,
    cache_read_input_tokens  bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL,
    metadata                 jsonb NOT NULL,
    created_at               timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX aibridge_token_usages_interception ON aibridge_token_usages (interception_id);

CREATE TABLE aibridge_user_prompts (
    id                       uuid PRIMARY KEY,
    interception_id          uuid NOT NULL,
    provider_response_id     text COLLATE "C",
    prompt                   text NOT NULL,
    metadata                 jsonb NOT NULL,
    created_at               timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX aibridge_user_prompts_interception ON aibridge_user_prompts (interception_id);

CREATE TABLE aibridge_tool_usages (
    id                       uuid PRIMARY KEY,
    interception_id          uuid NOT NULL,
    provider_response_id     text COLLATE "C",
    provider_tool_call_id    text COLLATE "C" NOT NULL,
    server_url               text,
    tool                     text COLLATE "C" NOT NULL,
    input                    text NOT NULL,
    injected                 boolean NOT NULL,
    invocation_error         text,
    metadata                 jsonb NOT NULL,
    created_at               timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX aibridge_tool_usages_interception ON aibridge_tool_usages (interception_id);
CREATE INDEX aibridge_tool_usages_call ON aibridge_tool_usages (left(provider_tool_call_id, 256), created_at, id);

CREATE TABLE aibridge_model_thoughts (
    id                       uuid PRIMARY KEY,
    interception_id          uuid NOT NULL,
    provider_response_id     text COLLATE "C",
    content                  text NOT NULL,
    metadata                 jsonb NOT NULL,
    created_at               timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX aibridge_model_thoughts_interception ON aibridge_model_thoughts (interception_id);

CREATE TABLE aibridge_interceptions_default PARTITION OF aibridge_interceptions DEFAULT;
CREATE TABLE aibridge_token_usages_default PARTITION OF aibridge_token_usages DEFAULT;
CREATE TABLE aibridge_user_prompts_default PARTITION OF aibridge_user_prompts DEFAULT;
CREATE TABLE aibridge_tool_usages_default PARTITION OF aibridge_tool_usages DEFAULT;
CREATE TABLE aibridge_model_thoughts_default PARTITION OF aibridge_model_thoughts DEFAULT;

-- Ends whose interception is not there yet; each leaves when its interception arrives.
CREATE TABLE aibridge_early_ends (
    interception_id          uuid PRIMARY KEY,
    record                   jsonb NOT NULL
);

-- What clients were not shown of their conversations (in SQLite, `aibridge.recording.memory` makes this table).
CREATE TABLE aibridge_remembered_turns (
    initiator_id             text NOT NULL,
    key                      text NOT NULL,
    hidden                   bytea NOT NULL,
    expires_at               timestamptz NOT NULL
);
CREATE UNIQUE INDEX aibridge_remembered_turns_key ON aibridge_remembered_turns (md5(initiator_id), md5(key));
CREATE INDEX aibridge_remembered_turns_expiry ON aibridge_remembered_turns (expires_at)
"""


def upgrade() -> None:
    """Make the tables. SQLite may have them already, without the table that tells so."""
    op.execute(_SQLITE if op.get_context().dialect.name == "sqlite" else _POSTGRESQL)
