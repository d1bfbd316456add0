-- The document's three tables (002, "Required Database Tables") with its columns, and what they need around them.

CREATE TABLE customers (
    customer_id text PRIMARY KEY,
    company_name text NOT NULL,
    admin_email text NOT NULL,
    subscription_plan text NOT NULL,
    status text NOT NULL DEFAULT 'ACTIVE',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE customer_api_keys (
    key_id text PRIMARY KEY,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    key_name text NOT NULL,
    key_hash text NOT NULL UNIQUE,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX customer_api_keys_by_customer ON customer_api_keys (customer_id);

CREATE TABLE customer_credentials (
    credential_id text PRIMARY KEY,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    provider text NOT NULL,
    credential_type text NOT NULL,
    credential_name text NOT NULL,
    project_id text,
    region text,
    encrypted_credentials bytea NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    UNIQUE (customer_id, credential_name)
);

CREATE TABLE pipeline_configurations (
    config_id text PRIMARY KEY,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    provider text NOT NULL,
    domain text NOT NULL,
    template_name text NOT NULL,
    schedule text NOT NULL,
    timezone text NOT NULL DEFAULT 'UTC',
    priority smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    default_parameters jsonb NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    last_run_time timestamptz,
    last_run_status text,
    next_run_time timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX pipeline_configurations_by_customer ON pipeline_configurations (customer_id);
CREATE INDEX pipeline_configurations_due ON pipeline_configurations (next_run_time, config_id) WHERE is_active;

CREATE TABLE run_states (from_state text, to_state text NOT NULL, UNIQUE NULLS NOT DISTINCT (from_state, to_state));
COMMENT ON TABLE run_states IS 'The transitions that are allowed; the service writes them from its code at start.';

CREATE TABLE scheduled_pipeline_runs (
    run_id text PRIMARY KEY,
    -- Without a configuration when the run was asked for directly.
    config_id text REFERENCES pipeline_configurations ON DELETE CASCADE,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    provider text NOT NULL,
    domain text NOT NULL,
    template_name text NOT NULL,
    parameters jsonb NOT NULL DEFAULT '{}',
    priority smallint NOT NULL,
    -- First in, first out inside a priority.
    queue_position bigint GENERATED ALWAYS AS IDENTITY,
    scheduled_time timestamptz NOT NULL,
    idempotency_key text UNIQUE,
    trigger_type text NOT NULL,
    state text NOT NULL,
    pipeline_logging_id text,
    retry_attempt integer NOT NULL DEFAULT 0,
    not_before timestamptz,
    error_class text,
    error_message text,
    -- The day whose quota the run takes from, also when it ends on another.
    reservation_date date,
    -- Counts every claim, so that a worker that was given up cannot report for the next one.
    claim_number integer NOT NULL DEFAULT 0,
    worker_id text,
    -- The database's real time, whatever the test clock says.
    heartbeat_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX scheduled_pipeline_runs_queue ON scheduled_pipeline_runs (priority DESC, queue_position) WHERE state = 'PENDING';
CREATE INDEX scheduled_pipeline_runs_new ON scheduled_pipeline_runs (priority DESC, queue_position) WHERE state = 'SCHEDULED';
CREATE INDEX scheduled_pipeline_runs_running ON scheduled_pipeline_runs (customer_id) WHERE state = 'RUNNING';
CREATE INDEX scheduled_pipeline_runs_by_customer ON scheduled_pipeline_runs (customer_id, scheduled_time);
CREATE INDEX scheduled_pipeline_runs_by_configuration ON scheduled_pipeline_runs (config_id);

CREATE TABLE subscription_quotas (
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    usage_date date NOT NULL,
    pipelines_run_today integer NOT NULL DEFAULT 0,
    pipelines_run_month integer NOT NULL DEFAULT 0,
    concurrent_running integer NOT NULL DEFAULT 0,
    daily_limit integer NOT NULL,
    monthly_limit integer NOT NULL,
    concurrent_limit integer NOT NULL,
    -- What was admitted and has not ended: it becomes used with success, and is free again after a final failure.
    reserved_today integer NOT NULL DEFAULT 0,
    reserved_month integer NOT NULL DEFAULT 0,
    -- The customer's newest day: the one row on which a reservation or a slot is decided.
    is_current boolean NOT NULL DEFAULT true,
    PRIMARY KEY (customer_id, usage_date),
    CONSTRAINT never_negative CHECK (
        pipelines_run_today >= 0 AND pipelines_run_month >= 0 AND concurrent_running >= 0
        AND reserved_today >= 0 AND reserved_month >= 0
    )
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX subscription_quotas_current ON subscription_quotas (customer_id) WHERE is_current;
-- Says at once whether a day has to be opened.
CREATE INDEX subscription_quotas_days ON subscription_quotas (usage_date) WHERE is_current;

-- Every change of a run's state, whoever makes it: what the exactly-once checker reads.
CREATE TABLE run_transitions (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text NOT NULL,
    customer_id text NOT NULL,
    from_state text,
    to_state text NOT NULL,
    retry_attempt integer NOT NULL,
    claim_number integer NOT NULL,
    worker_id text,
    reason text,
    not_before timestamptz,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX run_transitions_by_run ON run_transitions (run_id);
CREATE INDEX run_transitions_by_customer ON run_transitions (customer_id);

CREATE TABLE notification_channels (
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (customer_id, channel, target)
);

CREATE TABLE notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    run_id text NOT NULL REFERENCES scheduled_pipeline_runs ON DELETE CASCADE,
    channel text NOT NULL,
    target text NOT NULL,
    subject text NOT NULL,
    body jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    -- Real time, as heartbeats.
    not_before timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    created_at timestamptz NOT NULL,
    UNIQUE (run_id, channel, target)
);
CREATE INDEX notifications_waiting ON notifications (not_before) WHERE sent_at IS NULL;

CREATE TABLE notification_dead_letters (
    notification_id bigint PRIMARY KEY,
    customer_id text NOT NULL REFERENCES customers ON DELETE CASCADE,
    run_id text NOT NULL,
    channel text NOT NULL,
    target text NOT NULL,
    subject text NOT NULL,
    body jsonb NOT NULL,
    attempts integer NOT NULL,
    last_error text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE test_clock (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    moment timestamptz NOT NULL
);
