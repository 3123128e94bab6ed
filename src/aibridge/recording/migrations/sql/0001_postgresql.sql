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
CREATE INDEX aibridge_remembered_turns_expiry ON aibridge_remembered_turns (expires_at);
