"""Defects of the pipeline service (document 002), put in place in its process and in those of its workers."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from unittest import mock

from testyard.lab.sabotage.defect import DEFECT_VARIABLE, Defect, wrap
from testyard.lab.sabotage.pipeline_defect import PATCHES, change_sql, pipeline_defect


def break_this_process() -> None:
    """Put the defect in place that the environment names."""
    PATCHES[os.environ[DEFECT_VARIABLE]]()


# ---- quota


@pipeline_defect(
    "quota-off-by-one", "one more run than the daily limit is let in", "PIPE-6", "PIPE-C11", "PIPE-C14", "PIPE-C15"
)
def quota_off_by_one() -> None:
    change_sql("daily_limit - pipelines_run_today", "daily_limit + 1 - pipelines_run_today")


@pipeline_defect(
    "quota-of-a-snapshot",
    "reservations are counted when a run ends, not when it is let in",
    "PIPE-C11",
    "PIPE-C14",
    "PIPE-C15",
)
def quota_of_a_snapshot() -> None:
    change_sql("- pipelines_run_today - reserved_today", "- pipelines_run_today")


@pipeline_defect("month-counts-one-day", "the month's counter starts again every day", "PIPE-C12")
def month_counts_one_day() -> None:
    change_sql("CASE WHEN same_month THEN pipelines_run_month ELSE 0 END", "0")


@pipeline_defect("month-never-ends", "the month's counter is carried into the next month", "PIPE-C12")
def month_never_ends() -> None:
    change_sql("CASE WHEN same_month THEN pipelines_run_month ELSE 0 END", "pipelines_run_month")


@pipeline_defect(
    "slot-never-released", "a run that ended keeps its slot", "PIPE-C12", "PIPE-C13", "PIPE-C14", "PIPE-C15"
)
def slot_never_released() -> None:
    change_sql("quota.concurrent_running - change.slots", "quota.concurrent_running - 0 * change.slots")


@pipeline_defect(
    "concurrent-limit-ignored",
    "runs start while the concurrent limit is reached",
    *("PIPE-C13", "PIPE-F6"),
)
def concurrent_limit_ignored() -> None:
    change_sql("AND quota.concurrent_running < quota.concurrent_limit", "")
    change_sql("WHERE place <= free", "")


@pipeline_defect("skipped-without-row", "a run over the quota disappears instead of being SKIPPED", "PIPE-6")
def skipped_without_row() -> None:
    change_sql(
        "FROM ranked WHERE run.run_id = ranked.run_id",
        "FROM ranked WHERE run.run_id = ranked.run_id AND is_granted",
    )
    change_sql("FROM ranked\n        RETURNING state", "FROM ranked WHERE is_granted\n        RETURNING state")


@pipeline_defect("counted-on-the-last-day", "a run counts for the day on which it ends", "PIPE-C14")
def counted_on_the_last_day() -> None:
    change_sql("usage_date = reservation_date AND succeeded", "locked.is_current AND succeeded")


@pipeline_defect("failure-keeps-its-place", "a final failure keeps its reservation", "PIPE-C14")
def failure_keeps_its_place() -> None:
    change_sql(
        "FILTER (WHERE usage_date = reservation_date AND is_final)",
        "FILTER (WHERE usage_date = reservation_date AND is_final AND succeeded)",
    )


# ---- retries


@pipeline_defect("retry-at-once", "a retry waits for nothing", "PIPE-7", "PIPE-C16")
def retry_at_once() -> None:
    change_sql(
        "not_before = (SELECT service_now()) + retry.delay",
        "not_before = (SELECT service_now()) + 0 * retry.delay",
    )


@pipeline_defect("retry-not-counted", "the number of a retry is not stored", "PIPE-7", "PIPE-C16", "PIPE-C17")
def retry_not_counted() -> None:
    change_sql("retry_attempt = run.retry_attempt + 1", "retry_attempt = run.retry_attempt")


@pipeline_defect("retried-forever", "there is always one more retry", "PIPE-C16", "PIPE-C17")
def retried_forever() -> None:
    from testyard.lab.pipelines.store import outcomes

    wrap(outcomes, "may_retry", lambda original, error_class, _: original(error_class, 0))


@pipeline_defect("hopeless-retried", "what no retry can mend is retried", "PIPE-C17")
def hopeless_retried() -> None:
    from testyard.lab.pipelines.retry import ErrorClass
    from testyard.lab.pipelines.store import outcomes

    wrap(outcomes, "may_retry", lambda original, _, retries: original(ErrorClass.TIMEOUT, retries))


# ---- schedules


@pipeline_defect(
    "zone-of-the-server",
    "next_run_time is computed in UTC, whatever the pipeline's zone",
    "PIPE-C7",
    "PIPE-C8",
    "PIPE-C9",
)
def zone_of_the_server() -> None:
    from testyard.lab.pipelines.store import admission, configurations

    for module in (admission, configurations):
        wrap(module, "next_time", lambda original, schedule, _, after: original(schedule, "UTC", after))


@pipeline_defect("folded-hour-twice", "a fixed time is looked for as an hourly one is", "PIPE-C8", "PIPE-C9")
def folded_hour_twice() -> None:
    from testyard.lab.pipelines.cron import Schedule

    Schedule._next_fixed = Schedule._next_wildcard  # type: ignore[method-assign]


@pipeline_defect("fold-skipped", "an hourly pipeline leaves out the second of two equal hours", "PIPE-C8")
def fold_skipped() -> None:
    from testyard.lab.pipelines.cron import Schedule

    Schedule._next_wildcard = Schedule._next_fixed  # type: ignore[method-assign]


@pipeline_defect("triggered-twice", "every trigger makes runs of its own for the same time", "PIPE-C10", "PIPE-F2")
def triggered_twice() -> None:
    change_sql("FOR UPDATE OF pipeline_configurations SKIP LOCKED", "")
    from testyard.lab.pipelines.store import admission

    wrap(admission, "idempotency_key", lambda original, *_: os.urandom(16).hex())


@pipeline_defect("last-run-forgotten", "a pipeline does not learn when it ran", "PIPE-5")
def last_run_forgotten() -> None:
    change_sql(
        "SET last_run_time = last.ended_at, last_run_status = last.state", "SET last_run_status = last.state"
    )


# ---- the queue


@pipeline_defect("last-in-first-out", "inside a priority the newest run is first", "PIPE-C18")
def last_in_first_out() -> None:
    change_sql(
        "ORDER BY run.priority DESC, run.queue_position", "ORDER BY run.priority DESC, run.queue_position DESC"
    )


@pipeline_defect("priority-ignored", "the queue does not look at priorities", "PIPE-C18")
def priority_ignored() -> None:
    change_sql("ORDER BY run.priority DESC, run.queue_position", "ORDER BY run.queue_position")


@pipeline_defect("taken-by-two", "two workers can take one run", "PIPE-C19")
def taken_by_two() -> None:
    change_sql("FOR UPDATE OF run SKIP LOCKED", "")
    # Between looking and taking: whether two workers look at the same moment is not left to chance.
    looked = "IN (SELECT customer_id FROM candidates)"
    change_sql(looked, f"{looked} AND (SELECT pg_sleep(0.2)) IS NOT NULL")


@pipeline_defect("way-back", "a completed run can be started again", "PIPE-C20")
def way_back() -> None:
    from testyard.lab.pipelines import migrate, states

    ways = {**states.TRANSITIONS, states.RunState.COMPLETED: frozenset({states.RunState.RUNNING})}
    setattr(migrate, "TRANSITIONS", ways)  # noqa: B010 it is final, and this breaks it


@pipeline_defect(
    "never-healed",
    "a run whose worker is gone stays RUNNING",
    "PIPE-C21",
    # The runs of the killed worker are what all later tests wait for.
    "PIPE-F7",
    "PIPE-F8",
    "PIPE-F9",
    "PIPE-F10",
)
def never_healed() -> None:
    change_sql("WHERE state = 'RUNNING' AND heartbeat_at <", "WHERE false AND heartbeat_at <")


@pipeline_defect("no-heartbeats", "executors send no heartbeats", "PIPE-C21")
def no_heartbeats() -> None:
    from testyard.lab.pipelines.runner import Runner

    async def forget(_: Any, __: Runner) -> None:
        return

    wrap(Runner, "_send_heartbeats_forever", forget)


@pipeline_defect("late-report-counts", "a worker that was given up can still report", "PIPE-C21")
def late_report_counts() -> None:
    from testyard.lab.pipelines.routes import reports

    def running(original: Any, service: Any, run_id: str, report: Any, verb: str) -> Any:
        return original(service, run_id, report.model_copy(update={"claim_number": None}), verb)

    wrap(reports, "_running", running)


# ---- customers


@pipeline_defect("stored-in-clear", "credentials are stored as they were given", "PIPE-1", "PIPE-C3")
def stored_in_clear() -> None:
    from testyard.lab.pipelines.encryption import AesGcmCipher

    wrap(AesGcmCipher, "encrypt", lambda original, self, plain, context: plain)


@pipeline_defect("revoked-key-opens", "a revoked or replaced API key still opens everything", "PIPE-C2")
def revoked_key_opens() -> None:
    change_sql("WHERE key_hash = %(key_hash)s AND is_active", "WHERE key_hash = %(key_hash)s")


@pipeline_defect("runs-of-others", "lists of runs show everybody's", "PIPE-C1", "PIPE-C4")
def runs_of_others() -> None:
    change_sql("WHERE (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)", "WHERE true")


@pipeline_defect("credentials-outlive", "a deleted customer's history stays", "PIPE-8", "PIPE-C5")
def credentials_outlive() -> None:
    from testyard.lab.pipelines.store import customers

    customers._DELETE.pop("run_transitions")


@pipeline_defect("key-never-expires", "an API key opens everything after its time", "PIPE-C2")
def key_never_expires() -> None:
    change_sql("AND expires_at > service_now()", "")


@pipeline_defect("equal-looks-equal", "equal credentials are encrypted to equal bytes", "PIPE-C3")
def equal_looks_equal() -> None:
    from testyard.lab.pipelines.encryption import AesGcmCipher

    def encrypt(original: Any, self: Any, plain: bytes, context: bytes) -> Any:
        with mock.patch("os.urandom", bytes):
            return original(self, plain, b"")

    wrap(AesGcmCipher, "encrypt", encrypt)


@pipeline_defect("unknown-zone-is-utc", "a zone that nobody knows is taken for UTC", "PIPE-C6")
def unknown_zone_is_utc() -> None:
    from testyard.lab.pipelines import cron

    def zone(original: Any, name: str) -> Any:
        try:
            return original(name)
        except cron.CronError:
            return original("UTC")

    wrap(cron, "_zone", zone)


@pipeline_defect("domain-lost", "a scheduled run is always one of COST", "PIPE-C4")
def domain_lost() -> None:
    change_sql(
        "template_name,\n            default_parameters", "template_name || '',\n            default_parameters"
    )
    change_sql(
        "customer_id, provider, domain, template_name || ''", "customer_id, provider, 'COST', template_name"
    )


@pipeline_defect("gap-skipped", "a fixed time in the hour that is missing does not run", "PIPE-C9")
def gap_skipped() -> None:
    from testyard.lab.pipelines.cron import Schedule

    def first_reached(original: Any, self: Any, local: Any) -> Any:
        instant = self._instant(local)
        return instant if self._local(instant) == local else self._instant(local).replace(year=1970)

    wrap(Schedule, "_first_reached", first_reached)


# ---- notifications


@pipeline_defect("told-twice", "every notification is sent twice", "PIPE-F3", "PIPE-F4", "PIPE-F5")
def told_twice() -> None:
    from testyard.lab.pipelines import channels

    for sender in (channels.EmailSender, channels.SlackSender, channels.WebhookSender):

        async def send(original: Any, *arguments: Any) -> None:
            await original(*arguments)
            await original(*arguments)

        wrap(sender, "send", send)


@pipeline_defect("retries-are-told", "a failure that is retried is told as well", "PIPE-F3", "PIPE-F4", "PIPE-F5")
def retries_are_told() -> None:
    change_sql("WHERE is_final AND NOT succeeded", "WHERE NOT succeeded")


@pipeline_defect("never-dead", "a notification that cannot be delivered is tried for ever", "PIPE-F5")
def never_dead() -> None:
    change_sql("AND attempts = %(attempts)s AND sent_at IS NULL RETURNING *", "AND false RETURNING *")


@pipeline_defect("told-to-nobody", "nobody is told of a final failure", "PIPE-F3", "PIPE-F4", "PIPE-F5")
def told_to_nobody() -> None:
    change_sql("WHERE is_final AND NOT succeeded", "WHERE false")


@pipeline_defect("slack-gets-facts", "Slack gets what a plain webhook gets", "PIPE-F4")
def slack_gets_facts() -> None:
    from testyard.lab.pipelines import channels

    setattr(channels.SlackSender, "send", channels.WebhookSender.send)  # noqa: B010 they are of two types


@pipeline_defect("one-attempt-more", "a notification is tried once more than it should be", "PIPE-F5")
def one_attempt_more() -> None:
    from testyard.lab.pipelines.channels import Dispatcher

    def start(original: Any, self: Any, *arguments: Any, attempts: int, **options: Any) -> None:
        original(self, *arguments, attempts=attempts + 1, **options)

    wrap(Dispatcher, "__init__", start)


# ---- the future list


@pipeline_defect("credentials-lost-in-a-crash", "a table does not outlive a crash of the database", "PIPE-F1")
def credentials_lost_in_a_crash() -> None:
    _lose_in_a_crash("customer_credentials")


# Whether a commit that is told before it is written is lost in a crash is chance; what is never written is.
@pipeline_defect("history-lost-in-a-crash", "what became of runs does not outlive a crash", "PIPE-F8")
def history_lost_in_a_crash() -> None:
    _lose_in_a_crash("run_transitions")


def _lose_in_a_crash(table: str) -> None:
    from testyard.lab.pipelines import migrate

    old, new = f"CREATE TABLE {table} (", f"CREATE UNLOGGED TABLE {table} ("

    def read(original: Any, *arguments: Any) -> Any:
        found = original(*arguments)
        return [replace(it, statements=it.statements.replace(old, new)) for it in found]

    wrap(migrate, "read_migrations", read)


@pipeline_defect("reports-dropped", "a report that takes too long is forgotten", "PIPE-F9", "PIPE-F10")
def reports_dropped() -> None:
    from testyard.lab.pipelines.runner import Runner

    async def report(original: Any, self: Any, reports: Any) -> None:
        try:
            await original(self, reports)
        except Exception as problem:
            # Whether one is on its way when a connection ends is chance.
            if "timeout" in str(problem) or "couldn't get a connection" in str(problem):
                self._ended.clear()
            raise

    wrap(Runner, "_report", report)


# ---- what is told


@pipeline_defect("trigger-counts-nothing", "a trigger says that it has queued nothing", "PIPE-2")
def trigger_counts_nothing() -> None:
    from testyard.lab.pipelines.answers import TriggerAnswer

    def of(triggered: Any, limit: Any) -> Any:
        return told(replace(triggered, queued=0), limit)

    told = TriggerAnswer.of
    TriggerAnswer.of = of  # type: ignore[method-assign]


@pipeline_defect("running-not-told", "the queue's status leaves out what is running", "PIPE-3")
def running_not_told() -> None:
    from testyard.lab.pipelines.answers import QueueStatus

    def of(counts: Any) -> Any:
        return told(dict(counts) | {"RUNNING": 0})

    told = QueueStatus.of
    QueueStatus.of = of  # type: ignore[method-assign]


@pipeline_defect("waiting-not-told", "a customer's status leaves out what waits in the queue", "PIPE-4")
def waiting_not_told() -> None:
    change_sql("state IN ('SCHEDULED', 'PENDING')) AS yet_to_run", "state = 'SCHEDULED') AS yet_to_run")


PIPELINE_DEFECTS: tuple[Defect, ...] = (
    quota_off_by_one,
    quota_of_a_snapshot,
    month_counts_one_day,
    month_never_ends,
    slot_never_released,
    concurrent_limit_ignored,
    skipped_without_row,
    counted_on_the_last_day,
    failure_keeps_its_place,
    retry_at_once,
    retry_not_counted,
    retried_forever,
    hopeless_retried,
    zone_of_the_server,
    folded_hour_twice,
    fold_skipped,
    triggered_twice,
    last_run_forgotten,
    last_in_first_out,
    priority_ignored,
    taken_by_two,
    way_back,
    never_healed,
    no_heartbeats,
    late_report_counts,
    stored_in_clear,
    revoked_key_opens,
    runs_of_others,
    credentials_outlive,
    key_never_expires,
    equal_looks_equal,
    unknown_zone_is_utc,
    domain_lost,
    gap_skipped,
    told_twice,
    retries_are_told,
    never_dead,
    told_to_nobody,
    slack_gets_facts,
    one_attempt_more,
    credentials_lost_in_a_crash,
    history_lost_in_a_crash,
    reports_dropped,
    trigger_counts_nothing,
    running_not_told,
    waiting_not_told,
)
