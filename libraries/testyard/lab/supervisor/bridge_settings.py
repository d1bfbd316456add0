"""What the services of the lab's event bus are started with instead of the documented settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testyard.lab.environment import KafkaSource

# What differs from the documented waits, so that a suite does not wait for minutes.
SHORTER: dict[str, Any] = {
    "bus": {
        "request_timeout": 0.3,
        "retry_backoff": 0.05,
        "breaker": {"failures": 5, "open_for": 0.3, "successes": 3, "probes": 3},
        "look_after": 0.1,
    },
    "database": {
        "timeout": 1,
        "breaker": {"failures": 5, "open_for": 0.5, "successes": 2, "probes": 3},
    },
    "orchestrator": {
        "stamping_timeout": 1,
        "onextree_timeout": 1,
        "workflow_timeout": 20,
        "workflow_grace": 5,
        "breaker": {"failures": 5, "open_for": 0.5, "successes": 2, "probes": 3},
        "resume_after": 0.5,
    },
    # The lab's brokers answer only when the wait is over, also when a record arrives meanwhile. What comes within
    # the next moment is gathered, as each batch costs a transaction.
    "reducer": {
        "group": "reducer-group",
        "fetch_wait": 0.05,
        "gather": 0.04,
        "session_timeout": 2,
        "heartbeat": 0.3,
    },
    "adapter": {
        "group": "database-adapter-effect-group",
        "fetch_wait": 0.05,
        "gather": 0.04,
        "session_timeout": 2,
        "heartbeat": 0.3,
        "retry_backoff": 0.1,
        "retry_longest": 0.5,
    },
    # What a suite measures 200 times must not meet a limit that is there for strangers.
    "stamping": {"requests_per_minute": 1_000_000, "hashes_per_minute": 1_000_000},
}

# The first publications to brokers that were just started take longer, and five that fail are an outage: what was
# to be published meanwhile comes later, a hundred a second.
WITH_REAL_BROKERS: dict[str, Any] = {"bus": {"request_timeout": 3}}


def settings_with(kafka: KafkaSource, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the services of a lab are started with.

    Args:
        kafka: What brokers the lab has.
        overrides: What a suite wants otherwise, by sections.
    """
    shorter = SHORTER if kafka is KafkaSource.MOCK else _merged(SHORTER, WITH_REAL_BROKERS)
    return _merged(shorter, overrides)


def _merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed, section by section."""
    joined = dict(settings)
    for name, value in overrides.items():
        before = joined.get(name)
        joined[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, Mapping) else value
    return joined
