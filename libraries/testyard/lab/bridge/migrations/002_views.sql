-- Source: contract page "event-bus", 3.6.

CREATE VIEW recent_stamp_activity AS
SELECT date_trunc('minute', created_at) AS minute, namespace, count(*) AS stamps, sum(file_size) AS bytes
FROM metadata_stamps GROUP BY 1, 2;

CREATE VIEW namespace_statistics AS
SELECT namespace, count(*) AS stamps, sum(file_size) AS bytes, min(created_at) AS first, max(created_at) AS last
FROM metadata_stamps GROUP BY namespace;

CREATE VIEW event_logs_session_summary AS
SELECT session_id, count(*) AS events, min(timestamp) AS first, max(timestamp) AS last,
    count(*) FILTER (WHERE status = 'failed') AS failed
FROM event_logs WHERE session_id IS NOT NULL GROUP BY session_id;

CREATE VIEW event_logs_topic_performance AS
SELECT topic, count(*) AS events,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - timestamp) * 1000) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - timestamp) * 1000) AS p95_ms
FROM event_logs GROUP BY topic;
