"""Keywords that open, list and end connections."""

from __future__ import annotations

from datetime import timedelta

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.errors import UserError
from testyard.core.settings import Scope
from testyard.sql.comparison import Row, rows_table
from testyard.sql.target import DEFAULT_PORT, Target

from SqlLibrary.session import Session


class ConnectionKeywords:
    """Keywords that open, list and end connections."""

    _session: Session

    @keyword(tags=["Setup"])
    def connect_to_database(
        self,
        url: Secret | str | None = None,
        *,
        alias: str = "default",
        host: str | None = None,
        port: int = DEFAULT_PORT,
        database: str | None = None,
        user: str | None = None,
        password: Secret | None = None,
        application_name: str = "testyard",
        within: timedelta = timedelta(seconds=10),
        **options: str,
    ) -> None:
        """Connect to a PostgreSQL database, by its URL or by its parts.

        Args:
            url: `postgresql://user:password@host:port/database`; one with a password is a Secret.
            alias: How the connection is called from now on; an open one of that name is closed.
            host: The server, when there is no URL.
            port: Its TCP port.
            database: The database's name.
            user: The role to log in as.
            password: Its password; also for a URL without one.
            application_name: How the server lists the connection.
            within: Give up after this time; whole seconds, at least 2.
            options: Further connection parameters of libpq, for TLS: `sslmode=verify-full`, `sslrootcert=…`,
                `sslcert=…`, `sslkey=…`.

        Raises:
            UserError: Nothing answers, the credentials are refused, or the arguments do not say where to.

        Example:
            | Connect To Database | ${DATABASE_URL} |
            | Connect To Database | alias=runs | host=${host} | database=pipelines | user=reader |
            | ... | password=${password} | sslmode=require |
        """
        target = _target(
            url=url,
            host=host,
            port=port,
            database=database,
            user=user,
            password=password,
            options=options,
        )
        self._session.connections.open(target, alias=alias, application_name=application_name, within=within)
        logger.info(f"Connected '{alias}' to {target}.")

    @keyword(tags=["Setup"])
    def disconnect_from_database(self, alias: str = "default") -> None:
        """Close a connection; what was not committed is rolled back.

        Args:
            alias: The connection.

        Raises:
            UserError: There is none of that name; lists the open ones.

        Example:
            | Disconnect From Database | runs |
        """
        self._session.connections.close(alias)

    @keyword(tags=["Setup"])
    def disconnect_from_all_databases(self) -> None:
        """Close every connection; there may be none.

        Example:
            | Disconnect From All Databases |
        """
        self._session.connections.close_all()

    @keyword(tags=["Config"])
    def set_sql_timeout(self, timeout: timedelta, scope: Scope = Scope.TEST) -> timedelta:
        """Say how long a statement may take until it is cancelled.

        Args:
            timeout: The time.
            scope: How long this lasts: `TEST`, `SUITE` or `GLOBAL`.

        Returns:
            What it was, for restoring.

        Example:
            | ${before} = | Set Sql Timeout | 2s | SUITE |
        """
        return self._session.timeout.set(timeout, scope)

    @keyword(tags=["Getter", "Evidence"])
    def database_connections(
        self, application_name: str | None = None, *, pid: int | None = None, alias: str = "default"
    ) -> list[Row]:
        """Draw and return the connections that the server has, but the one that asks.

        Args:
            application_name: Only those that call themselves so.
            pid: Only the one of this process id.
            alias: The connection that asks.

        Returns:
            For each its `pid`, `application_name`, `user`, `database`, `state`, `query` and `backend_start`.

        Example:
            | ${workers} = | Database Connections | pipelines-worker |
        """
        backends = self._session.connections.get(alias).backends(application_name=application_name, pid=pid)
        logger.info(rows_table(f"Database connections: {len(backends)}", backends), html=True)
        return list(backends)

    @keyword(tags=["Fault"])
    def terminate_database_connections(
        self, application_name: str | None = None, *, pid: int | None = None, alias: str = "default"
    ) -> int:
        """End connections from the server's side, as an administrator would, and wait until they are gone.

        Args:
            application_name: Those that call themselves so.
            pid: The one of this process id.
            alias: The connection that does it; it is never ended itself.

        Returns:
            How many were ended.

        Raises:
            UserError: Neither a name nor a process id is given, or the role may not do this.

        Example:
            | ${ended} = | Terminate Database Connections | pipelines-worker |
        """
        ended = self._session.connections.get(alias).terminate_backends(application_name=application_name, pid=pid)
        logger.info(f"Terminated {ended} database connections.")
        return ended


def _target(
    *,
    url: Secret | str | None,
    host: str | None,
    port: int,
    database: str | None,
    user: str | None,
    password: Secret | None,
    options: dict[str, str],
) -> Target:
    secret = password.value if password else ""
    if url is not None:
        if host or database or user:
            message = "Connect by the URL or by host, database and user, not both."
            raise UserError(message)
        target = Target.from_url(url.value if isinstance(url, Secret) else url, password=secret, options=options)
        if isinstance(url, str) and target.password and not secret:
            message = (
                "The database's URL holds a password, which the log would show: pass the URL as a Secret, or "
                "without the password and the password as a Secret."
            )
            raise UserError(message)
        return target
    missing = [name for name, given in (("host", host), ("database", database), ("user", user)) if not given]
    if missing:
        message = f"Connect by a URL, or by host, database and user; missing: {', '.join(missing)}."
        raise UserError(message)
    return Target(host or "", port, database or "", user or "", secret, options)
