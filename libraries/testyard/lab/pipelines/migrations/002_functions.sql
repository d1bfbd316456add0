-- The service's time: the test clock's row for sessions that were started with it, else the database's.
CREATE FUNCTION service_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_setting('testyard.test_clock', true) = 'on'
        THEN coalesce((SELECT moment FROM test_clock), now()) ELSE now() END
$$;

CREATE FUNCTION service_today() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT (service_now() AT TIME ZONE 'UTC')::date
$$;

-- Refuses a transition that the table of transitions does not have, and writes the others down. One statement
-- for all rows: the queue's batches pay for it once. Its plans are made for the first statement of a session, mostly of
-- one row, and kept: without nested loops they are as good for thousands.
CREATE FUNCTION record_run_transitions() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    refused text;
    moment constant timestamptz := service_now();
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- What was decided in the statement that made it has been SCHEDULED as well, and its history says so.
        SELECT run_id || ': created as ' || state INTO refused
        FROM new_rows
        WHERE NOT EXISTS (
            SELECT FROM run_states WHERE coalesce(from_state, 'SCHEDULED') = 'SCHEDULED' AND to_state = state
        )
        LIMIT 1;
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION 'transition not allowed: %', refused USING ERRCODE = 'TY001';
        END IF;
        INSERT INTO run_transitions
            (run_id, customer_id, from_state, to_state, retry_attempt, claim_number, worker_id, reason, not_before, at)
        SELECT run_id, customer_id, step.from_state, step.to_state, retry_attempt, claim_number, worker_id, step.reason,
            not_before, moment
        FROM new_rows, LATERAL (
            VALUES (NULL, 'SCHEDULED', NULL), ('SCHEDULED', state, error_message)
        ) AS step (from_state, to_state, reason)
        WHERE step.from_state IS DISTINCT FROM step.to_state ORDER BY queue_position, step.from_state NULLS FIRST;
        RETURN NULL;
    END IF;
    SELECT old_rows.run_id || ': ' || old_rows.state || ' to ' || new_rows.state INTO refused
    FROM old_rows JOIN new_rows USING (run_id)
    WHERE old_rows.state <> new_rows.state
        AND NOT EXISTS (SELECT FROM run_states WHERE from_state = old_rows.state AND to_state = new_rows.state)
    LIMIT 1;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'transition not allowed: %', refused USING ERRCODE = 'TY001';
    END IF;
    INSERT INTO run_transitions
        (run_id, customer_id, from_state, to_state, retry_attempt, claim_number, worker_id, reason, not_before, at)
    SELECT run_id, new_rows.customer_id, old_rows.state, new_rows.state, new_rows.retry_attempt,
        new_rows.claim_number, new_rows.worker_id, new_rows.error_message, new_rows.not_before, moment
    FROM old_rows JOIN new_rows USING (run_id)
    WHERE old_rows.state <> new_rows.state ORDER BY new_rows.queue_position;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_inserted AFTER INSERT ON scheduled_pipeline_runs
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION record_run_transitions();
CREATE TRIGGER run_updated AFTER UPDATE ON scheduled_pipeline_runs
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION record_run_transitions();
