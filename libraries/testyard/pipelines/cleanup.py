"""Delete the customers that a run made on the user's own pipeline service."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from testyard.core.errors import UserError
from testyard.core.leftover import Leftover
from testyard.pipelines.service import PipelineService

OF_RUN = "SELECT customer_id FROM customers WHERE right(customer_id, %(length)s) = %(mark)s ORDER BY customer_id"


def mark_of(run: str) -> str:
    """How the ids of a run's customers end."""
    return f"_{run}"


def customers_of(run: str, database_url: str) -> list[str]:
    """The ids of a run's customers, which only the database lists.

    Args:
        run: The run's id.
        database_url: The service's database.

    Raises:
        UserError: The database cannot be reached or has no customers.
    """
    mark = mark_of(run)
    try:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            rows = connection.execute(OF_RUN, {"length": len(mark), "mark": mark}).fetchall()
    except psycopg.Error as problem:
        reason = str(problem).strip().splitlines()[-1]
        message = f"The customers of run {run} cannot be read from the pipeline service's database: {reason}"
        raise UserError(message) from None
    return [row[0] for row in rows]


def delete_customers(service: PipelineService, customers: list[str]) -> Iterator[Leftover]:
    """Delete customers with all that belongs to them.

    Args:
        service: The service, called as its admin.
        customers: Their ids.

    Yields:
        Each customer, as soon as it is dealt with; one that cannot be deleted does not keep the others from it.
    """
    for customer in customers:
        try:
            found = service.delete_customer(customer)
        except UserError as problem:
            yield Leftover(customer, str(problem), ended=False)
        else:
            yield Leftover(customer, "deleted" if found else "was gone", ended=True)
