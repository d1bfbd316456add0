"""Customers: onboarding, reading, changing and deleting them with everything that is theirs.

Source: issue 4, contract page "pipelines", 1.1; document 002, "Required API Endpoints" 7.
"""

from __future__ import annotations

from testyard.lab.database import Connection, Pool, fetch, in_transaction
from testyard.lab.pipelines.database import LOCK_DAY_SHARED
from testyard.lab.pipelines.plans import PLANS, Plan
from testyard.lab.pipelines.records import Customer
from testyard.lab.pipelines.store import keys, quotas
from testyard.lab.pipelines.store.keys import NewKey

_COLUMNS = "customer_id, company_name, admin_email, subscription_plan, status, created_at, updated_at"

_READ = f"SELECT {_COLUMNS} FROM customers WHERE customer_id = %(customer_id)s"

# Two ids that differ in case only would share the ids of their configurations, which are lower case.
_LOCK_NAME = "SELECT pg_advisory_xact_lock(hashtextextended(lower(%(customer_id)s), 0))"

_INSERT = f"""
    INSERT INTO customers (customer_id, company_name, admin_email, subscription_plan, created_at, updated_at)
    SELECT %(customer_id)s, %(company_name)s, %(admin_email)s, %(plan)s, service_now(), service_now()
    WHERE NOT EXISTS (SELECT FROM customers WHERE lower(customer_id) = lower(%(customer_id)s))
    RETURNING {_COLUMNS}"""

_CHANGE = f"""
    UPDATE customers SET company_name = coalesce(%(company_name)s, company_name),
        admin_email = coalesce(%(admin_email)s, admin_email), updated_at = service_now()
    WHERE customer_id = %(customer_id)s RETURNING {_COLUMNS}"""

# Lets runs that are being made pass: their foreign key needs only the customer's key.
_LOCK = "SELECT customer_id FROM customers WHERE customer_id = %(customer_id)s FOR NO KEY UPDATE"

# In the order in which reports lock, so that a report under way is waited for and not run into.
_LOCK_RUNS = """
    SELECT count(*) AS locked FROM (
        SELECT run_id FROM scheduled_pipeline_runs WHERE customer_id = %(customer_id)s ORDER BY run_id FOR UPDATE
    ) AS runs"""

# The history is last: when the runs are gone nobody adds to it.
_TABLES = (
    "notification_dead_letters",
    "notifications",
    "notification_channels",
    "scheduled_pipeline_runs",
    "subscription_quotas",
    "pipeline_configurations",
    "customer_credentials",
    "customer_api_keys",
    "customers",
    "run_transitions",
)
_DELETE = {table: f"DELETE FROM {table} WHERE customer_id = %(customer_id)s" for table in _TABLES}


async def onboard(
    pool: Pool, customer_id: str, *, company_name: str, admin_email: str, plan: Plan, key: NewKey
) -> Customer | None:
    """Make a customer with its first API key and its quota's first day.

    Args:
        pool: The service's connections.
        customer_id: The id, which is the tenant's.
        company_name: The company.
        admin_email: Whom to write to.
        plan: What it has subscribed to.
        key: The first API key.

    Returns:
        The customer; None when the id is taken, also in another case.
    """

    async def work(connection: Connection) -> Customer | None:
        async with connection.pipeline():
            await connection.execute(LOCK_DAY_SHARED)
            await connection.execute(_LOCK_NAME, {"customer_id": customer_id})
            inserted = await connection.execute(
                _INSERT,
                {
                    "customer_id": customer_id,
                    "company_name": company_name,
                    "admin_email": admin_email,
                    "plan": plan,
                },
            )
            row = await inserted.fetchone()
            if row is None:
                return None
            await keys.insert(connection, customer_id, key)
            await quotas.open_first_day(connection, customer_id, PLANS[plan])
        return Customer.of(row)

    return await in_transaction(pool, work)


async def read(pool: Pool, customer_id: str) -> Customer | None:
    """One customer.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        The customer; None when there is none.
    """
    rows = await fetch(pool, _READ, {"customer_id": customer_id})
    return Customer.of(rows[0]) if rows else None


async def change(
    pool: Pool, customer_id: str, *, company_name: str | None = None, admin_email: str | None = None
) -> Customer | None:
    """Change a customer's profile.

    Args:
        pool: The service's connections.
        customer_id: The customer.
        company_name: The company; None leaves it.
        admin_email: Whom to write to; None leaves it.

    Returns:
        The customer as it is now; None when there is none.
    """
    changes = {"customer_id": customer_id, "company_name": company_name, "admin_email": admin_email}
    rows = await fetch(pool, _CHANGE, changes)
    return Customer.of(rows[0]) if rows else None


async def delete(pool: Pool, customer_id: str) -> dict[str, int] | None:
    """Delete a customer and everything that is its own, the history of its runs too.

    Runs that are being executed are deleted as well: what their workers report of them changes nothing.

    Args:
        pool: The service's connections.
        customer_id: The customer.

    Returns:
        How many rows were deleted of each table; None when there is no such customer.
    """
    parameters = {"customer_id": customer_id}

    async def work(connection: Connection) -> dict[str, int] | None:
        await connection.execute(LOCK_DAY_SHARED)
        if await (await connection.execute(_LOCK, parameters)).fetchone() is None:
            return None
        await connection.execute(_LOCK_RUNS, parameters)
        deleted = {}
        for table, statement in _DELETE.items():
            deleted[table] = (await connection.execute(statement, parameters)).rowcount
        return deleted

    return await in_transaction(pool, work)
