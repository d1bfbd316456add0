"""Keywords that send statements and check what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from assertionengine import AssertionOperator, verify_assertion
from robot.api import logger
from robot.api.deco import keyword
from testyard.core.errors import NotMetError, UserError
from testyard.sql.comparison import Row, RowComparison, compare, rows_table
from testyard.sql.database import Database
from testyard.sql.retrying import read_until
from testyard.sql.statements import Parameters
from testyard.sql.values import comparable

from SqlLibrary.session import Session

Read = Callable[[timedelta], Any]
Result = TypeVar("Result")

# Their expected value is a text or an expression whatever the value's type is.
ON_TEXTS = frozenset(AssertionOperator[name] for name in ("not contains", "*=", "^=", "$=", "matches"))
EXPRESSIONS = frozenset(AssertionOperator[name] for name in ("validate", "then"))

AT_ONCE = timedelta()


class QueryKeywords:
    """Keywords that send statements and check what they return."""

    _session: Session

    @keyword(tags=["Getter"])
    def query(self, statement: str, *, parameters: Any = None, alias: str = "default") -> list[Row]:
        """Send a statement, draw and return its rows.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            alias: The connection.

        Returns:
            The rows, each a dictionary by column name.

        Raises:
            UserError: The server refuses the statement, a parameter is missing, or it returns no rows to read.

        Example:
            | ${rows} = | Query | SELECT * FROM runs WHERE state = %s | parameters=FAILED |
        """
        database = self._session.connections.get(alias)
        rows = database.query(statement, _bound(parameters), timeout=self._session.timeout.value)
        logger.info(rows_table(f"{len(rows)} rows", rows), html=True)
        return list(rows)

    @keyword(tags=["Getter", "Wait"])
    def query_one_row(
        self, statement: str, *, parameters: Any = None, retry_for: timedelta = AT_ONCE, alias: str = "default"
    ) -> Row:
        """Send a statement and return its only row.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            retry_for: How long to wait until there is exactly one row.
            alias: The connection.

        Returns:
            The row as a dictionary by column name.

        Raises:
            NotMetError: There is no row, or more than one.
            UserError: The server refuses the statement, or a parameter is missing.

        Example:
            | ${run} = | Query One Row | SELECT * FROM runs WHERE id = %s | parameters=${id} | retry_for=5s |
        """
        row: Row = self._until(
            lambda database, timeout: database.query_one(statement, _bound(parameters), timeout=timeout),
            lambda row: row,
            retry_for,
            alias,
        )
        logger.info(rows_table("1 row", [row]), html=True)
        return row

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def query_value(
        self,
        statement: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        parameters: Any = None,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> Any:
        """Read the only column of the only row, and check it when an operator is given.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            assertion_operator: `==`, `!=`, `<`, `>=`, `contains`, `matches`, `validate`…
            assertion_expected: What the value is compared with, read as the value's type.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            retry_for: How long the value may take to become right; the statements' own time counts.
            alias: The connection.

        Returns:
            The value, or what the operator makes of it.

        Raises:
            AssertionError: It is not right (in time), or there is no row or more than one.
            UserError: The server refuses the statement, or a parameter is missing.

        Example:
            | Query Value | SELECT state FROM runs WHERE id = %s | == | COMPLETED | parameters=${id} |
            | Query Value | SELECT count(*) FROM runs WHERE ended IS NULL | == | 0 | retry_for=5s |
        """
        value = self._until(
            lambda database, timeout: database.query_value(statement, _bound(parameters), timeout=timeout),
            _check("The value", assertion_operator, assertion_expected, message),
            retry_for,
            alias,
        )
        logger.info(f"The value is {value!r}.")
        return value

    @keyword(tags=["Getter", "Assertion", "Wait"])
    def row_count(
        self,
        statement: str,
        assertion_operator: AssertionOperator | None = None,
        assertion_expected: Any = None,
        message: str | None = None,
        *,
        parameters: Any = None,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> int:
        """Count the rows of a query, and check the number when an operator is given.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            assertion_operator: `==`, `!=`, `<`, `>=`, `validate`…
            assertion_expected: What the number is compared with.
            message: Said instead when it fails; `{value}` and `{expected}` are filled in.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            retry_for: How long the number may take to become right; the statements' own time counts.
            alias: The connection.

        Returns:
            The number of rows.

        Raises:
            AssertionError: The number is not right (in time).
            UserError: The server refuses the statement, or a parameter is missing.

        Example:
            | Row Count | SELECT 1 FROM runs WHERE state = 'FAILED' | == | 0 |
        """
        count: int = self._until(
            lambda database, timeout: database.count(statement, _bound(parameters), timeout=timeout),
            _check("The number of rows", assertion_operator, assertion_expected, message),
            retry_for,
            alias,
        )
        logger.info(f"The number of rows is {count}.")
        return count

    @keyword(tags=["Assertion", "Wait"])
    def rows_should_be(
        self,
        statement: str,
        *expected: Mapping[str, Any],
        keys: list[str] | None = None,
        ordered: bool = False,
        parameters: Any = None,
        retry_for: timedelta = AT_ONCE,
        alias: str = "default",
    ) -> list[Row]:
        """Check that a query returns these rows and no others; draws a table of what differs.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            expected: The rows, each a dictionary; only the columns that they name are compared.
            keys: Columns that tell which rows belong together.
            ordered: Whether their order counts too.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            retry_for: How long the rows may take to become right; the statements' own time counts.
            alias: The connection.

        Returns:
            The rows that the query returned.

        Raises:
            NotMetError: Rows differ, are missing or unexpected.
            UserError: The server refuses the statement, or the rows have no such column.

        Example:
            | VAR | &{first} | id=1 | state=COMPLETED |
            | VAR | &{second} | id=2 | state=FAILED |
            | Rows Should Be | SELECT id, state FROM runs | ${first} | ${second} | keys=['id'] |
        """
        last: list[RowComparison] = []

        def verify(rows: list[Row]) -> list[Row]:
            last[:] = [compare(expected, rows, keys=keys or (), ordered=ordered)]
            if last[0].differences:
                raise NotMetError(last[0].message)
            return rows

        try:
            return self._until(
                lambda database, timeout: database.query(statement, _bound(parameters), timeout=timeout),
                verify,
                retry_for,
                alias,
            )
        finally:
            for comparison in last:
                logger.info(comparison.html(), html=True)

    @keyword(tags=["Setup"])
    def execute_sql(self, statement: str, *, parameters: Any = None, alias: str = "default") -> int:
        """Send a statement that changes something; without parameters, several separated by semicolons.

        Args:
            statement: SQL with `%s` or `%(name)s` where a value goes.
            parameters: The values: a dictionary by name, a list by position, or a single value.
            alias: The connection.

        Returns:
            How many rows the last statement changed.

        Raises:
            UserError: The server refuses the statement, or a parameter is missing.

        Example:
            | ${changed} = | Execute Sql | UPDATE runs SET state = %s | parameters=FAILED |
        """
        database = self._session.connections.get(alias)
        count = database.execute(statement, _bound(parameters), timeout=self._session.timeout.value)
        logger.info(f"Rows changed: {count}.")
        return count

    def _until(
        self,
        read: Callable[[Database, timedelta], Any],
        verify: Callable[[Any], Result],
        retry_for: timedelta,
        alias: str,
    ) -> Result:
        database = self._session.connections.get(alias)
        return read_until(
            lambda timeout: read(database, timeout),
            verify,
            retry_for=retry_for,
            timeout=self._session.timeout.value,
        )


def _bound(parameters: Any) -> Parameters:
    if parameters is None or isinstance(parameters, Mapping | list | tuple):
        return parameters
    return [parameters]


def _check(
    what: str, operator: AssertionOperator | None, expected: Any, message: str | None
) -> Callable[[Any], Any]:
    """What accepts a value, or raises what the assertion engine says."""
    if operator is None and expected is not None:
        problem = "An expected value needs an operator before it, such as ==."
        raise UserError(problem)

    def verify(value: Any) -> Any:
        wanted = expected
        if operator in ON_TEXTS and not isinstance(value, str | list | dict):
            value = str(value)
        elif operator is not None and operator not in EXPRESSIONS:
            wanted = comparable(value, expected)
        try:
            return verify_assertion(value, operator, wanted, what, message)
        except TypeError:
            shown = "NULL" if value is None else repr(value)
            problem = f"{what} {shown} cannot be compared with {wanted!r} by {operator.value if operator else ''}."
            raise NotMetError(problem) from None

    return verify
