"""Keywords that judge checks, and that watch over every acknowledged write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from robot.api import logger
from robot.api.deco import keyword
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import NotMetError, UserError
from testyard.core.tables import html_table
from testyard.workflow.execution import judged
from testyard.workflow.integrity import SEEDED_TABLE, WRITES_TABLE
from testyard.workflow.measurements import Role

from WorkflowLibrary.session import Session

COLUMNS = ("check", "verdict", "what was seen")


class CheckKeywords:
    """Checks of the cluster in use."""

    _session: Session

    @keyword(tags=["Getter", "Evidence"])
    def judge_checks(self, *checks: str) -> dict[str, bool]:
        """Try checks once each on the cluster in use, and draw a table of what they saw.

        Args:
            checks: As workflows write them, such as `node_status:n12:stopped`.

        Returns:
            The verdicts by check; a check that could not be made has not passed.

        Raises:
            UserError: There is no such check.

        Example:
            | ${verdicts} = | Judge Checks | cluster_status | database_running |
        """
        verdicts: dict[str, bool] = {}
        rows = []
        for text in checks:
            passed, seen = self._judge(text)
            verdicts[text] = passed
            rows.append((text, "passed" if passed else "failed", seen))
        title = f"{sum(verdicts.values())} of {len(verdicts)} checks passed"
        logger.info(html_table(title, COLUMNS, rows), html=True)
        return verdicts

    @keyword(tags=["Setup", "Evidence"])
    def note_verdicts(self, state: str, *checks: str) -> None:
        """Try checks once each on the cluster in use, and note their verdicts for `Noted Verdicts Should Be`.

        They are forgotten when the clusters are destroyed.

        Args:
            state: What to call the state in which the cluster is.
            checks: As workflows write them.

        Example:
            | Note Verdicts | whole | cluster_status |
            | Crash Node | n11 |
            | Note Verdicts | broken | cluster_status |
        """
        self._session.verdicts[state] = self.judge_checks(*checks)

    @keyword(tags=["Assertion"])
    def noted_verdicts_should_be(self, check: str, expected: Mapping[str, bool]) -> None:
        """Fail unless a check had exactly these verdicts in the states in which they were noted.

        Args:
            check: As workflows write it.
            expected: The check's verdict by the names of the states.

        Raises:
            NotMetError: It had another one, or was not tried; tells in which states.

        Example:
            | VAR | &{expected} | whole=${True} | broken=${False} |
            | Noted Verdicts Should Be | cluster_status | ${expected} |
        """
        noted = self._session.verdicts
        found = {state: verdicts[check] for state, verdicts in noted.items() if check in verdicts}
        if found != dict(expected):
            message = f"{check} should have {_shown(expected)}, but {_shown(found) or 'was not tried'}."
            raise NotMetError(message)

    @keyword(tags=["Assertion"])
    def checks_should_pass(self, *checks: str) -> None:
        """Fail unless every check passes on the cluster in use.

        Args:
            checks: As workflows write them.

        Raises:
            NotMetError: One failed; says what it saw.

        Example:
            | Checks Should Pass | cluster_status | node_status:n12:running |
        """
        for text in checks:
            passed, seen = self._judge(text)
            logger.info(f"{text}: {seen}")
            if not passed:
                raise NotMetError(f"{text}: {seen}")

    @keyword(tags=["Assertion"])
    def check_should_fail(self, check: str) -> None:
        """Fail when a check passes on the cluster in use.

        Args:
            check: As workflows write it.

        Raises:
            NotMetError: It passed; says what it saw.

        Example:
            | Check Should Fail | cluster_critical |
        """
        passed, seen = self._judge(check)
        logger.info(f"{check}: {seen}")
        if passed:
            raise NotMetError(f"{check} should have failed, but passed: {seen}")

    @keyword(tags=["Assertion", "Wait"])
    def wait_until_check_passes(self, check: str, *, within: timedelta = timedelta(minutes=15)) -> None:
        """Wait until a check passes on the cluster in use.

        Args:
            check: As workflows write it.
            within: Give up after this time.

        Raises:
            NotMetError: It did not pass in time; tells what it saw last.

        Example:
            | Wait Until Check Passes | cluster_status | within=20s |
        """
        _, seen = wait_until(
            lambda: self._judge(check), lambda verdict: verdict[0], Deadline(within), f"the check {check}"
        )
        logger.info(f"{check}: {seen}")

    @keyword(tags=["Getter"])
    def primary_of_the_database(self) -> str:
        """Which node of the cluster in use accepts writes.

        Raises:
            NotMetError: None does; tells what each node's database said.

        Example:
            | ${node} = | Primary Of The Database |
        """
        seen = self._session.here.cluster.elected_databases()
        for database in seen:
            logger.info(str(database))
            if database.role is Role.PRIMARY:
                return database.node
        raise NotMetError(f"No node is the primary: {'; '.join(map(str, seen))}")

    @keyword(tags=["Assertion", "Wait"])
    def wait_until_others_accept_writes(self, node: str, *, within: timedelta = timedelta(minutes=15)) -> str:
        """Wait until another node than this one is the database's primary.

        Args:
            node: The node that the others are to go on without.
            within: Give up after this time.

        Returns:
            The primary's name.

        Raises:
            NotMetError: None is, in time; tells what each node's database said last.

        Example:
            | Wait Until Others Accept Writes | n11 | within=20s |
        """
        cluster = self._session.here.cluster
        seen = wait_until(
            cluster.databases,
            lambda databases: any(it.role is Role.PRIMARY and it.node != node for it in databases),
            Deadline(within),
            f"another primary than {node}",
        )
        (primary, *_) = [it.node for it in seen if it.role is Role.PRIMARY and it.node != node]
        logger.info(f"The primary is {primary}")
        return primary

    @keyword(tags=["Setup"])
    def start_writing(self) -> None:
        """Write rows into the database of the cluster in use, one commit each, until `Stop Writing`.

        What was acknowledged is remembered: `data_integrity` and `No Acknowledged Write Should Be Lost` look for
        it.

        Raises:
            UserError: Nobody accepts writes.

        Example:
            | Start Writing |
        """
        problem = self._session.here.cluster.integrity.keep_writing()
        if problem:
            message = f"Nobody accepts writes: {problem}"
            raise UserError(message)

    @keyword(tags=["Setup"])
    def stop_writing(self) -> None:
        """End `Start Writing`; nothing when nobody writes.

        Example:
            | Stop Writing |
        """
        self._session.here.cluster.integrity.pause()

    @keyword(tags=["Assertion"])
    def no_acknowledged_write_should_be_lost(self) -> str:
        """Compare every write that was acknowledged with what the database has.

        Returns:
            How many were acknowledged, found and indeterminate, in a sentence.

        Raises:
            NotMetError: One is missing, or there is a row that nobody wrote; names them.

        Example:
            | No Acknowledged Write Should Be Lost |
        """
        intact, found = self._session.here.cluster.integrity.measure()
        if not intact:
            raise NotMetError(found)
        logger.info(found)
        return found

    @keyword(tags=["Assertion"])
    def data_integrity_should_name_a_deleted_write(self) -> None:
        """Delete an acknowledged row behind everybody's back: `data_integrity` must fail and name it.

        The row is there again afterwards.

        Raises:
            NotMetError: The check passed, or did not name the row; says what it saw.
            UserError: Nobody accepts writes.

        Example:
            | Data Integrity Should Name A Deleted Write |
        """
        self.start_writing()
        self.stop_writing()
        last = f"id = (select max(id) from {WRITES_TABLE})"
        number, payload = self._change(f"delete from {WRITES_TABLE} where {last} returning id, payload")
        try:
            self._expect_noticed(f"row {number} ")
        finally:
            self._change(f"insert into {WRITES_TABLE} values ($1::bigint, $2) returning id", number, payload)

    @keyword(tags=["Assertion"])
    def data_integrity_should_notice_a_changed_row(self) -> None:
        """Change a seeded row behind everybody's back: `data_integrity` must fail and name the table.

        The row is as it was afterwards.

        Raises:
            NotMetError: The check passed, or did not name the table; says what it saw.

        Example:
            | Data Integrity Should Notice A Changed Row |
        """
        change = f"update {SEEDED_TABLE} set payload = reverse(payload) where id = 1 returning id"
        self._change(change)
        try:
            self._expect_noticed("seeded table")
        finally:
            self._change(change)

    def _change(self, statement: str, *values: str | None) -> tuple[str | None, ...]:
        """Run a statement on the primary; gives the row that it returns."""
        cluster = self._session.here.cluster
        _, session = cluster.open_primary()
        with session:
            (row,) = session.run(statement, *values, within=cluster.settings.deadlines.integrity)
        return row

    def _expect_noticed(self, named: str) -> None:
        passed, seen = self._judge("data_integrity")
        logger.info(f"data_integrity: {seen}")
        if passed or named not in seen:
            message = f"data_integrity should have failed and told of the {named.strip()}, but saw: {seen}"
            raise NotMetError(message)

    def _judge(self, text: str) -> tuple[bool, str]:
        context = self._session.here.context
        check, arguments = self._session.checks.split(text)
        try:
            found = check.function(context, *arguments)
        except (UserError, AssertionError) as problem:
            return False, str(problem)
        passed, error = judged(text, found)
        return passed, getattr(found, "measured", None) or error or str(found)


def _shown(verdicts: Mapping[str, bool]) -> str:
    return ", ".join(f"{'passed' if verdict else 'failed'} with {state}" for state, verdict in verdicts.items())
