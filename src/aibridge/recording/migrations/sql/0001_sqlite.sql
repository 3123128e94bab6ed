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
);
