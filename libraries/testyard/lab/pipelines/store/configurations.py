"""Pipeline configurations: which pipeline a customer runs when.

Source: document 002, "Required API Endpoints" 1; contract page "pipelines", 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from testyard.lab.database import Pool, fetch
from testyard.lab.pipelines.cron import next_time
from testyard.lab.pipelines.records import Configuration
from testyard.lab.pipelines.store import clock

_COLUMNS = """config_id, customer_id, provider, domain, template_name, schedule, timezone, priority,
    default_parameters, is_active, last_run_time, last_run_status, next_run_time, created_at, updated_at"""

# A configuration that is sent again must not lose the run that is due: the same schedule keeps its next time.
_CONFIGURE = f"""
    INSERT INTO pipeline_configurations AS present (config_id, customer_id, provider, domain, template_name,
        schedule, timezone, priority, default_parameters, next_run_time, created_at, updated_at)
    VALUES (%(config_id)s, %(customer_id)s, %(provider)s, %(domain)s, %(template_name)s, %(schedule)s,
        %(timezone)s, %(priority)s, %(default_parameters)s, %(next_run_time)s, %(now)s, %(now)s)
    ON CONFLICT (config_id) DO UPDATE SET schedule = excluded.schedule, timezone = excluded.timezone,
        priority = excluded.priority, default_parameters = excluded.default_parameters, is_active = true,
        next_run_time = CASE
            WHEN present.is_active
                AND (present.schedule, present.timezone) = (excluded.schedule, excluded.timezone)
            THEN present.next_run_time ELSE excluded.next_run_time END,
        updated_at = excluded.updated_at
    -- An id cannot be another customer's; if it were, this must not change it.
    WHERE present.customer_id = excluded.customer_id
    RETURNING {_COLUMNS}"""

_FIND = f"""
    SELECT {_COLUMNS} FROM pipeline_configurations
    WHERE customer_id = %(customer_id)s ORDER BY created_at, config_id"""

_READ = f"""
    SELECT {_COLUMNS} FROM pipeline_configurations
    WHERE config_id = %(config_id)s AND customer_id = %(customer_id)s"""

_DISABLE = f"""
    UPDATE pipeline_configurations SET is_active = false, next_run_time = NULL, updated_at = service_now()
    WHERE config_id = %(config_id)s AND customer_id = %(customer_id)s RETURNING {_COLUMNS}"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration shall be.

    Args:
        provider: The cloud or model provider.
        domain: The pipeline's domain.
        template_name: The pipeline.
        schedule: Five fields of cron.
        timezone: The IANA zone in which they are meant.
        priority: 1 to 10, higher first.
        default_parameters: What its runs are called with.
    """

    provider: str
    domain: str
    template_name: str
    schedule: str
    timezone: str
    priority: int
    default_parameters: Mapping[str, Any]


def config_id_of(customer_id: str, provider: str, domain: str, template_name: str) -> str:
    """The id of the one configuration a customer has of a pipeline.

    Args:
        customer_id: The customer.
        provider: The cloud or model provider.
        domain: The pipeline's domain.
        template_name: The pipeline.

    Returns:
        ``cfg_{customer}_{provider}_{domain}_{template}``, lower case.
    """
    return f"cfg_{customer_id}_{provider}_{domain}_{template_name}".lower()


async def configure(pool: Pool, customer_id: str, wanted: Wanted) -> Configuration:
    """Make a configuration, or change the one of the same pipeline; it is active afterwards.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        wanted: What it shall be.

    Returns:
        The configuration.

    Raises:
        CronError: The schedule or the zone cannot be used.
    """

    now = await clock.read(pool)
    stored = await fetch(
        pool,
        _CONFIGURE,
        {
            "config_id": config_id_of(customer_id, wanted.provider, wanted.domain, wanted.template_name),
            "customer_id": customer_id,
            "provider": wanted.provider,
            "domain": wanted.domain,
            "template_name": wanted.template_name,
            "schedule": wanted.schedule,
            "timezone": wanted.timezone,
            "priority": wanted.priority,
            "default_parameters": Jsonb(dict(wanted.default_parameters)),
            "next_run_time": next_time(wanted.schedule, wanted.timezone, now),
            "now": now,
        },
    )
    return Configuration(**stored[0])


async def find(pool: Pool, customer_id: str) -> list[Configuration]:
    """A customer's configurations, the oldest first.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The configurations, those that are not active too.
    """
    return [Configuration(**row) for row in await fetch(pool, _FIND, {"customer_id": customer_id})]


async def read(pool: Pool, customer_id: str, config_id: str) -> Configuration | None:
    """One configuration.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        config_id: The configuration.

    Returns:
        The configuration; None when the customer has no such one.
    """
    rows = await fetch(pool, _READ, {"customer_id": customer_id, "config_id": config_id})
    return Configuration(**rows[0]) if rows else None


async def disable(pool: Pool, customer_id: str, config_id: str) -> Configuration | None:
    """Let a configuration make no more runs; it stays, with its history.

    Args:
        pool: The service's connections.
        customer_id: Whose it is.
        config_id: The configuration.

    Returns:
        The configuration as it is now; None when the customer has no such one.
    """
    rows = await fetch(pool, _DISABLE, {"customer_id": customer_id, "config_id": config_id})
    return Configuration(**rows[0]) if rows else None
