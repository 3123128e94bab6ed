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
);
