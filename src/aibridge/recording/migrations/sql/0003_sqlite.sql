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
CREATE INDEX aibridge_interceptions_latest ON aibridge_interceptions (coalesce(ended_at, started_at));
